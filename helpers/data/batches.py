"""The batches of an epoch: photos in memory, augmented on the device."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import kornia.augmentation as K
import torch
from torch import Tensor

from helpers.color import rgb_to_L_ab
from helpers.config import Config

Device = torch.device | str


@dataclass
class Batch:
    """L (N, 1, H, W) and ab (N, 2, H, W) in [-1, 1], and the photos they come from, rgb (N, 3, H, W) in [0, 1]."""

    L: Tensor
    ab: Tensor
    rgb: Tensor


def lab_batch(rgb: Tensor) -> Batch:
    """Return the batch of photos (N, 3, H, W) in [0, 1]."""
    return Batch(*rgb_to_L_ab(rgb), rgb)


def augmentations(cfg: Config) -> list[Callable[[Tensor], Tensor]]:
    """Return the training augmentation: kornia transforms of rgb (N, 3, H, W) in [0, 1], random for each photo.

    Rotation reflects the photo at its border, so that no corner is black. Hue is never changed: that would teach wrong
    colors.
    """
    return [
        K.RandomHorizontalFlip(p=cfg.flip),
        K.RandomAffine(degrees=cfg.rotation, padding_mode="reflection", p=1.0),
        K.RandomResizedCrop((cfg.size, cfg.size), scale=(cfg.crop, 1.0), ratio=(1.0, 1.0), p=1.0),
        K.ColorJitter(brightness=cfg.jitter, contrast=cfg.jitter, saturation=cfg.jitter, hue=0.0, p=1.0),
    ]


class Batches:
    """The batches of an epoch, in a new random order each time; each of several processes takes its own photos.

    photos: uint8 (N, 3, H, W); a memory-mapped set stays on disk, anything else moves to the device. augment:
    transforms of rgb in [0, 1], applied in turn; with None the order is that of the photos, and the last batch may be
    smaller. rank, world_size: the number of this process and of all; `seed` must be the same for all. Raises ValueError
    if there are fewer training photos than one batch needs.
    """

    def __init__(
        self,
        photos: Tensor,
        batch_size: int,
        device: Device = "cpu",
        augment: list[Callable[[Tensor], Tensor]] | None = None,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ):
        self.batch_size, self.device, self.augment = batch_size, torch.device(device), augment
        self.rank, self.world_size, self.random = rank, world_size, torch.Generator().manual_seed(seed)
        on_disk = photos.untyped_storage().filename  # of a memory-mapped set
        self.photos = photos if on_disk else photos.to(device)
        self.skip = 0  # batches of the next epoch that an interrupted run has already seen
        if augment is not None and len(photos) < batch_size * world_size:
            each = f" on each of {world_size} processes" if world_size > 1 else ""
            raise ValueError(f"{len(photos)} training photos are fewer than one batch of {batch_size}{each}.")

    def __len__(self) -> int:
        if self.augment is not None:
            return len(self.photos) // self.world_size // self.batch_size
        return -(-len(self.order()) // self.batch_size)

    def order(self) -> Tensor:
        """Return the numbers of this process's photos in the order of an epoch; in training a new one at each call."""
        count = len(self.photos)
        order = torch.arange(count) if self.augment is None else torch.randperm(count, generator=self.random)
        return order[self.rank :: self.world_size]

    def __iter__(self) -> Iterator[Batch]:
        self.order_of_epoch = self.random.get_state()
        order = self.order().to(self.photos.device)  # once: a copy in each step would make a GPU wait
        groups = order.split(self.batch_size)[self.skip : len(self)]
        self.skip = 0
        for group in groups:
            rgb = self.photos[group].to(self.device, non_blocking=True).float() / 255
            for transform in self.augment or ():
                rgb = transform(rgb)
            yield lab_batch(rgb.clamp(0, 1))
