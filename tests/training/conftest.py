"""Trainers of tiny networks, as a fresh kernel would make them."""

import gc
import os

import pytest
from tiny import GAN, L1, NOISY, TinyDiscriminator, TinyGenerator, TinyPhotos, cell

from helpers import workspace
from helpers.training.trainer import Trainer

gc.freeze()  # each Trainer collects garbage; what the imports have made need not be searched


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch):
    """Do not wait until a checkpoint has reached the disk: no test turns the power off."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def make(cfg, accelerator):
    """Return a function that makes a Trainer, always from the same weights; an epoch has 4 steps.

    changes: to the configuration; options: arguments of the Trainer.
    """

    def _make(adversarial=True, changes=None, **options):
        workspace.seed_everything(0)
        values = {"terms": [GAN, L1] if adversarial else [L1], "photos": TinyPhotos()}
        values |= {"augment": [cell(NOISY, strength=0.1)["noisy"]], "epochs": 2, "lr": 1e-3}
        values |= {"generator": TinyGenerator(), "discriminator": TinyDiscriminator() if adversarial else None}
        changed = cfg.replace(**{"batch_size": 4, "ema_decay": 0.9, "run": "tiny"} | (changes or {}))
        return Trainer(changed, accelerator, **values | options)

    return _make
