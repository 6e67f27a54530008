"""More edits of single cells, each in a kernel of its own: `make stress`."""

from copy import deepcopy

import numpy as np
import pytest
from notebook_tools import before_training, metadata, read, refused, run, table, with_arguments

LSGAN = """
from helpers.training.losses import LossTerm
terms = [LossTerm("GAN", 1.0, lambda p: (p.fake_logits - 1).square().mean()), *terms[1:]]
d_terms = [
    LossTerm("D real", 0.5, lambda p: (p.real_logits - 1).square().mean()),
    LossTerm("D fake", 0.5, lambda p: p.fake_logits.square().mean()),
]
"""
VIVID = """
from helpers.training.losses import LossTerm
w = 0.1
terms = [*terms, LossTerm("vivid", 1.0, lambda p: -w * p.ab_pred.abs().mean())]


def darker(rgb):
    return rgb * 0.9


augment = [*augment, darker]
"""
IDENTITY = "import torch\ngenerator.bottleneck = torch.nn.Identity()"


def test_an_exchanged_part_reaches_what_follows_where_it_is_exchanged_too(tmp_path):
    run(before_training(read("03_warmup_training"), IDENTITY), tmp_path)
    refused(read("04_adversarial_training"), tmp_path, "into=network")


def test_least_squares(tmp_path):
    run(read("03_warmup_training"), tmp_path)
    run(with_arguments(before_training(read("04_adversarial_training"), LSGAN), d_terms="d_terms"), tmp_path)
    assert table(tmp_path, "adversarial_steps")["D real"].iloc[0] < 3


def test_functions_of_ones_own_are_resumed_and_a_change_of_what_they_use_is_refused(tmp_path):
    notebook = before_training(read("03_warmup_training"), VIVID)
    run(deepcopy(notebook), tmp_path)
    run(deepcopy(notebook), tmp_path)  # finished: shown
    for old, new, field in (("rgb * 0.9", "rgb * 0.8", "augment"), ("w = 0.1", "w = 0.2", "term vivid")):
        other = deepcopy(notebook)
        for cell in other.cells:
            cell.source = cell.source.replace(old, new)
        assert field in refused(other, tmp_path, "begun with other settings")


@pytest.mark.parametrize("field", ["epochs", "lr"])
def test_other_arguments_of_the_trainer_are_refused_in_a_run_that_was_begun(field, tmp_path):
    run(read("03_warmup_training"), tmp_path)
    changed = with_arguments(read("03_warmup_training"), **{field: {"epochs": "3", "lr": "3e-4"}[field]})
    assert field in refused(changed, tmp_path, "begun with other settings")


def test_training_starts_from_the_box(tmp_path):
    box = "from helpers.runs import Run\ngenerator = Run('box').load('warmup')"
    run(before_training(read("03_warmup_training"), box), tmp_path)
    assert np.isfinite(table(tmp_path, "warmup_history")["val PSNR"]).all()
    assert metadata(tmp_path, "warmup")["class"] == "Generator"
