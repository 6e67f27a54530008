"""`make box PHOTOS=folder`: train the model in the box, for hours; run again after an interruption, it continues."""

import argparse
import json
import math
from dataclasses import asdict
from typing import Any

import kornia.augmentation as K
import torch
from torch import Tensor

from helpers import workspace
from helpers.color import L_ab_to_rgb, rgb_to_L_ab
from helpers.config import PROFILES, Config
from helpers.data import dataset
from helpers.data.batches import augmentations
from helpers.models.generator import Generator
from helpers.runs import BOX, Run, save_network
from helpers.training.losses import color_term
from helpers.training.tasks import HintedColorization, with_hints
from helpers.training.trainer import Trainer

COMMON = PROFILES["laptop"] | {"profile": "laptop", "data_source": "folder", "n_photos": 100_000}
COMMON |= {"val_photos": 500, "warmup_rise": 500, "encoder_weights": None, "lpips_weights": None}
COLORS = {"run": "box, colors", "warmup_epochs": 16, "ema_decay": 0.998}
SHARPNESS = {"run": "box, sharpness", "warmup_epochs": 11, "warmup_lr": 2e-4, "ema_decay": 0.999, "seed": 2}
HINTS = {"run": "box, hints", "hints_epochs": 1, "ema_decay": 0.998}


def sharpness() -> list:
    """Return a transform of rgb that blurs some photos and sharpens most, each with a strength of its own."""
    return [K.RandomSharpness((0.0, 10.0), p=0.9)]


def paste(rgb: Tensor, share: float = 0.75, largest: float = 0.35) -> Tensor:
    """Paste an ellipse of another photo, in another color, into some of a batch (N, 3, H, W) in [0, 1].

    As in notebook 07. share: of the photos; largest: half axis, in shares of the side.
    """
    (count, _, height, width), draw = rgb.shape, lambda low, high: low + (high - low) * torch.rand(len(rgb), 1, 1)
    rows, columns = torch.arange(height).view(1, -1, 1) / height, torch.arange(width).view(1, 1, -1) / width
    y, x = ((axis - draw(0, 1)) / draw(0.1, largest) for axis in (rows, columns))
    inside = (y.square() + x.square() < 1) & (torch.rand(count, 1, 1) < share)
    L, ab = rgb_to_L_ab(rgb.roll(1, 0))
    inside, turn, plain = (maps[:, None].to(rgb.device) for maps in (inside, draw(-math.pi, math.pi), draw(0, 1)))
    mean = (ab * inside).sum((2, 3), keepdim=True) / inside.sum((2, 3), keepdim=True).clamp(min=1)
    a, b = ab.lerp(mean, plain).split(1, 1)
    ab = torch.cat([turn.cos() * a - turn.sin() * b, turn.sin() * a + turn.cos() * b], 1)
    return torch.where(inside, L_ab_to_rgb(L, ab), rgb)


def train(photos_folder: str, **changes: Any) -> None:
    """Train on a folder of photos in three runs (colors, then with `sharpness`, then with hints), and fill the box.

    changes: other values of the configuration, for all three. Raises as `dataset.prepare` and `Trainer.fit` do.
    """
    first, second, third = (
        Config(**COMMON | {"photos_folder": photos_folder} | step | changes) for step in (COLORS, SHARPNESS, HINTS)
    )
    accelerator, photos = workspace.make_accelerator(first.precision), dataset.prepare(first)
    plain = augmentations(first)
    soft_and_sharp = [*plain, *sharpness()]

    def _fit(cfg, generator, augment, epochs, lr, **more):
        workspace.seed_everything(cfg.seed)
        terms = [color_term(cfg)]
        Trainer(
            cfg, accelerator, generator, terms, photos, augment, epochs=epochs, lr=lr, rise=cfg.warmup_rise, **more
        ).fit()
        return Run(cfg.run)

    workspace.seed_everything(first.seed)
    colors = _fit(first, Generator(**first.generator()), plain, first.warmup_epochs, first.warmup_lr)
    again, rates = colors.load("warmup").train(), (second.warmup_epochs, second.warmup_lr)
    sharp = _fit(second, again, soft_and_sharp, *rates, start=colors.name)
    hinted, rates = with_hints(sharp.load("warmup").train(), photos.load("train")), (third.hints_epochs, third.hints_lr)
    augment = [*soft_and_sharp, *[paste] * 4]
    last = _fit(third, hinted, augment, *rates, start=sharp.name, task=HintedColorization())
    fill(last, third)


def fill(run: Run, cfg: Config) -> None:
    """Write the generator of a run into the box, in half precision, with its configuration but no folder of photos."""
    public = cfg.replace(photos_folder="", run="in the box")
    BOX.mkdir(exist_ok=True)
    save_network(BOX / "warmup.safetensors", run.load("hints"), public, half=True)
    (BOX / "warmup.json").write_text(json.dumps(asdict(public), indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the model in the box on a folder of photos.")
    parser.add_argument("photos", metavar="PHOTOS", help="a folder of thousands of varied color photos")
    train(parser.parse_args().photos)
