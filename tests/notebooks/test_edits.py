"""A student changes a cell: it reaches files, logs and what follows. More such edits: tests/stress/edits.py."""

from copy import deepcopy

import cv2
import numpy as np
from nbformat.v4 import new_code_cell
from notebook_tools import after_imports, edited, metadata, printed, read, refused, run, table, up_to

OWN = """
import torch


class Own(torch.nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, width, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(width, 2, 3, padding=1)
        )

    def forward(self, L):
        return torch.tanh(self.layers(L))
"""
HINGE = [
    ("bce(real, 1.0), bce(fake, 0.0)", "F.relu(1 - real).mean(), F.relu(1 + fake).mean()"),
    ("bce(judge(batch.L, ab), 1.0)", "-judge(batch.L, ab).mean()"),
    (
        "torch.optim.Adam(discriminator.parameters(), d_lr, betas=(0.5, 0.999), fused=True)",
        "torch.optim.RMSprop(discriminator.parameters(), d_lr)",
    ),
    ("# n_critic=2,", "n_critic=2, run='hinge',"),
]


def test_a_network_of_ones_own_is_trained_analyzed_and_used(tmp_path):
    own = ("# network = MyGenerator()", f"{OWN}\n\nnetwork = Own()  #")
    run(edited(read("03_warmup_training"), own), tmp_path)
    message = refused(read("04_adversarial_training"), tmp_path, "NameError")
    assert "Own" in message and "run the cell that defines it first" in message
    for name in ("04_adversarial_training", "05_analysis", "06_colorize_your_photos"):
        run(after_imports(read(name), OWN), tmp_path)
    assert {metadata(tmp_path, phase)["class"] for phase in ("warmup", "adversarial")} == {"Own"}


def test_another_game_is_trained_and_resumes_only_while_its_step_stays_the_same(tmp_path):
    run(up_to(read("03_warmup_training"), "wu-fit"), tmp_path)
    pictures = ["ad-duel-figure", "ad-weights", "ad-weights-table", "ad-proof"]
    hinge = edited(up_to(read("04_adversarial_training"), "ad-fit", pictures), *HINGE)
    hinge.cells.append(new_code_cell("print(type(trainer.optimizers[1].optimizer))"))
    assert "RMSprop" in printed(run(deepcopy(hinge), tmp_path))
    steps = table(tmp_path, "adversarial_steps", "hinge")
    assert (steps["epoch"] == 1).sum() == 1  # of three batches, two for a step
    again = edited(deepcopy(hinge), ("    with frozen(", "    # now the generator\n    with frozen("))
    assert "is finished" in printed(run(again, tmp_path))
    refused(edited(again, ("F.relu(1 + fake)", "F.relu(2 + fake)")), tmp_path, "step: .* then, .* now")


def test_photos_that_are_all_gray_are_a_clear_error_before_training(tmp_path):
    folder = tmp_path / "gray"
    folder.mkdir()
    for i in range(12):
        photo = np.random.default_rng(i).integers(0, 256, (5, 5), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(photo, (80, 80), interpolation=cv2.INTER_CUBIC))
    refused(read("03_warmup_training"), tmp_path, "Only 0 photos of .* pass the rules", COLORIZE_PHOTOS=str(folder))
