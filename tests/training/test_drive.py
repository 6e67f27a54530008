"""What `paper` writes to Google Drive: a free one holds 15 GB, and its trash counts."""

import time
from types import SimpleNamespace

import pandas as pd
import torch
from tiny import TinyPhotos, before_each_batch

from helpers.config import Config
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.runs import Run
from helpers.training import checkpoint, trainer

MINUTES = {"warmup": 2, "adversarial": 15}  # on an A100, as the README estimates
METRICS = ("L1", "PSNR", "SSIM", "LPIPS", "colorfulness", "truth", "CF (DDColor)", "truth's CF (DDColor)")


def test_paper_writes_less_than_3_gb_to_drive(make, monkeypatch):
    """Both phases, with all epochs of tiny networks; sizes are those of the report's networks and steps."""
    paper, clock, written = Config(), SimpleNamespace(now=0.0), []
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: clock.now, perf_counter=time.perf_counter))
    with torch.device("meta"):
        networks = Generator(**paper.generator() | {"weights": None}), Discriminator()
    sizes = [sum(value.nbytes for value in network.state_dict().values()) for network in networks]

    def _write(path, state):
        moments = any(name.endswith("optimizer") for name in state)  # Adam has two for each weight
        written.append(sum(sizes[: 1 + ("discriminator" in state)]) * (3 if moments else 1))

    def _log(run, phase, history, steps):
        scale = int(0.8 * paper.n_photos) // paper.batch_size / 4  # a tiny epoch has 4 steps
        written.append(len(history.to_csv(index=False)) + scale * len(steps.to_csv(index=False)))

    monkeypatch.setattr(checkpoint, "write", _write)
    monkeypatch.setattr(Run, "log", _log)
    monkeypatch.setattr(Run, "save", lambda *args: written.append(sizes[0]))
    monkeypatch.setattr(Run, "load", lambda *args, **how: None)
    for phase, minutes in MINUTES.items():
        epochs, found = getattr(paper, f"{phase}_epochs"), []

        def _validate(network, found=found):
            found.append(1)
            return None, pd.DataFrame({name: [1 / (7 * len(found))] for name in METRICS})

        how = {"epochs": epochs, "validate": _validate, "photos": TinyPhotos(16)}
        how |= {"patience": paper.patience, "burn_in": paper.burn_in} if phase == "adversarial" else {}
        changes = {"checkpoint_minutes": paper.checkpoint_minutes, "ema_decay": None}
        trained = make(phase == "adversarial", changes, **how)
        seconds = 60 * minutes / epochs / 4
        before_each_batch(trained, lambda seconds=seconds: setattr(clock, "now", clock.now + seconds))
        trained.fit()
    assert 1e9 < sum(written) < 3e9, sum(written)
