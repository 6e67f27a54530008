"""What keeps training fast and bounded: streaming, no waiting for values, torch.compile, Lab in full precision."""

import os
import subprocess
import sys
import time
import traceback

import pandas as pd
import pytest
import torch
from notebook_tools import PROJECT
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import color, dataset, losses, trainer, workspace
from helpers.batches import Batches, augmentations
from helpers.networks import Discriminator, Generator


def test_streamed_photos_make_the_same_batches_as_photos_in_memory(sample_photos):
    def rgb(photos):
        batches = Batches(photos, 5, augment=[lambda rgb: rgb.flip(-1)], seed=3)
        return [batch.rgb for _ in range(2) for batch in batches]

    kept, streamed = (rgb(sample_photos.open("train", budget)) for budget in (1.0, 0.0))
    assert len(kept) == 6 and all(torch.equal(a, b) for a, b in zip(kept, streamed, strict=True))


def test_a_budget_decides_what_is_streamed_and_says_why(sample_photos, capsys):
    need = sample_photos.load("train").numel() / 1e9
    assert torch.is_tensor(sample_photos.open("train", need * 1.01))
    assert "kept in memory" in capsys.readouterr().out
    assert isinstance(sample_photos.open("train", need * 0.99), dataset.PhotoFiles)
    assert "streamed from disk" in capsys.readouterr().out


def test_a_lost_file_of_a_stream_is_named(sample_photos):
    files = dataset.PhotoFiles(sample_photos.folder, ["gone.png"])
    with pytest.raises(OSError, match="gone.png"):
        list(Batches(files, 1))


class Reads(TorchDispatchMode):
    """Collect the operations that read a value, and so would make a GPU wait."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
            where = "".join(traceback.format_stack(limit=6))
            if "swa_utils" not in where:  # the moving average counts its steps on the CPU
                self.found.append(where)
        return function(*args, **kwargs or {})


def a_trainer(cfg, photos, perceptual, **changes):
    cfg = cfg.replace(ema_decay=0.9, **changes)
    workspace.seed_everything(0)
    accelerator = workspace.make_accelerator(cfg.precision)
    terms, generator = losses.report_terms(cfg, perceptual), Generator(weights=None, res_blocks=1)
    parts = (generator, terms, photos, augmentations(cfg), perceptual, Discriminator())
    return trainer.Trainer(cfg, accelerator, *parts)


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


def test_the_generator_paints_once_a_step_and_the_truth_is_looked_at_once(cfg, sample_photos, perceptual, monkeypatch):
    ours = a_trainer(cfg, sample_photos, perceptual)
    batch, calls = next(iter(ours.batches)), []
    ours.raw_generator.register_forward_hook(lambda *_: calls.append("generator"))
    perceptual.model.net.register_forward_hook(lambda *_: calls.append("vgg"))
    monkeypatch.setattr("helpers.losses.L_ab_to_rgb", lambda *a: calls.append("rgb") or color.L_ab_to_rgb(*a))
    ours.training_step(batch)
    assert sorted(calls) == ["generator", "rgb", "vgg", "vgg"]  # VGG sees the painted photo and the true one


def test_a_compiled_generator_gives_the_same_losses(cfg, sample_photos):
    """Of the smallest kind, for compiling takes long; `make bench` compiles the real ones."""

    def steps(**changes):
        workspace.seed_everything(0)
        changed = cfg.replace(encoder="resnet18", ema_decay=None, **changes)
        block = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
        generator = torch.nn.Sequential(block, torch.nn.Conv2d(8, 2, 3, padding=1), torch.nn.Tanh())
        terms, accelerator = [losses.LossTerm("L1", 1.0, losses.l1_loss)], workspace.make_accelerator("fp32")
        ours = trainer.Trainer(changed, accelerator, generator, terms, sample_photos, [], None)
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
    for judge in (discriminator, torch.compile(discriminator)):
        fake = ab.to(memory_format=torch.channels_last).clone().requires_grad_()
        judge(L, fake).square().sum().backward()
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


PREPARE = """
import resource, sys
from pathlib import Path
import cv2, numpy as np
from helpers import dataset
from helpers.config import Config
folder, count = Path(sys.argv[1]), int(sys.argv[2])
random = np.random.default_rng(0)
for i in range(count):
    small = random.integers(0, 256, (6, 6, 3), np.uint8)
    cv2.imwrite(str(folder / f"{i:05d}.jpg"), cv2.resize(small, (512, 512), interpolation=cv2.INTER_CUBIC))
cfg = Config(data_source="folder", photos_folder=str(folder), n_photos=count, size=128)
print(len(dataset.prepare(cfg).manifest), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_the_memory_of_a_preparation_holds_no_photos(tmp_path):
    """Nine hundred photos more, 700 MB of them, take hardly more memory: they pass through, one after the other."""
    kilobytes = []
    for count in (100, 1000):
        (tmp_path / str(count)).mkdir()
        command = [sys.executable, "-c", PREPARE, tmp_path / str(count), str(count)]
        env = os.environ | {"COLORIZE_WORKSPACE": str(tmp_path / f"workspace{count}"), "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        chosen, peak = map(int, done.stdout.split()[-2:])
        assert chosen > 0.95 * count
        kilobytes.append(peak)
    assert kilobytes[1] - kilobytes[0] < 50_000


def test_a_second_preparation_finds_the_first(cfg):
    first = dataset.prepare(cfg)
    started = time.perf_counter()
    again = dataset.prepare(cfg)
    assert time.perf_counter() - started < 2
    pd.testing.assert_frame_equal(first.manifest, again.manifest)
