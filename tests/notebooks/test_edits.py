"""A student changes a cell: it reaches files, logs and what follows. More such edits: tests/stress/edits.py."""

from nbformat.v4 import new_code_cell
from notebook_tools import (
    after_imports,
    before_training,
    metadata,
    printed,
    read,
    refused,
    run,
    table,
    with_arguments,
)

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
HINGE = """
import torch
cfg = cfg.replace(batch_size=4)
from helpers.training.losses import LossTerm
terms = [LossTerm("GAN", 1.0, lambda p: -p.fake_logits.mean()), *terms[1:]]
d_terms = [
    LossTerm("D real", 0.5, lambda p: torch.relu(1 - p.real_logits).mean()),
    LossTerm("D fake", 0.5, lambda p: torch.relu(1 + p.fake_logits).mean()),
]
"""


def test_a_network_losses_and_an_optimizer_of_ones_own_are_trained_analyzed_and_used(tmp_path):
    run(before_training(read("03_warmup_training"), f"{OWN}\n\ngenerator = Own()"), tmp_path)
    message = refused(read("04_adversarial_training"), tmp_path, "NameError")
    assert "Own" in message and "run the cell that defines it first" in message
    notebook = before_training(after_imports(read("04_adversarial_training"), OWN), HINGE)
    optimizer = "lambda parameters, lr: torch.optim.RMSprop(parameters, lr)"
    with_arguments(notebook, d_terms="d_terms", optimizer=optimizer, n_critic="2", d_lr="4e-4")
    notebook.cells.append(new_code_cell("print(type(trainer.d_optimizer.optimizer))"))
    assert "RMSprop" in printed(run(notebook, tmp_path))
    steps = table(tmp_path, "adversarial_steps")
    assert (steps["epoch"] == 1).sum() == 1  # of two batches, both for one step
    assert steps[["D real", "D fake"]].ge(0).all(axis=None)  # hinge losses, after a first step of RMSprop
    assert {metadata(tmp_path, phase)["class"] for phase in ("warmup", "adversarial")} == {"Own"}
    for name in ("05_analysis", "06_colorize_your_photos"):
        run(after_imports(read(name), OWN), tmp_path)
