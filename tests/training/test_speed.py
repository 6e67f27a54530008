"""What keeps training fast: no waiting for values, nothing computed twice, torch.compile, Lab in full precision."""

import traceback

import pandas as pd
import pytest
import torch
from tiny import TinyGenerator
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import color, workspace
from helpers.data.batches import augmentations
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.training import losses
from helpers.training.trainer import Trainer


class Reads(TorchDispatchMode):
    """Collect the operations that read a value, and so would make a GPU wait."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
            where = "".join(traceback.format_stack(limit=6))
            if "swa_utils" not in where:  # the EMA weights count their steps on the CPU
                self.found.append(where)
        return function(*args, **kwargs or {})


def a_trainer(cfg, photos, perceptual, **changes):
    cfg = cfg.replace(ema_decay=0.9, **changes)
    workspace.seed_everything(0)
    accelerator = workspace.make_accelerator(cfg.precision)
    terms, generator = losses.generator_terms(cfg, perceptual), Generator(weights=None, res_blocks=1)
    parts = (generator, terms, photos, augmentations(cfg), perceptual, Discriminator())
    return Trainer(cfg, accelerator, *parts)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_training_step_reads_a_value(cfg, sample_photos, perceptual, precision):
    ours = a_trainer(cfg, sample_photos, perceptual, precision=precision)
    batch = next(iter(ours.batches))
    with Reads() as reads:
        log = ours.training_step(batch)
    assert not reads.found, "\n\n".join(reads.found)
    with Reads() as reads:
        log["L1"].item()
    assert reads.found  # the probe does see one


def test_a_step_predicts_once_and_looks_at_each_photo_once(cfg, sample_photos, perceptual, monkeypatch):
    ours = a_trainer(cfg, sample_photos, perceptual)
    batch, calls = next(iter(ours.batches)), []
    ours.raw_generator.register_forward_hook(lambda *_: calls.append("generator"))
    perceptual.model.net.register_forward_hook(lambda *_: calls.append("vgg"))
    monkeypatch.setattr("helpers.training.losses.L_ab_to_rgb", lambda *a: calls.append("rgb") or color.L_ab_to_rgb(*a))
    ours.training_step(batch)
    assert sorted(calls) == ["generator", "rgb", "vgg", "vgg"]  # VGG sees the predicted photo and the true one


def test_a_compiled_generator_gives_the_same_losses(cfg, sample_photos):
    """Of the smallest kind, for compiling takes long; `make bench` compiles the real ones."""

    def steps(**changes):
        workspace.seed_everything(0)
        changed = cfg.replace(ema_decay=None, **changes)
        terms, accelerator = [losses.LossTerm("L1", 1.0, losses.l1_loss)], workspace.make_accelerator("fp32")
        ours = Trainer(changed, accelerator, TinyGenerator(), terms, sample_photos, [], None)
        table = ours.train_epoch(1)
        return table, ours.raw_generator._compiled_call_impl is not None

    (plain, no), (compiled, yes) = steps(), steps(compile=True)
    assert (no, yes) == (False, True) and len(plain) == 2
    pd.testing.assert_frame_equal(plain, compiled, rtol=1e-4)


def test_a_compiled_discriminator_gives_the_same_gradients():
    """Its padding once was compiled to a gradient of another layout: channels_last in, wrong numbers out."""
    torch.manual_seed(0)
    L, ab = torch.rand(2, 1, 40, 40), torch.rand(2, 2, 40, 40)
    discriminator = Discriminator().eval().to(memory_format=torch.channels_last)  # it does not change itself
    gradients = []
    for network in (discriminator, torch.compile(discriminator)):
        fake = ab.to(memory_format=torch.channels_last).clone().requires_grad_()
        network(L, fake).square().sum().backward()
        gradients.append(fake.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_lab_never_uses_tf32(monkeypatch):
    """On a GPU kornia's Lab is a convolution, which TF32 would round to ten bits; seen by the flag it runs under."""
    seen = []

    def watched(rgb):
        seen.append(torch.backends.cudnn.allow_tf32)
        return torch.zeros_like(rgb)

    monkeypatch.setattr(color, "rgb_to_lab", watched)
    before = torch.backends.cudnn.allow_tf32
    color.rgb_to_L_ab(torch.rand(1, 3, 4, 4))
    assert seen == [False] and torch.backends.cudnn.allow_tf32 == before
