"""The series' own way of training, set up for the benches: the report's recipe, nothing to download."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from helpers import workspace
from helpers.config import Config
from helpers.data.batches import Batches, augmentations
from helpers.evaluation import metrics
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.training.losses import Perceptual
from helpers.training.steps import learner, make_adversarial_step, make_warmup_step
from helpers.training.trainer import Trainer

UNMEASURED = 2  # steps at the start, in which memory is allocated and kernels are chosen


def settings(**changes: Any) -> Config:
    """Return the report's recipe, with networks that need no download."""
    return Config(profile="paper", **{"encoder_weights": None, "lpips_weights": None} | changes)


def new_trainer(
    cfg: Config, photos: Any, adversarial: bool, with_lpips: bool = True, generator: nn.Module | None = None, **how: Any
) -> Trainer:
    """Return the series' trainer for a phase, with new networks or a generator; how: its other arguments."""
    cfg = cfg if with_lpips else cfg.replace(lambda_perc=0.0)
    accelerator = workspace.make_accelerator(cfg.precision)
    perceptual = Perceptual(None, cfg.compile).to(accelerator.device)
    rate = cfg.adversarial_lr if adversarial else cfg.warmup_lr
    networks = {"generator": learner(cfg, accelerator, generator or Generator(**cfg.generator()), rate)}
    if adversarial:
        networks["discriminator"] = learner(cfg, accelerator, Discriminator(), rate)
        step = make_adversarial_step(cfg, *networks.values(), perceptual, accelerator.autocast)
    else:
        step = make_warmup_step(cfg, *networks["generator"])
    augment, validation = augmentations(cfg), photos.load("validation", cfg.val_photos)
    train = Batches(photos.load("train", None), cfg.batch_size, accelerator.device, augment, seed=cfg.seed)

    def validate(network):
        colored = metrics.colorize_all(network, validation, accelerator.device)
        return colored, metrics.measure_all(colored, validation, perceptual, accelerator.device, with_ssim=False)

    phase = "adversarial" if adversarial else "warmup"
    return Trainer(phase, cfg, accelerator, photos, train, step, validate, networks, **{"epochs": 1} | how)


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
