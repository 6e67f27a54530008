"""What `paper` writes to Google Drive: a free one holds 15 GB, and its trash counts."""

import time
from types import SimpleNamespace

import torch

from helpers.config import Config
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.runs import Run
from helpers.training import checkpoint, trainer

MINUTES = {"warmup": 2, "adversarial": 15}  # on an A100, as the README estimates


def bytes_of(network):
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())


def test_paper_writes_less_than_3_gb_to_drive(make, monkeypatch):
    """Both phases, with all epochs of tiny networks; sizes are those of the report's networks and steps."""
    paper, clock, written = Config(), SimpleNamespace(now=0.0), []
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: clock.now, perf_counter=time.perf_counter))
    with torch.device("meta"):
        generator = bytes_of(Generator(**paper.generator() | {"weights": None}))
        networks = {"warmup": generator, "adversarial": generator + bytes_of(Discriminator())}

    def _write(folder, accelerator, settings, write=checkpoint.write):
        write(folder, accelerator, settings)
        moments = sum(len(optimizer.state) > 0 for optimizer in accelerator._optimizers)
        written.append(networks[folder.name.split("_")[0]] * (3 if moments else 1))  # Adam has two for each weight

    def _log(run, phase, history, steps, log=Run.log):
        log(run, phase, history, steps)
        scale = int(0.8 * paper.n_photos) // paper.batch_size / 4  # a tiny epoch has 4 steps
        written.extend(
            [run.file(phase, "_steps.csv").stat().st_size * scale, run.file(phase, "_history.csv").stat().st_size]
        )

    monkeypatch.setattr(checkpoint, "write", _write)
    monkeypatch.setattr(Run, "log", _log)
    monkeypatch.setattr(Run, "save", lambda *args: written.append(generator))
    for phase, minutes in MINUTES.items():
        epochs = getattr(paper, f"{phase}_epochs")
        trained = make(phase == "adversarial", {"checkpoint_minutes": paper.checkpoint_minutes}, epochs=epochs)
        step = trained.training_step

        def _step(*batches, step=step, seconds=60 * minutes / epochs / 4):
            clock.now += seconds
            return step(*batches)

        trained.training_step = _step
        names = ("L1", "PSNR", "SSIM", "LPIPS", "colorfulness", "truth", "CF (DDColor)", "truth's CF (DDColor)")
        trained.validate = lambda t=trained, names=names: {f"val {name}": 1 / (7 * t.epoch) for name in names}
        trained.fit()
    assert 1e9 < sum(written) < 3e9
