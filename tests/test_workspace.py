"""Where results go, on Colab or elsewhere; which precision the machine has; seeds, threads, checks of exercises."""

import random
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import workspace
from helpers.runs import warmup_of


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """Google Colab without a named workspace; its Drive, not mounted yet, would be tmp_path/drive/MyDrive."""
    monkeypatch.delenv("COLORIZE_WORKSPACE")
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(workspace, "DRIVE", tmp_path / "drive" / "MyDrive")
    monkeypatch.setattr(workspace, "PROJECT", tmp_path / "project")
    return tmp_path


NO_DRIVE = OSError
PLACES = {  # on Colab, Drive is mounted, the workspace's name: where results go
    (True, False, ""): "project/artifacts",
    (True, True, ""): "drive/MyDrive/colorization",
    (True, True, "here/and there"): "here/and there",
    (True, False, "drive/mine"): NO_DRIVE,
    (False, True, ""): "project/artifacts",  # a folder of that name is no Drive
}


@pytest.mark.parametrize(("on_colab", "mounted", "named"), PLACES)
def test_results_go_to_the_named_workspace_a_mounted_drive_or_the_project(colab, monkeypatch, on_colab, mounted, named):
    wanted = PLACES[on_colab, mounted, named]
    (colab / "drive" / "MyDrive" if mounted else colab).mkdir(parents=True, exist_ok=True)
    if not on_colab:
        monkeypatch.delitem(sys.modules, "google.colab")
    monkeypatch.setenv("COLORIZE_WORKSPACE", str(colab / named) if named else "")
    if wanted is NO_DRIVE:
        with pytest.raises(NO_DRIVE, match="drive.mount"):
            workspace.root()
        return
    assert workspace.root() == (colab / wanted).resolve() == workspace.folder("runs").parent
    assert workspace.folder("runs").is_dir() and (not named or workspace.local("set").is_relative_to(workspace.root()))


def test_what_a_machine_lacks_is_said_with_what_to_do(colab, cfg, accelerator, capsys):
    workspace.describe(accelerator, cfg.replace(profile="paper"))
    printed = capsys.readouterr().out
    words = ("mount Drive", "no GPU", "COLORIZE_PROFILE=laptop", "fp32", f"seed {cfg.seed}", str(workspace.root()))
    assert all(word in printed for word in words)
    with pytest.raises(FileNotFoundError, match="03_warmup_training.*mount Drive"):
        warmup_of(cfg)


def test_on_colab_photos_are_asked_for_and_elsewhere_nothing(monkeypatch, colab):
    answers = [{}, {"grandma.jpg": b"photo", "a/b.png": b"other"}]
    stand_in = types.SimpleNamespace(upload=lambda: answers.pop(0))
    monkeypatch.setattr(sys.modules["google.colab"], "files", stand_in, raising=False)
    assert workspace.ask_for_photos() == ""
    folder = Path(workspace.ask_for_photos())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"grandma.jpg": b"photo", "b.png": b"other"}
    monkeypatch.delitem(sys.modules, "google.colab")
    assert workspace.ask_for_photos() == ""


HARDWARE = {(True, True, False): "bf16", (True, False, True): "fp16", (False, False, True): "bf16"}
HARDWARE |= {(False, True, False): "no"}


@pytest.mark.parametrize(("gpu", "native", "cpu"), HARDWARE)
def test_the_fastest_precision_is_what_the_hardware_has_and_not_emulates(monkeypatch, gpu, native, cpu):
    """PyTorch counts a T4's emulation of bf16 as support, unless asked not to."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: cpu, raising=False)
    assert workspace.native_precision() == HARDWARE[gpu, native, cpu]


def test_the_precision_can_be_changed_within_one_process(monkeypatch):
    monkeypatch.setattr(workspace, "native_precision", lambda: "bf16")
    made, seen = [workspace.make_accelerator(precision) for precision in ("fp32", "auto", "fp32", "bf16")], []
    assert [each.mixed_precision for each in made] == ["no", "bf16", "no", "bf16"]  # an older one keeps its own
    for each in made:
        with each.autocast():
            inside = torch.is_autocast_enabled("cpu")
        layer = torch.nn.Linear(2, 2)
        layer.forward = lambda x: seen.append(torch.is_autocast_enabled("cpu")) or x
        each.prepare(layer)(torch.ones(1, 2))
        assert seen[-1] == inside == (each.mixed_precision == "bf16")


def test_a_seed_repeats_all_random_numbers():
    def draw(seed):
        workspace.seed_everything(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw(3) == draw(3)
    assert all(a != b for a, b in zip(draw(3), draw(4), strict=True))


def test_work_in_parallel_comes_in_order_and_not_too_far_ahead(monkeypatch):
    monkeypatch.setattr(workspace, "cores", lambda: 4)
    begun, threads = [], set()

    def work(i):
        begun.append(i)
        threads.add(threading.get_ident())
        time.sleep(0.01 * (i % 3))
        return i

    results = workspace.in_parallel(work, range(100), ahead=8)
    assert [next(results) for _ in range(5)] == [*range(5)] and len(begun) <= 13 and len(threads) > 1
    assert [*results] == [*range(5, 100)]
    with pytest.raises(ZeroDivisionError):
        list(workspace.in_parallel(lambda i: 1 / i, [1, 0, 2]))


@pytest.mark.parametrize(
    ("answer", "says"),
    [(2.00001, "right"), (torch.tensor(2), "right"), (None, "still to do"), (2.5, "0.5"), (float("nan"), "not yet")]
    + [(torch.ones(1, 2), "(1, 2)")],
)
def test_an_exercise_is_checked(answer, says):
    result = workspace.check(answer, 2.0)
    assert says in result and (says == "right") == (result == "right")
    assert workspace.check(torch.ones(3, 2, requires_grad=True), np.ones((3, 2))) == "right"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_training_keeps_the_memory_of_freed_tensors():
    resource = pytest.importorskip("resource")
    workspace.make_accelerator("fp32")
    faults = []
    for _ in range(20):
        torch.ones(2**24)  # 64 MB: 16,384 pages, when they are new
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    assert faults[-1] - faults[-6] < 1_000
