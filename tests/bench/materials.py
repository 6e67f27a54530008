"""What the measurements are made with: photos of any number and size, the paper's recipe, the series' own trainer."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import skimage
import torch

from helpers import workspace
from helpers.config import Config
from helpers.data.batches import augmentations
from helpers.data.dataset import PhotoSet
from helpers.data.sources import SAMPLES
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.training import losses
from helpers.training.trainer import Trainer


def settings(**changes):
    """The paper's recipe, with networks that need no download."""
    return Config(profile="paper", **{"encoder_weights": None, "lpips_weights": None} | changes)


def write_photos(folder, count, size, ending="png"):
    """Fill a folder with `count` different squares cut from scikit-image's photos; return their paths."""
    shipped = Path(skimage.__file__).parent / "data"
    photos = [cv2.imread(str(shipped / name)) for name in SAMPLES[:5]]
    random, paths = np.random.default_rng(0), []
    for i in range(count):
        photo = photos[i % len(photos)]
        side = int(random.integers(min(size, 250), min(photo.shape[:2])))
        top, left = (int(random.integers(0, length - side + 1)) for length in photo.shape[:2])
        square = cv2.resize(photo[top : top + side, left : left + side], (size, size))
        paths.append(Path(folder) / f"image{i:04d}.{ending}")
        cv2.imwrite(str(paths[-1]), square)
    return paths


class Photos(PhotoSet):
    """A prepared set whose photos all are training photos."""

    def __init__(self, folder, paths):
        super().__init__(folder, pd.DataFrame({"name": [path.name for path in paths]}), pd.DataFrame())

    def names(self, split):
        return self.manifest["name"].tolist()[: None if split == "train" else 16]


def fixed_trainer(cfg, photos, adversarial):
    """The series' own trainer for a phase."""
    accelerator = workspace.make_accelerator(cfg.precision)
    perceptual = losses.Perceptual(None).to(accelerator.device)
    terms = losses.generator_terms(cfg, perceptual) if adversarial else [losses.LossTerm("L1", 1.0, losses.l1_loss)]
    generator = Generator(**cfg.replace(encoder_weights=None).generator())
    discriminator = Discriminator() if adversarial else None
    parts = (generator, terms, photos, augmentations(cfg), perceptual, discriminator)
    return Trainer(cfg, accelerator, *parts)


def wait():
    """Let a GPU finish what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
