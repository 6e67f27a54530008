"""Photos in memory or streamed from disk, augmentation on the device, and the batches of an epoch."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import kornia.augmentation as K
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from helpers import workspace
from helpers.color import rgb_to_L_ab
from helpers.config import Config
from helpers.data.dataset import PhotoFiles


@dataclass
class Batch:
    """L (N, 1, H, W) and ab (N, 2, H, W) in [-1, 1] with the photos they come from, rgb (N, 3, H, W) in [0, 1]."""

    L: Tensor
    ab: Tensor
    rgb: Tensor


def lab_batch(rgb: Tensor) -> Batch:
    """Return the batch of photos (N, 3, H, W) in [0, 1]."""
    return Batch(*rgb_to_L_ab(rgb), rgb)


def augmentations(cfg: Config) -> list[Callable[[Tensor], Tensor]]:
    """Return the training augmentation as a list of kornia transforms on rgb (N, 3, H, W) in [0, 1].

    Every photo of a batch draws its own. Rotation reflects the photo at its borders, so that no corner turns
    black; hue is never touched, for that would teach false colors.
    """
    return [
        K.RandomHorizontalFlip(p=cfg.flip),
        K.RandomAffine(degrees=cfg.rotation, padding_mode="reflection", p=1.0),
        K.RandomResizedCrop((cfg.size, cfg.size), scale=(cfg.crop, 1.0), ratio=(1.0, 1.0), p=1.0),
        K.ColorJitter(brightness=cfg.jitter, contrast=cfg.jitter, saturation=cfg.jitter, hue=0.0, p=1.0),
    ]


class Batches:
    """The batches of an epoch, in a new order each time; each of several processes takes its own photos.

    photos: uint8 (N, 3, H, W), which are kept on the device, or a `dataset.PhotoFiles`, which is streamed from disk.
    augment: transforms of rgb in [0, 1], applied one after the other; with None the photos come in their own order,
    and the last batch may be smaller (in training it is left out: batch normalization wants full batches).
    rank, world_size: which process of how many this is; all have the same `seed`, and so the same order.
    make: what turns rgb (N, 3, H, W) in [0, 1] into a batch.

    Raises ValueError when there are fewer training photos than one batch on every process holds.
    """

    def __init__(
        self,
        photos: Tensor | PhotoFiles,
        batch_size: int,
        device: torch.device | str = "cpu",
        augment: list[Callable[[Tensor], Tensor]] | None = None,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        make: Callable[[Tensor], Any] = lab_batch,
    ):
        self.batch_size, self.device, self.augment, self.make = batch_size, torch.device(device), augment, make
        self.rank, self.world_size, self.random = rank, world_size, torch.Generator().manual_seed(seed)
        self.streamed = not torch.is_tensor(photos)
        self.photos = photos if self.streamed else photos.to(device)
        self.skip = 0  # batches that the next epoch leaves out: those that were done before it was interrupted
        if augment is not None and len(photos) < batch_size * world_size:
            each = f" on each of {world_size} processes" if world_size > 1 else ""
            raise ValueError(f"{len(photos)} training photos are fewer than one batch of {batch_size}{each}.")

    def __len__(self) -> int:
        if self.augment is not None:
            return len(self.photos) // self.world_size // self.batch_size
        return -(-len(self.order()) // self.batch_size)

    def order(self) -> Tensor:
        """Return the numbers of this process's photos, as an epoch takes them; in training a new order at each call."""
        count = len(self.photos)
        order = torch.arange(count) if self.augment is None else torch.randperm(count, generator=self.random)
        return order[self.rank :: self.world_size]

    def __iter__(self) -> Iterator[Any]:
        self.order_of_epoch = self.random.get_state()
        groups = self.order().split(self.batch_size)[self.skip : len(self)]
        self.skip = 0
        for photos in self._read(groups):
            rgb = photos.to(self.device, non_blocking=True).float() / 255
            for transform in self.augment or ():
                rgb = transform(rgb)
            yield self.make(rgb.clamp(0, 1))

    def _read(self, groups: Iterable[Tensor]) -> Iterable[Tensor]:
        """Return the photos of each group of numbers, one group after the other: uint8 (N, 3, H, W)."""
        if not self.streamed:
            return (self.photos[group.to(self.device)] for group in groups)
        own = torch.Generator()  # else the loader draws from the training's chance
        pinned, workers = self.device.type == "cuda", workspace.cores()
        order = [group.tolist() for group in groups]
        return DataLoader(self.photos, batch_sampler=order, num_workers=workers, pin_memory=pinned, generator=own)
