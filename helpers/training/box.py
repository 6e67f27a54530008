"""Training the model in the box: `python -m helpers.training.box PHOTOS`, for hours; run again, it goes on."""

import argparse
import json
from dataclasses import asdict
from typing import Any

import kornia.augmentation as K

from helpers import workspace
from helpers.config import PROFILES, Config
from helpers.data import dataset
from helpers.data.batches import augmentations
from helpers.models.generator import Generator
from helpers.runs.run import BOX, Run
from helpers.runs.weights import save_generator
from helpers.training.hints import HintedColorization, paste, with_hints
from helpers.training.losses import color_term
from helpers.training.trainer import Trainer

COMMON = PROFILES["laptop"] | {"profile": "laptop", "data_source": "folder", "n_photos": 100_000}
COMMON |= {"val_photos": 500, "warmup_rise": 500}
COMMON |= {"encoder_weights": None, "lpips_weights": None}
COLORS = {"run": "box, colors", "warmup_epochs": 16, "ema_decay": 0.998}
SHARPNESS = {"run": "box, sharpness", "warmup_epochs": 11, "warmup_lr": 2e-4, "ema_decay": 0.999, "seed": 2}
HINTS = {"run": "box, hints", "hints_epochs": 1, "ema_decay": 0.998}


def sharpness() -> list:
    """Return a transform of rgb that blurs some photos and sharpens most, each by a strength of its own.

    Small photos that were rotated and cropped are soft: 0.4% (median) of the energy of L lies above a quarter wave a
    pixel; of large photos that were reduced, 3 to 7%. Whether it helps is not known: see the model card.
    """
    return [K.RandomSharpness((0.0, 10.0), p=0.9)]


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

    def _fit(cfg, generator, augment, **more):
        workspace.seed_everything(cfg.seed)
        Trainer(cfg, accelerator, generator, [color_term(cfg)], photos, augment, **more).fit()
        return Run(cfg.run)

    workspace.seed_everything(first.seed)
    colors = _fit(first, Generator(**first.generator()), plain)
    sharp = _fit(second, colors.load("warmup").train(), soft_and_sharp, start=colors.name)
    hinted = with_hints(sharp.load("warmup").train(), photos.load("train"))
    last = _fit(third, hinted, [*soft_and_sharp, *[paste] * 4], start=sharp.name, task=HintedColorization())
    fill(last, third)


def fill(run: Run, cfg: Config) -> None:
    """Write the generator of a run into the box, in half precision, with its configuration but not where photos lay."""
    public = cfg.replace(photos_folder="", run="in the box")
    BOX.mkdir(exist_ok=True)
    save_generator(BOX / "warmup.safetensors", run.load("hints"), public, half=True)
    (BOX / "warmup.json").write_text(json.dumps(asdict(public), indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the model in the box on a folder of photos.")
    parser.add_argument("photos", metavar="PHOTOS", help="a folder of thousands of varied color photos")
    train(parser.parse_args().photos)
