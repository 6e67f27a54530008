"""The series' own way of training, set up for the benches: the report's recipe, nothing to download."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from helpers import workspace
from helpers.config import Config
from helpers.data.batches import augmentations
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.training import losses
from helpers.training.trainer import Trainer

UNMEASURED = 2  # steps at the start, in which memory is allocated and kernels are chosen


def settings(**changes: Any) -> Config:
    """Return the report's recipe, with networks that need no download."""
    return Config(profile="paper", **{"encoder_weights": None, "lpips_weights": None} | changes)


def new_trainer(cfg: Config, photos: Any, adversarial: bool, with_lpips: bool = True, epochs: int = 1) -> Trainer:
    """Return the series' trainer for a phase, with new networks."""
    accelerator = workspace.make_accelerator(cfg.precision)
    perceptual = losses.Perceptual(None).to(accelerator.device)
    terms = losses.generator_terms(cfg, perceptual) if adversarial else [losses.color_term(cfg)]
    terms = [term for term in terms if with_lpips or term.name != perceptual.name]
    parts = Generator(**cfg.generator()), terms, photos, augmentations(cfg), perceptual
    lr = cfg.adversarial_lr if adversarial else cfg.warmup_lr
    return Trainer(cfg, accelerator, *parts, Discriminator() if adversarial else None, epochs=epochs, lr=lr)


def wait() -> None:
    """Let a GPU finish what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def endless(batches: Iterable) -> Iterator[tuple]:
    """Yield the batches of one epoch after another, each as the arguments of a step."""
    while True:
        yield from ((batch,) for batch in batches)


def timed(step: Callable, batches: Iterable[tuple], batch_size: int) -> float:
    """Return the photos per second of `step(*batch)` over batches, of which the first are not measured."""
    for i, batch in enumerate(batches):
        step(*batch)
        if i == UNMEASURED - 1:
            wait()
            started = time.perf_counter()
    wait()
    return batch_size * (i + 1 - UNMEASURED) / (time.perf_counter() - started)
