"""What is missing around the notebooks is named, with what to do; archives and weights files cannot do harm."""

import contextlib
import importlib.util
import io
import pickle
import runpy
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import kagglehub.http_resolver
import pytest
import torch
from malicious import MaliciousPickle
from safetensors.torch import save_file

import helpers
from helpers import workspace
from helpers.data import dataset
from helpers.models.generator import Generator, load_resnet
from helpers.runs import load_network
from helpers.training.losses import Perceptual


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


def test_on_colab_without_drive_the_student_is_warned(colab, cfg, accelerator, capsys):
    workspace.describe(accelerator, cfg)
    assert "mount Google Drive first" in capsys.readouterr().out


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


@pytest.mark.parametrize("error", [OSError("no network"), ValueError("403 Forbidden"), EOFError("half a download")])
def test_kaggle_refusing_or_out_of_reach_names_the_other_choices(monkeypatch, error):
    def refuse(handle):
        raise error

    monkeypatch.setattr("kagglehub.dataset_download", refuse)
    with pytest.raises(RuntimeError, match=f'{error}.*data_source="folder".*data_source="sample"'):
        dataset.download_kaggle()


def test_half_a_download_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("kagglehub.dataset_download", lambda handle: str(tmp_path))
    with pytest.raises(RuntimeError, match=f"{tmp_path} holds no data/train_color: half a download"):
        dataset.download_kaggle()


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


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_malicious_weights_leave_no_trace(offline, tmp_path, write):
    trace, folder = tmp_path / "trace", Path(torch.hub.get_dir()) / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("resnet18-f37072fd.pth", "vgg16-397923af.pth"):
        write(MaliciousPickle(trace), folder / name)
    with pytest.raises(RuntimeError, match="resnet18 cannot be downloaded or read"):
        load_resnet("resnet18", "IMAGENET1K_V1")
    with pytest.raises(RuntimeError, match="vgg16 cannot be downloaded or read"):
        Perceptual("IMAGENET1K_V1")
    write(MaliciousPickle(trace), tmp_path / "generator.safetensors")
    with pytest.raises(ValueError, match="not a generator of this series"):
        load_network(tmp_path / "generator.safetensors")
    assert not trace.exists()


def test_unknown_weights_are_named():
    with pytest.raises(RuntimeError, match="encoder_weights='IMAGENET9K': resnet18 has no such weights"):
        load_resnet("resnet18", "IMAGENET9K")


def test_weights_of_another_architecture_are_named(tmp_path):
    state = Generator("resnet18", None, res_blocks=1).state_dict()
    path = tmp_path / "generator.safetensors"
    save_file(dict(state), path, {"class": "Generator", "arguments": '{"res_blocks": 2}'})
    with pytest.raises(ValueError, match=r"bottleneck\.1\.body"):
        load_network(path)
