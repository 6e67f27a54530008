"""Colab, Kaggle, Windows: what is missing around the notebooks is named, with what to do; archives cannot do harm."""

import ast
import contextlib
import importlib.util
import io
import os
import re
import runpy
import subprocess
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import kagglehub.http_resolver
import pytest
import torch

import helpers
from helpers import workspace
from helpers.config import PROFILES, Config
from helpers.data import dataset
from helpers.runs import warmup_of

ROOT = Path(helpers.__file__).parent
UNIX_ONLY = {"fork", "getuid", "geteuid", "getgid", "sched_getaffinity", "mkfifo", "killpg", "chown"}
UNIX_ONLY |= {"SIGKILL", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2", "alarm", "setitimer", "pread", "statvfs"}
UNIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog", "readline"}


@pytest.fixture
def colab(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))


@pytest.mark.parametrize("name", ["kornia", "lpips", "accelerate", "safetensors"])
def test_a_missing_package_is_named_with_what_to_do(monkeypatch, name):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None if wanted == name else find_spec(wanted))
    with pytest.raises(ImportError, match=f"{name} is not installed.*setup cell.*pip install -r requirements.txt"):
        runpy.run_path(helpers.__file__)


def test_drive_that_is_not_mounted_is_named(colab, monkeypatch):
    monkeypatch.setenv("COLORIZE_WORKSPACE", "/content/drive/MyDrive/mine")
    with pytest.raises(OSError, match="not mounted: run drive.mount"):
        workspace.root()


def test_a_mounted_drive_holds_the_results(colab, monkeypatch, tmp_path):
    monkeypatch.delenv("COLORIZE_WORKSPACE")
    monkeypatch.setattr(workspace, "DRIVE", tmp_path / "drive/MyDrive")
    workspace.DRIVE.mkdir(parents=True)
    assert workspace.folder("runs") == tmp_path / "drive/MyDrive/colorization/runs"


def test_on_colab_without_drive_the_student_is_warned(colab, cfg, accelerator, capsys):
    workspace.describe(accelerator, cfg)
    assert "Drive" in capsys.readouterr().out


def test_on_colab_a_missing_warmup_is_named_with_drive(colab, cfg):
    with pytest.raises(FileNotFoundError, match="03_warmup_training.*a machine of its own: mount Drive"):
        warmup_of(cfg)


@pytest.mark.parametrize("chosen", [{}, {"grandma.jpg": b"photo", "a/b.png": b"other"}])
def test_on_colab_photos_are_asked_for(colab, monkeypatch, chosen):
    stand_in = types.ModuleType("google.colab.files")
    stand_in.upload = lambda: chosen
    monkeypatch.setattr(sys.modules["google.colab"], "files", stand_in, raising=False)
    folder = workspace.ask_for_photos()
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir() if chosen} == {
        name.split("/")[-1]: content for name, content in chosen.items()
    }
    assert bool(folder) == bool(chosen)


def test_elsewhere_nothing_is_asked_for():
    assert workspace.ask_for_photos() == ""


def test_the_paper_profile_without_a_gpu_is_warned_of(cfg, accelerator, capsys):
    workspace.describe(accelerator, cfg.replace(profile="paper"))
    assert "no GPU" in (printed := capsys.readouterr().out) and "COLORIZE_PROFILE=laptop" in printed


def test_half_a_download_is_named_with_the_way_around_colabs_read_only_mount(monkeypatch, tmp_path):
    monkeypatch.setattr("kagglehub.dataset_download", lambda handle: str(tmp_path))
    with pytest.raises(RuntimeError, match=f"{tmp_path} holds no data/train_color.*DISABLE_COLAB_CACHE=1"):
        dataset.download_kaggle()


def test_photos_on_a_read_only_mount_are_prepared(cfg, sample_photos, tmp_path):
    """As kagglehub hands them over on Colab and on Kaggle, below /kaggle/input."""
    (mount := tmp_path / "input").mkdir()
    commands = [["mount", "--bind", sample_photos.folder, mount], ["mount", "-o", "remount,bind,ro", mount]]
    if any(subprocess.run(command, capture_output=True).returncode for command in commands):
        pytest.skip("mounting needs root")
    try:
        with pytest.raises(OSError, match="Read-only"):
            (mount / "x").touch()
        changes = {"data_source": "folder", "photos_folder": str(mount), "size": 32}
        assert len(dataset.prepare(cfg.replace(**changes)).names("train")) >= 8
    finally:
        subprocess.run(["umount", mount], check=True)


def escaping_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("../escaped.txt", "/tmp/../../../escaped.txt", "data/good.txt"):
            archive.writestr(name, "x")


def escaping_tar(path):
    with tarfile.open(path, "w") as archive:
        for name in ("../escaped.txt", "data/good.txt"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())


def linking_tar(path):
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("data")
        link.type, link.linkname = tarfile.SYMTYPE, ".."
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("data/escaped.txt"), io.BytesIO())


@pytest.mark.parametrize("make", [escaping_zip, escaping_tar, linking_tar])
def test_a_downloaded_archive_cannot_write_outside_its_folder(tmp_path, monkeypatch, make):
    """The archive is unpacked by kagglehub: this is its real code."""
    out = tmp_path / "below" / "out"
    make(tmp_path / "archive")

    def download(handle):
        kagglehub.http_resolver._extract_archive(str(tmp_path / "archive"), str(out))
        return out

    monkeypatch.setattr("kagglehub.dataset_download", download)
    monkeypatch.setattr("tarfile.TarFile.extraction_filter", None, raising=False)
    with contextlib.suppress(RuntimeError):  # refused as a whole is as good
        dataset.download_kaggle()
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and out not in path.parents]
    assert outside == [tmp_path / "archive"] and not Path("/escaped.txt").exists()


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_for_unix_alone(path):
    """A function of Unix is allowed where `hasattr` asks for it; so is /content, Colab's folder."""
    text, tree = path.read_text(), ast.parse(path.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in UNIX_ONLY}
    used -= {name for name in used if re.search(rf'(has|get)attr\(\w+, "{name}"', text)}
    constants = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    places = [value for value in constants if re.match(r"/(tmp|proc|dev|etc|usr|home)\b", value)]
    assert not imported & UNIX_MODULES and not used and not places


def test_the_cores_are_counted_where_processes_have_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert workspace.cores() == os.cpu_count()


def test_the_profile_is_chosen_without_starting_cuda(monkeypatch):
    """Processes that are forked later could not use CUDA; NVML only asks the driver."""
    asked = []
    monkeypatch.delenv("COLORIZE_PROFILE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: asked.append(os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"]))
    assert Config.from_profile().profile == "laptop" and asked == ["1"]


def test_the_readmes_windows_lines_name_what_is_there():
    readme = (ROOT.parent / "README.md").read_text()
    lines = re.search(r"Windows \(PowerShell\):\n\n((?: {4}.+\n)+)", readme)[1].split("\n    ")
    assert lines[0].strip() == "py -m venv .venv" and len(lines) == 5
    (program, install), (_, module), (jupyter, _) = (line.split(maxsplit=1) for line in (*lines[1:3], lines[4]))
    assert (program, jupyter) == (r".venv\Scripts\python", r".venv\Scripts\jupyter")
    assert install == "-m pip install -r requirements.txt jupyterlab" and (ROOT.parent / "requirements.txt").exists()
    assert importlib.util.find_spec(module.removeprefix("-m ").strip())
    assert re.fullmatch(r'\$env:COLORIZE_PROFILE = "(\w+)"', lines[3])[1] in PROFILES


@pytest.mark.parametrize("name", ["README.md", "helpers/README.md", "helpers/models/box/README.md"])
def test_the_readmes_links_lead_somewhere(name):
    page = ROOT.parent / name
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert links or name == "helpers/README.md"
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_readme_takes_sixty_seconds():
    assert len((ROOT.parent / "README.md").read_text().splitlines()) <= 90
