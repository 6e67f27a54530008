"""A student trains an own network at an own game: it reaches files, logs, 05 and 06. More: tests/stress/edits.py."""

import pandas as pd
import pytest
from nbformat.v4 import new_code_cell
from notebook_tools import after_imports, class_of, edited, only, printed, read, run, up_to

OWN = """
from torch import nn


class Own(nn.Sequential):
    def __init__(self, width=8):
        first, last = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 2, 3, padding=1)
        super().__init__(first, nn.ReLU(), last, nn.Tanh())
"""
ADAM = "torch.optim.Adam(discriminator.parameters(), d_lr, betas=(0.5, 0.999), fused=True)"
HINGE = [
    ("bce(real, 1.0), bce(fake, 0.0)", "F.relu(1 - real).mean(), F.relu(1 + fake).mean()"),
    ("bce(judge(batch.L, ab), 1.0)", "-judge(batch.L, ab).mean()"),
    (ADAM, "torch.optim.RMSprop(discriminator.parameters(), d_lr)"),
    ("# n_critic=2,", "n_critic=2, lambda_perc=0.0, precision='fp32',"),
]
WARMUP_PICTURES = ["wu-toy", "wu-toy-photos", "wu-toy-curve"]
GAME_PICTURES = ["ad-duel", "ad-duel-figure", "ad-play", "ad-players", "ad-weights", "ad-weights-table", "ad-proof"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workspace with both phases of a student's network, and what notebook 04 printed."""
    workspace = tmp_path_factory.mktemp("workspace")
    own = ("# network = MyGenerator()", f"{OWN}\n\nnetwork = Own()  #")
    run(edited(up_to(read("03_warmup_training"), "wu-fit", WARMUP_PICTURES), own), workspace)
    game = edited(up_to(read("04_adversarial_training"), "ad-fit", GAME_PICTURES), *HINGE)
    game.cells.append(new_code_cell("print(type(trainer.optimizers[1].optimizer))"))
    return workspace, printed(run(after_imports(game, OWN), workspace))


def test_an_own_network_learns_in_another_game(trained):
    workspace, text = trained
    assert "RMSprop" in text
    assert {class_of(workspace, phase) for phase in ("warmup", "adversarial")} == {"Own"}
    steps = pd.read_csv(workspace / "runs/smoke/adversarial_steps.csv")
    assert (steps["epoch"] == 1).sum() == 1  # of three batches, two for a step
    assert steps["GAN"].min() < 0.4  # cross-entropy would begin near 0.7


def test_an_own_network_is_analyzed_and_used(trained):
    workspace, _ = trained
    both = after_imports(up_to(read("05_analysis"), "an-colorized"), OWN)
    beside = only(read("06_colorize_your_photos"), "a8b1227c", "148a9a6f", "91a909c4", "06-beside")
    beside.cells.insert(-1, new_code_cell("shown = colors = [photos.to_rgb(path) for path in paths[:1]]"))
    both.cells += beside.cells  # in one kernel, which takes its time to start
    assert "looking at 'smoke: adversarial'" in printed(run(both, workspace))
