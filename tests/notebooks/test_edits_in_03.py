"""A student changes a cell of 01 or 03: it reaches files, logs and the notebooks that follow, or is refused."""

from copy import deepcopy

import cv2
import nbformat
import numpy as np
import pytest
from nbclient.exceptions import CellExecutionError
from notebook_tools import MADE, before, edit, metadata, printed, read, refused, run, table, uncomment, with_class

OWN = """
class Own(torch.nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, width, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(width, 2, 3, padding=1)
        )

    def forward(self, L):
        return torch.tanh(self.layers(L))
"""


def test_a_change_in_01_stays_in_01(tmp_path):
    run(uncomment(read("01_dataset"), "size=255,", "size=48,"), tmp_path)
    assert not (tmp_path / "config.json").exists()
    assert "64 px" in printed(run(before(read("03_warmup_training"), "Trainer("), tmp_path))


def test_rotation_batch_epochs_and_encoder_in_notebook_03(tmp_path):
    notebook = uncomment(uncomment(read("03_warmup_training"), "rotation=0,"), 'encoder="resnet34",')
    uncomment(uncomment(notebook, "batch_size=8,", "batch_size=4,"), "warmup_epochs=20,", "warmup_epochs=3,")
    output = run(notebook, tmp_path)
    assert "degrees=0" in str([cell.outputs for cell in output.cells if cell.cell_type == "code"])
    assert len(table(tmp_path, "warmup_history")) == 3 and len(table(tmp_path, "warmup_steps")) == 3 * 16 // 4
    assert metadata(tmp_path, "warmup")["arguments"]["encoder"] == "resnet34"


def test_an_exchanged_part_is_refused_before_it_trains(tmp_path):
    notebook = edit(read("03_warmup_training"), MADE, MADE + "\ngenerator.bottleneck = torch.nn.Identity()")
    told = refused(notebook, tmp_path, "TypeError")
    assert "class MyGenerator(Generator)" in told and "bottleneck" in told
    assert not list(tmp_path.glob("runs/*/*"))


def test_a_network_and_a_size_of_ones_own_hold_in_all_that_follow_where_the_class_is_known(tmp_path):
    notebook = edit(with_class("03_warmup_training", OWN), MADE, "generator = Own()")
    run(uncomment(notebook, "size=128,", "size=48,"), tmp_path)
    told = refused(read("04_adversarial_training"), tmp_path, "NameError")
    assert "a network of the class Own, which is not known here: run its cell first" in told
    report = printed(run(with_class("04_adversarial_training", OWN), tmp_path))
    assert "Own, warmed up by" in report and "from it    size=48 (here 64)" in report
    for phase in ("warmup", "adversarial"):
        assert metadata(tmp_path, phase)["class"] == "Own" and metadata(tmp_path, phase)["config"]["size"] == 48
    report = printed(run(with_class("05_analysis", OWN), tmp_path))
    assert "4 test photos at 48 px" in report and "smoke: adversarial" in report
    own_photos = with_class("06_colorize_your_photos", OWN)
    cells = [cell for cell in own_photos.cells if cell.cell_type == "code"][5:]  # any can be run again after the last
    again = [cell for cell in cells if "launch" not in cell.source and "colorize_folder" not in cell.source]
    own_photos.cells += [nbformat.v4.new_code_cell(cell.source) for cell in reversed(again)]
    assert "smoke/adversarial.safetensors" in printed(run(own_photos, tmp_path))


def test_what_functions_of_ones_own_do_is_the_same_in_the_next_kernel_and_a_change_is_noticed(tmp_path):
    line = "    losses.LossTerm(cfg.color_loss, 1.0, losses.COLOR_LOSSES[cfg.color_loss]),\n"
    vivid = line + '    losses.LossTerm("vivid", 1.0, lambda p: -w * p.ab_pred.abs().mean()),\n'
    notebook = edit(edit(read("03_warmup_training"), line, vivid), "terms = [", "w = 0.1\nterms = [")
    own = "def darker(rgb):\n    return rgb * 0.9\n\n\naugment = [*batches.augmentations(cfg), darker]"
    edit(notebook, "augment = batches.augmentations(cfg)", own)
    run(deepcopy(notebook), tmp_path)
    assert "has finished its warmup: shown as it was" in printed(run(deepcopy(notebook), tmp_path))
    for old, new, field in (("rgb * 0.9", "rgb * 0.8", "augmentation"), ("w = 0.1", "w = 0.2", "function of vivid")):
        assert field in refused(edit(deepcopy(notebook), old, new), tmp_path, "begun with other settings")


def test_photos_that_are_all_gray_are_a_clear_error_before_training(tmp_path):
    folder = tmp_path / "gray"
    folder.mkdir()
    for i in range(12):
        photo = np.random.default_rng(i).integers(0, 256, (5, 5), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(photo, (80, 80), interpolation=cv2.INTER_CUBIC))
    with pytest.raises(CellExecutionError, match="Only 0 photos of .* pass the rules .*near-gray.*12"):
        run(read("03_warmup_training"), tmp_path, COLORIZE_PHOTOS=str(folder))
