"""`make bench-gpu`: how well training uses a GPU, in a few minutes and without a network. Writes GPU.md.

Times steps, with the memory that they take and the places where they wait for the GPU; and trains the first epochs of
profile `paper`, on the photos of the folder PHOTOS if it is set, else on made ones. Without a GPU it only says so;
`--small` tries this file out.
"""

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import as_markdown, machine, write_photos

from helpers import workspace
from helpers.config import Config
from helpers.data.batches import Batches, augmentations
from helpers.data.photos import read_rgb
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.runs import Run
from helpers.training.__main__ import train
from helpers.training.losses import Perceptual
from helpers.training.steps import learner, make_adversarial_step, make_warmup_step

GPU, SMALL = torch.cuda.is_available(), "--small" in sys.argv
PHASES = ("warmup", "adversarial")
NETWORKS = {"encoder_weights": None, "lpips_weights": None}  # no download
NETWORKS |= {"encoder": "test_efficientnet", "res_blocks": 1} if SMALL else {}
SIZE, BATCHES, STEPS, PHOTOS = (64, (2, 3), 2, 24) if SMALL else (255, (8, 16, 32), 20, 1500)
UNMEASURED = 2  # steps at the start, in which memory is allocated and kernels are chosen


def step_of(phase: str, cfg: Config, paths: Sequence[Path]) -> tuple[Callable[..., Any], Iterator]:
    """Return the step of a phase and its batches, one epoch after another, for photos of `cfg.size`."""
    accelerator = workspace.make_accelerator(cfg.precision)
    photos = torch.from_numpy(np.stack([read_rgb(path) for path in paths])).permute(0, 3, 1, 2)
    batches = chain.from_iterable(repeat(Batches(photos, cfg.batch_size, accelerator.device, augmentations(cfg))))
    generator = learner(cfg, accelerator, Generator(**cfg.generator()).train(), cfg.warmup_lr)
    if phase == "warmup":
        return make_warmup_step(cfg, *generator), batches
    discriminator = learner(cfg, accelerator, Discriminator().train(), cfg.adversarial_lr)
    perceptual = Perceptual(None).to(accelerator.device)
    return make_adversarial_step(cfg, generator, discriminator, perceptual, accelerator.autocast), batches


def seconds(step: Callable[..., Any], batches: Iterator, steps: int) -> float:
    """Take some steps, and let a GPU finish them; return the seconds of one with making its batch, their mean."""
    started = time.perf_counter()
    for batch in islice(batches, steps):
        step(batch)
    if GPU:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / steps


def waits(step: Callable[..., Any], batches: Iterator) -> set[str]:
    """Return the places (file:line) where a step, or making its batch, waits for the GPU; empty on a CPU."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        set_mode = torch.cuda.set_sync_debug_mode if GPU else print
        set_mode("warn")
        step(next(batches))
        set_mode("default")
    return {f"{each.filename}:{each.lineno}" for each in caught if "synchroniz" in str(each.message)}


def steps_of(phase: str, folder: Path) -> dict[str, float]:
    """Return milliseconds a step by batch size for a phase; print where it waits."""
    row = {}
    for batch in reversed(BATCHES):  # the report's batch size comes last
        cfg = Config(size=SIZE, batch_size=batch, **NETWORKS)
        way = step_of(phase, cfg, write_photos(folder, 4 * batch, SIZE))
        seconds(*way, UNMEASURED)
        row[f"ms, batch {batch}"] = 1000 * seconds(*way, STEPS)
    print(f"{phase} waits at", places := waits(*way))
    return row | {"waits": len(places)} | ({"peak GB": torch.cuda.max_memory_allocated() / 1e9} if GPU else {})


def first_epochs(folder: Path) -> dict[str, dict[str, float]]:
    """Train the first epochs of `paper`; return seconds an epoch, and minutes for all of them, a row per phase."""
    photos = os.environ.get("PHOTOS") or str(folder)
    cfg = Config(size=SIZE, run="gpu", data_source="folder", photos_folder=photos, **NETWORKS)
    rows, epochs = {}, {"warmup": cfg.warmup_epochs, "adversarial": cfg.adversarial_epochs}
    for phase in PHASES:
        train(phase, cfg.replace(warmup_epochs=2, adversarial_epochs=3))
        each = Run("gpu").table(phase)["seconds"].iloc[1:].median()  # the first one is slower
        rows[phase] = {"s an epoch": each, "minutes": epochs[phase] * each / 60}
    return rows


def main() -> None:
    """Measure everything, and write the report."""
    if not GPU and not SMALL:
        sys.exit("no GPU here: nothing to measure.")
    with tempfile.TemporaryDirectory() as name:
        os.environ["COLORIZE_WORKSPACE"] = f"{name}/workspace"
        (folder := Path(name) / "photos").mkdir()
        steps = as_markdown({phase: steps_of(phase, folder) for phase in PHASES}, 1)
        write_photos(folder, PHOTOS, SIZE)
        epochs = as_markdown(first_epochs(folder), 1)
    text = f"# Training on a GPU\n\n`make bench-gpu`: {machine()}\n\n{steps}\n\n"
    text += f"Profile `paper`, its first epochs on {PHOTOS} photos\n\n{epochs}\n"
    Path(__file__).with_name("GPU.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
