"""Trains the enlarger in the box: `make box-enlarger PHOTOS=folder`; about 10 minutes on one CPU core."""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from helpers import workspace
from helpers.color import rgb_to_L_ab
from helpers.config import Config
from helpers.data.photos import list_photos, read_rgb, to_tensor
from helpers.models.srresnet import SRResNet, bicubic
from helpers.runs import BOX, save_network

PATCH, BATCH, STEPS, RATE = 96, 16, 2_000, 5e-4


def patches(photos: list[np.ndarray], chance: np.random.RandomState) -> Tensor:
    """Return random patches of lightness, half of them mirrored: (BATCH, 1, PATCH, PATCH) in [-1, 1]."""
    found = []
    for i in chance.randint(0, len(photos), BATCH):
        top, left = (chance.randint(0, length - PATCH + 1) for length in photos[i].shape)
        patch = photos[i][top : top + PATCH, left : left + PATCH].astype(np.float32)
        found.append(patch[:, :: 1 if chance.rand() < 0.5 else -1].copy())
    return torch.from_numpy(np.stack(found))[:, None]


def compress(small: Tensor, chance: np.random.RandomState) -> Tensor:
    """Return gray photos (N, 1, H, W) in [0, 1] as JPEG files of quality 50 to 95 decode to."""
    decoded = []
    for photo in (small[:, 0] * 255).round().byte().numpy():
        file = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, int(chance.randint(50, 96))])[1]
        decoded.append(cv2.imdecode(file, cv2.IMREAD_GRAYSCALE))
    return torch.from_numpy(np.stack(decoded))[:, None].float() / 255


def main(folder: Path) -> None:
    """Train with L1 on pairs of small and large lightness, every other batch small JPEG files, and fill the box."""
    torch.manual_seed(0)
    chance = np.random.RandomState(0)
    photos = [
        rgb_to_L_ab(to_tensor(read_rgb(path)))[0][0, 0].numpy().astype(np.float16) for path in list_photos(folder)
    ]
    photos = [photo for photo in photos if min(photo.shape) >= 200]
    network = SRResNet(8).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    accelerator = workspace.make_accelerator()
    for step in tqdm(range(STEPS)):
        L = patches(photos, chance)
        small = bicubic((L + 1) / 2, 1 / SRResNet.scale).clamp(0, 1)
        small = compress(small, chance) if step % 2 else small
        with accelerator.autocast():
            output = network(small * 2 - 1)
        loss = F.l1_loss(output.float(), L)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    save_network(BOX / "superres.safetensors", network, Config(profile="laptop", run="in the box"), half=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the enlarger in the box on a folder of photos.")
    parser.add_argument(
        "photos", type=Path, metavar="PHOTOS", help="photos of 200 pixels and more on their shorter side"
    )
    main(parser.parse_args().photos)
