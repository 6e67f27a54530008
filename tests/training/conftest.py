"""Trainers of tiny networks, as a fresh kernel would make them."""

import gc
import os
import sys

import pytest
from tiny import tiny_trainer

gc.freeze()  # each Trainer collects garbage; what the imports have made need not be searched


@pytest.fixture(autouse=True)
def kernel(monkeypatch):
    """As in a notebook, `__main__` has no file; and no test turns the power off, so files need not reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)


@pytest.fixture
def make(cfg, accelerator):
    """Return a function that makes a Trainer, always from the same weights; an epoch has 4 batches.

    changes: to the configuration; options: of `tiny_trainer`.
    """

    def _make(adversarial=True, changes=None, **options):
        changed = cfg.replace(**{"batch_size": 4, "ema_decay": 0.9, "run": "tiny"} | (changes or {}))
        return tiny_trainer(changed, accelerator, adversarial, **options)

    return _make
