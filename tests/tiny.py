"""Trainings small enough for tests: the smallest networks, cells as in a notebook, and a machine that disappears."""

import itertools
import linecache

import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from helpers.training.losses import LossTerm, gan_loss, l1_loss

L1, GAN = LossTerm("L1", 50.0, l1_loss), LossTerm("GAN", 1.0, gan_loss)
NOISY = "def noisy(rgb):\n    return rgb + strength * torch.rand(len(rgb), 1, 1, 1)"
CELLS = itertools.count()


class TinyGenerator(nn.Sequential):
    """A generator with batch normalization, as the real one has."""

    def __init__(self):
        super().__init__(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3, padding=1), nn.Tanh())


class TinyDiscriminator(nn.Module):
    """A discriminator with batch and spectral normalization, as the real one has."""

    def __init__(self):
        super().__init__()
        first = spectral_norm(nn.Conv2d(3, 8, 4, stride=4))
        self.layers = nn.Sequential(first, nn.BatchNorm2d(8), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 4))

    def forward(self, *maps):
        """Return the patch scores."""
        return self.layers(torch.cat(maps, dim=1))


class TinyPhotos:
    """A prepared set of 16 photos to train on and 4 to validate on: random colors, smooth or with edges."""

    def __init__(self, size=48, mode="bicubic"):
        coarse = torch.rand(20, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        smooth = F.interpolate(coarse, (size, size), mode=mode).clamp(0, 1)
        self.parts = {"train": (smooth[:16] * 255).byte(), "validation": (smooth[16:] * 255).byte()}
        splits = ["train"] * 16 + ["validation"] * 4
        self.manifest = pd.DataFrame({"name": range(20), "split": splits, "sha256": range(20)})

    def load(self, split, limit=2000):
        """Return the photos of a split."""
        return self.parts[split][:limit]


def cell(source, **names):
    """Run a notebook's cell, whose source can be looked up as in Jupyter; return all names that it knows then."""
    name = f"<cell {next(CELLS)}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    scope = {"__name__": "__main__", "torch": torch} | names
    exec(compile(source, name, "exec"), scope)
    return scope


class CrashError(BaseException):
    """The machine has disappeared: no code catches this."""


def crash(trainer, steps):
    """Train until the machine disappears after some steps; return False if the training ended before."""
    step, left = trainer.training_step, iter(range(steps))

    def _training_step(*batches):
        if next(left, None) is None:
            raise CrashError
        return step(*batches)

    trainer.training_step = _training_step
    try:
        trainer.fit()
    except CrashError:
        torch.rand(7)  # a new kernel has another random state
        return True
    return False


def outcome(trainer):
    """Return all that a training leaves: both tables, and tensors by name, with the random state."""
    networks = {"saved": load_file(trainer.run.file(trainer.phase)), "final": trainer.final_generator().state_dict()}
    for name in ("raw_generator", "raw_discriminator"):
        networks[name] = getattr(trainer, name).state_dict() if getattr(trainer, name) else {}
    networks |= trainer.g_optimizer.state_dict()["state"]
    tensors = {f"{name}.{key}": value for name, state in networks.items() for key, value in state.items()}
    return trainer.history.drop(columns="seconds"), trainer.steps, tensors | {"random": torch.get_rng_state()}


def assert_same(one, other):
    """Compare two outcomes bit for bit."""
    for ours, theirs in zip(one[:2], other[:2], strict=True):
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert one[2].keys() == other[2].keys() and len(one[2]) > 10
    assert not [name for name, value in one[2].items() if not torch.equal(value, other[2][name])]
