"""Where results go, on Colab or elsewhere; which precision the machine has; seeds, threads, checks of exercises."""

import random
import sys
import threading
import time
import types

import numpy as np
import pytest
import torch

from helpers import workspace


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """Google Colab without a named workspace; its Drive, not mounted yet, would be tmp_path/drive/MyDrive."""
    monkeypatch.delenv("COLORIZE_WORKSPACE")
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(workspace, "DRIVE", tmp_path / "drive" / "MyDrive")
    monkeypatch.setattr(workspace, "PROJECT", tmp_path / "project")
    return tmp_path


def test_the_named_workspace_is_created_and_used(tmp_path, monkeypatch):
    monkeypatch.setenv("COLORIZE_WORKSPACE", str(tmp_path / "here" / "and there"))
    assert workspace.root() == (tmp_path / "here" / "and there").resolve() and workspace.root().is_dir()
    for path in (workspace.folder("runs"), workspace.local("set")):
        assert path.is_dir() and path.is_relative_to(workspace.root())


def test_outside_colab_results_go_to_the_project(colab, monkeypatch):
    (colab / "drive" / "MyDrive").mkdir(parents=True)  # a folder of that name is no Drive
    monkeypatch.delitem(sys.modules, "google.colab")
    assert not workspace.on_colab() and workspace.root() == (colab / "project" / "artifacts").resolve()


def test_on_colab_a_mounted_drive_is_used_unless_a_workspace_is_named(colab, monkeypatch):
    assert workspace.root() == (colab / "project" / "artifacts").resolve()
    (colab / "drive" / "MyDrive").mkdir(parents=True)
    assert workspace.root() == (colab / "drive" / "MyDrive" / "colorization").resolve()
    monkeypatch.setenv("COLORIZE_WORKSPACE", str(colab / "mine"))
    assert workspace.root() == (colab / "mine").resolve()


def test_a_drive_that_is_not_mounted_is_named(colab, monkeypatch):
    monkeypatch.setenv("COLORIZE_WORKSPACE", str(colab / "drive" / "mine"))
    with pytest.raises(OSError, match="drive.mount"):
        workspace.root()


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_that_only_emulates_bf16_runs_in_fp16(monkeypatch, native, precision):
    """PyTorch counts a T4's emulation as support, unless asked not to."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert workspace.native_precision() == precision


def test_a_cpu_without_bf16_runs_in_fp32(monkeypatch):
    for name in ("torch.cuda.is_available", "torch.backends.mps.is_available"):
        monkeypatch.setattr(name, lambda: False)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False, raising=False)
    assert workspace.native_precision() == "no"


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


def test_the_source_that_a_notebook_shows_is_the_real_one():
    shown = workspace.source(workspace.on_colab, workspace.root).data
    assert shown.index("def on_colab") < shown.index("def root") and '"google.colab" in sys.modules' in shown


@pytest.mark.parametrize(
    ("answer", "says"),
    [(2.00001, "right"), (torch.tensor(2), "right"), (None, "still to do"), (2.5, "0.5"), (float("nan"), "not yet")]
    + [(torch.ones(1, 2), "(1, 2)")],
)
def test_an_exercise_is_checked(answer, says):
    result = workspace.check(answer, 2.0)
    assert says in result and (says == "right") == (result == "right")
    assert workspace.check(torch.ones(3, 2, requires_grad=True), np.ones((3, 2))) == "right"
