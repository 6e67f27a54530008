"""Two ways of training, the series' own and the report's: each as a step and the batches that it learns from.

The report's way is written plainly: each photo is decoded, augmented and converted to Lab by scikit-image in a
DataLoader of two workers; fp32, the default memory layout, unfused Adam, and every loss is read at every step. Networks
and losses are the series'.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.color import rgb2lab
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms

from helpers import workspace
from helpers.color import L_ab_to_rgb
from helpers.config import Config
from helpers.data.batches import Batches, augmentations
from helpers.data.photos import read_rgb
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.training.losses import Perceptual, bce
from helpers.training.steps import learner, make_adversarial_step, make_warmup_step

UNMEASURED = 2  # steps at the start, in which memory is allocated and kernels are chosen
Way = tuple[Callable[..., Any], Iterator]


def settings(**changes: Any) -> Config:
    """Return the report's recipe, with networks that need no download."""
    return Config(**{"encoder_weights": None, "lpips_weights": None} | changes)


def our_way(cfg: Config, adversarial: bool, paths: Sequence[Path]) -> Way:
    """Return the series' step of a phase and its batches, for photos of `cfg.size`."""
    accelerator = workspace.make_accelerator(cfg.precision)
    photos = torch.from_numpy(np.stack([read_rgb(path) for path in paths])).permute(0, 3, 1, 2)
    batches = Batches(photos, cfg.batch_size, accelerator.device, augmentations(cfg))
    generator = learner(cfg, accelerator, Generator(**cfg.generator()).train(), cfg.warmup_lr)
    if not adversarial:
        return make_warmup_step(cfg, *generator), endless(batches)
    discriminator = learner(cfg, accelerator, Discriminator().train(), cfg.adversarial_lr)
    perceptual = Perceptual(None).to(accelerator.device)
    return make_adversarial_step(cfg, generator, discriminator, perceptual, accelerator.autocast), endless(batches)


class PlainPhotos(list):
    """Photo files as L (1, H, W) and ab (2, H, W), both in [-1, 1]."""

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        path, transform = super().__getitem__(i)
        lab = rgb2lab(np.asarray(transform(Image.open(path).convert("RGB")))).astype(np.float32)
        L, ab = torch.from_numpy(lab).permute(2, 0, 1).split((1, 2))
        return L / 50 - 1, ab / 128


def reports_way(cfg: Config, adversarial: bool, paths: Sequence[Path]) -> Way:
    """Return the report's step of a phase and its batches, pairs of L and ab."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    networks = generator, discriminator = Generator(**cfg.generator()).to(device), Discriminator().to(device)
    perceptual = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).to(device) if adversarial else None
    adams = {each: torch.optim.Adam(each.train().parameters(), cfg.warmup_lr, (0.5, 0.999)) for each in networks}

    def _descend(loss, network):
        adams[network].zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), cfg.clip_norm)
        adams[network].step()
        return loss.item()

    def _step(batch):
        L, ab = (maps.to(device) for maps in batch)
        predicted = generator(L)
        loss = F.l1_loss(predicted, ab)
        if adversarial:
            real, fake = discriminator(L, ab), discriminator(L, predicted.detach())
            _descend((bce(real, 1.0) + bce(fake, 0.0)) / 2, discriminator)
            rgb, truth = (L_ab_to_rgb(L, colors) * 2 - 1 for colors in (predicted, ab))
            loss = cfg.lambda_l1 * loss + bce(discriminator(L, predicted), 1.0)
            loss = loss + cfg.lambda_perc * perceptual(rgb, truth).mean()
        return _descend(loss, generator)

    crop = transforms.RandomResizedCrop(cfg.size, scale=(cfg.crop, 1.0), ratio=(1.0, 1.0))
    turns = transforms.RandomHorizontalFlip(cfg.flip), transforms.RandomRotation(cfg.rotation)
    augmented = transforms.Compose([*turns, crop, transforms.ColorJitter(*[cfg.jitter] * 3)])
    photos = PlainPhotos((path, augmented) for path in paths)
    return _step, endless(DataLoader(photos, cfg.batch_size, shuffle=True, num_workers=2, drop_last=True))


def endless(batches: Iterable) -> Iterator:
    """Yield the batches of one epoch after another."""
    while True:
        yield from batches


def run(step: Callable[..., Any], batches: Iterator, steps: int) -> None:
    """Take some steps, and let a GPU finish them."""
    for batch in islice(batches, steps):
        step(batch)
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_per_step(step: Callable[..., Any], batches: Iterator, steps: int) -> float:
    """Return the seconds that a step takes with making its batch, the mean of some steps."""
    run(step, batches, UNMEASURED)
    started = time.perf_counter()
    run(step, batches, steps)
    return (time.perf_counter() - started) / steps
