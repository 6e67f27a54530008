"""Trainings small enough for tests: the smallest networks, cells as in a notebook, and a machine that disappears."""

from contextlib import suppress
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from helpers import workspace
from helpers.data.batches import Batches
from helpers.evaluation import metrics
from helpers.training.trainer import Trainer, descend, frozen

CELL = """
noisy = lambda rgb: rgb + strength * torch.rand(len(rgb), 1, 1, 1)
def l1(ab, truth):
    return (ab - truth).abs().mean()
def bce(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))
def validate(network):
    colored = metrics.colorize_all(network, validation)
    return colored, metrics.measure_all(colored, validation, with_ssim=False)
def warmup(*batches):
    for batch in batches:
        loss = weight * l1(generator(batch.L), batch.ab)
        norm = descend(loss, generator, g_optimizer, cfg.clip_norm)
    return {"L1": loss, "G gradient": norm}
def adversarial(*batches):
    'Both losses.'
    for batch in batches:
        ab = generator(batch.L)
        d_loss = (bce(discriminator(batch.L, batch.ab), 1.0) + bce(discriminator(batch.L, ab.detach()), 0.0)) / 2
        d_norm = descend(d_loss, discriminator, d_optimizer, cfg.clip_norm)
    with frozen(discriminator) as judge:
        gan, color = bce(judge(batch.L, ab), 1.0), l1(ab, batch.ab)
        loss = gan + weight * color
        norm = descend(loss, generator, g_optimizer, cfg.clip_norm)
    return {"G total": loss, "GAN": gan, "L1": color, "G gradient": norm, "D loss": d_loss, "D gradient": d_norm}
"""


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
    """A prepared set of 16 photos of random smooth colors to train on, and 4 to validate on."""

    def __init__(self, size=48):
        coarse = torch.rand(20, 3, 6, 6, generator=torch.Generator().manual_seed(0))
        smooth = F.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
        self.parts = {"train": (smooth[:16] * 255).byte(), "validation": (smooth[16:] * 255).byte()}
        splits = ["train"] * 16 + ["validation"] * 4
        self.manifest = pd.DataFrame({"name": range(20), "split": splits, "sha256": range(20)})

    def load(self, split, limit=2000):
        """Return the photos of a split."""
        return self.parts[split][:limit]


def cell(source, **names):
    """Run a cell as a notebook does; return all names that it knows then."""
    scope = {"__name__": "__main__", "torch": torch, "F": F} | names
    exec(source, scope)
    return scope


adam = partial(torch.optim.Adam, betas=(0.5, 0.999), fused=True)  # the notebooks' optimizer


def tiny_trainer(
    cfg, accelerator, adversarial=True, networks=(), rates=(1e-3, 1e-3), optimizer=adam, photos=None, augment=True,
    edits=(), names=None, validate=None, **options,
):  # fmt: skip
    """Return a Trainer as notebooks 03 and 04 make it, with the steps of CELL; an epoch has 16 photos.

    edits: texts to replace in CELL, pairs of old and new; names: values that the cell knows.
    """
    workspace.seed_everything(0)
    phase, photos, rank = "adversarial" if adversarial else "warmup", photos or TinyPhotos(), accelerator.process_index
    share = {"rank": rank, "world_size": accelerator.num_processes, "seed": cfg.seed}
    scope, named = {"cfg": cfg, "descend": descend, "frozen": frozen, "metrics": metrics}, {}
    kinds = {"generator": TinyGenerator} | ({"discriminator": TinyDiscriminator} if adversarial else {})
    for i, (name, kind) in enumerate(kinds.items()):
        network = (networks[i] if i < len(networks) else None) or kind()
        named[name] = accelerator.prepare(network, optimizer(network.parameters(), rates[i]))
        scope |= {name: named[name][0], f"{name[0]}_optimizer": named[name][1]}
    validation = photos.load("validation")[rank :: accelerator.num_processes]
    scope |= {"weight": 50.0, "strength": 0.1, "validation": validation} | (names or {})
    source = CELL
    for old, new in edits:
        assert old in source
        source = source.replace(old, new)
    scope = cell(source, **scope)
    batches = Batches(photos.load("train"), cfg.batch_size, accelerator.device, [scope["noisy"]] * augment, **share)
    workspace.seed_everything(rank)
    parts = accelerator, photos, batches, scope[phase], validate or scope["validate"], named
    return Trainer(phase, cfg, *parts, **{"epochs": 2, "keep": cfg.keep if adversarial else "last"} | options)


class CrashError(BaseException):
    """The machine has disappeared: no code catches this."""


def before_each_batch(trainer, action):
    """Call `action()` whenever the generator is about to see a batch of a training."""

    def _hook(network, inputs):
        if network.training:
            action()

    trainer.generator.register_forward_pre_hook(_hook)


def crash(trainer, batches):
    """Train until the machine disappears after some batches; return False if the training ended before."""
    left = iter(range(batches))

    def _maybe():
        if next(left, None) is None:
            raise CrashError

    before_each_batch(trainer, _maybe)
    with suppress(CrashError):
        trainer.fit()
        return False
    torch.rand(7)  # a new kernel has another random state
    return True


def outcome(trainer):
    """Return all that a training leaves: both tables, and tensors by name, with the random state."""
    networks = {"saved": load_file(trainer.run.file(trainer.phase)), "final": trainer.final_generator().state_dict()}
    networks |= {f"raw {name}": network.state_dict() for name, network in trainer.unwrapped.items()}
    tensors = {f"{name}.{key}": value for name, state in networks.items() for key, value in state.items()}
    return trainer.history.drop(columns="seconds"), trainer.steps, tensors | {"random": torch.get_rng_state()}


def assert_same(one, other):
    """Compare two outcomes bit for bit."""
    for ours, theirs in zip(one[:2], other[:2], strict=True):
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert one[2].keys() == other[2].keys() and len(one[2]) > 10
    assert not [name for name, value in one[2].items() if not torch.equal(value, other[2][name])]
