"""Colab, Kaggle, Windows: what is missing around the notebooks is named, with what to do; archives cannot do harm."""

import importlib.util
import io
import os
import re
import runpy
import sys
import tarfile
import types
from pathlib import Path

import pytest
import torch

import helpers
from helpers import workspace
from helpers.config import PROFILES, Config
from helpers.data import dataset
from helpers.runs import warmup_of

ROOT = Path(helpers.__file__).parent
UNIX_ONLY = r"import (?:fcntl|resource|pwd|grp|termios|tty|pty|posix|syslog|readline)\b"
UNIX_ONLY += r"|os\.(?:fork|get[ep]?[ug]id|mkfifo|kill|chown|pread|statvfs|sched_)"
UNIX_ONLY += r"|signal\.(?:SIG(?!INT|TERM)|alarm|setitimer)"
UNIX_ONLY += r"|[\"']/(?:tmp|proc|dev|etc|usr|home)\b"


@pytest.fixture
def colab(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))


@pytest.mark.parametrize("name", ["kornia", "safetensors"])
def test_a_missing_package_is_named_with_what_to_do(monkeypatch, name):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None if wanted == name else find_spec(wanted))
    with pytest.raises(ImportError, match=f"{name} is not installed.*setup cell.*pip install -r requirements.txt"):
        runpy.run_path(helpers.__file__)


def test_what_a_machine_lacks_is_said_with_what_to_do(colab, cfg, accelerator, capsys):
    workspace.describe(accelerator, cfg.replace(profile="paper"))
    printed = capsys.readouterr().out
    assert "mount Drive" in printed and "no GPU" in printed and "COLORIZE_PROFILE=laptop" in printed
    assert all(word in printed for word in ("fp32", f"seed {cfg.seed}", str(workspace.root()), "cpu", "paper"))
    with pytest.raises(FileNotFoundError, match="03_warmup_training.*a machine of its own: mount Drive"):
        warmup_of(cfg)


def test_on_colab_photos_are_asked_for_and_elsewhere_nothing(monkeypatch, colab):
    answers = [{}, {"grandma.jpg": b"photo", "a/b.png": b"other"}]
    stand_in = types.SimpleNamespace(upload=lambda: answers.pop(0))
    monkeypatch.setattr(sys.modules["google.colab"], "files", stand_in, raising=False)
    monkeypatch.setitem(sys.modules, "google.colab.files", stand_in)
    assert workspace.ask_for_photos() == ""
    folder = Path(workspace.ask_for_photos())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"grandma.jpg": b"photo", "b.png": b"other"}
    monkeypatch.delitem(sys.modules, "google.colab")
    assert workspace.ask_for_photos() == ""


def test_a_downloaded_archive_cannot_write_outside_its_folder(tmp_path, monkeypatch):
    """The archive is unpacked by kagglehub, with Python's tarfile."""
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, ".."
    with tarfile.open(tmp_path / "archive", "w") as archive:
        for member in (link, *map(tarfile.TarInfo, ("../escaped.txt", "link/escaped.txt", "data/good.txt"))):
            archive.addfile(member, io.BytesIO())

    def download(handle):
        with tarfile.open(tmp_path / "archive") as archive:
            archive.extractall(tmp_path / "below" / "out")

    monkeypatch.setattr("kagglehub.dataset_download", download)
    monkeypatch.setattr("tarfile.TarFile.extraction_filter", None, raising=False)
    with pytest.raises(RuntimeError, match="outside"):
        dataset.download_kaggle()
    assert not [*tmp_path.rglob("escaped.txt")]
    monkeypatch.setattr("kagglehub.dataset_download", lambda handle: str(tmp_path))  # half a download
    with pytest.raises(RuntimeError, match=f"{tmp_path} holds no data/train_color.*DISABLE_COLAB_CACHE=1"):
        dataset.download_kaggle()


def test_the_readmes_are_short_and_their_links_and_windows_lines_lead_somewhere():
    readme = (ROOT.parent / "README.md").read_text(encoding="utf-8")
    lines = re.search(r"Windows \(PowerShell\):\n\n((?: {4}.+\n)+)", readme)[1]
    assert importlib.util.find_spec(re.search(r"-m (helpers\S+)", lines)[1]) and len(readme.splitlines()) <= 90
    assert re.search(r'\$env:COLORIZE_PROFILE = "(\w+)"', lines)[1] in PROFILES
    for page in (ROOT.parent / "README.md", ROOT / "README.md", ROOT / "models/box/README.md"):
        links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        assert not [link for link in links if not (page.parent / link).exists()]


def test_nothing_is_for_unix_alone():
    """A function of Unix is allowed where `hasattr` asks for it; so is /content, Colab's folder."""
    for path in ROOT.rglob("*.py"):
        used = re.findall(UNIX_ONLY, text := path.read_text(encoding="utf-8"))
        assert not [each for each in used if not re.search(rf'(has|get)attr\(\w+, "{each.split(".")[-1]}', text)], path


def test_the_profile_is_chosen_without_starting_cuda(monkeypatch):
    """Processes that are forked later could not use CUDA; NVML only asks the driver."""
    asked = []
    monkeypatch.delenv("COLORIZE_PROFILE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: asked.append(os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"]))
    assert Config.from_profile().profile == "laptop" and asked == ["1"]
