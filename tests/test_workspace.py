"""Where results go, on Colab or elsewhere; which precision the machine has; seeds."""

import random
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import workspace


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """Google Colab without a workspace of its own; its Drive would be tmp_path/drive, not mounted yet."""
    monkeypatch.delenv("COLORIZE_WORKSPACE")
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(workspace, "DRIVE", tmp_path / "drive")
    monkeypatch.setattr(workspace, "PROJECT", tmp_path / "project")
    return tmp_path


def test_the_named_workspace_is_used_and_made(tmp_path, monkeypatch):
    monkeypatch.setenv("COLORIZE_WORKSPACE", str(tmp_path / "here" / "and there"))
    assert workspace.root() == (tmp_path / "here" / "and there").resolve()
    assert workspace.root().is_dir()
    for path in (workspace.folder("runs"), workspace.local("set")):
        assert path.is_dir() and path.is_relative_to(workspace.root())


def test_outside_colab_results_go_to_artifacts_in_the_project(tmp_path, monkeypatch):
    monkeypatch.delenv("COLORIZE_WORKSPACE")
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    assert Path(__file__).resolve().parent.parent == workspace.PROJECT
    monkeypatch.setattr(workspace, "PROJECT", tmp_path)
    assert not workspace.on_colab()
    assert workspace.root() == (tmp_path / "artifacts").resolve()


def test_on_colab_a_mounted_drive_is_used(colab):
    assert workspace.on_colab()
    (colab / "drive").mkdir()
    assert workspace.root() == (colab / "drive" / "colorization").resolve()


def test_on_colab_without_drive_results_stay_in_the_project(colab):
    assert workspace.root() == (colab / "project" / "artifacts").resolve()


def test_the_named_workspace_comes_before_drive(colab, monkeypatch):
    (colab / "drive").mkdir()
    monkeypatch.setenv("COLORIZE_WORKSPACE", str(colab / "mine"))
    assert workspace.root() == (colab / "mine").resolve()


def test_outside_colab_a_folder_that_looks_like_drive_is_not_used(colab, monkeypatch):
    (colab / "drive").mkdir()
    monkeypatch.delitem(sys.modules, "google.colab")
    assert workspace.root() == (colab / "project" / "artifacts").resolve()


def test_a_workspace_that_cannot_be_made_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COLORIZE_WORKSPACE", str(tmp_path / "file" / "workspace"))
    with pytest.raises(OSError, match="Set COLORIZE_WORKSPACE"):
        workspace.root()


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_that_only_emulates_bf16_runs_in_fp16(monkeypatch, native, precision):
    """PyTorch says of a T4 that bf16 is supported, unless it is told not to count emulation."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert workspace.native_precision() == precision


def test_a_cpu_without_bf16_runs_in_fp32(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {}, raising=False)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False, raising=False)
    assert workspace.native_precision() == "no"


@pytest.mark.parametrize(("asked", "given"), [("fp32", "no"), ("bf16", "bf16")])
def test_the_accelerator_has_the_precision_that_was_asked_for(asked, given):
    assert workspace.make_accelerator(asked).mixed_precision == given


def test_the_precision_can_be_changed_within_one_process():
    assert [workspace.make_accelerator(p).mixed_precision for p in ("fp32", "bf16", "fp32")] == ["no", "bf16", "no"]


def test_auto_precision_is_what_the_hardware_has(monkeypatch):
    monkeypatch.setattr(workspace, "native_precision", lambda: "bf16")
    assert workspace.make_accelerator("auto").mixed_precision == "bf16"


def test_a_seed_repeats_all_random_numbers():
    def draw(seed):
        workspace.seed_everything(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw(3) == draw(3)
    assert all(a != b for a, b in zip(draw(3), draw(4), strict=True))


def test_machine_precision_seed_and_workspace_are_described(capsys, cfg):
    workspace.describe(workspace.make_accelerator("fp32"), cfg.replace(seed=12345))
    printed = capsys.readouterr().out
    assert "fp32" in printed and "12345" in printed and str(workspace.root()) in printed and "cpu" in printed.lower()


def test_the_source_that_a_notebook_shows_is_the_real_one():
    shown = workspace.source(workspace.on_colab, workspace.root).data
    assert shown.index("def on_colab") < shown.index("def root") and '"google.colab" in sys.modules' in shown
