"""Photos in memory or streamed from disk, augmentation on the device, and the batches of an epoch."""

from dataclasses import dataclass

import kornia.augmentation as K
import torch

from helpers import workspace
from helpers.color import rgb_to_L_ab


@dataclass
class Batch:
    """L (N, 1, H, W) and ab (N, 2, H, W) in [-1, 1] with the photos they come from, rgb (N, 3, H, W) in [0, 1]."""

    L: torch.Tensor
    ab: torch.Tensor
    rgb: torch.Tensor


def augmentations(cfg):
    """Return the training augmentation as a list of kornia transforms on rgb (N, 3, H, W) in [0, 1].

    Every photo of a batch draws its own. Rotation reflects the photo at its borders, so that no corner turns
    black; hue is never touched, for that would teach false colours.
    """
    return [
        K.RandomHorizontalFlip(p=cfg.flip),
        K.RandomAffine(degrees=cfg.rotation, padding_mode="reflection", p=1.0),
        K.RandomResizedCrop((cfg.size, cfg.size), scale=(cfg.crop, 1.0), ratio=(1.0, 1.0), p=1.0),
        K.ColorJitter(brightness=cfg.jitter, contrast=cfg.jitter, saturation=cfg.jitter, hue=0.0, p=1.0),
    ]


class Batches:
    """The batches of an epoch, in a new order each time; on several processes, each has its own share of them.

    photos: uint8 (N, 3, H, W), which are kept on the device, or a `dataset.PhotoFiles`, which is streamed from disk.
    augment: transforms of rgb in [0, 1], applied one after the other; with none the photos come in their own order,
    and the last batch may be smaller (in training it is left out: batch normalisation wants full batches).
    share: (which process, of how many); all have the same `seed`, and so the same order, of which each takes its part.

    Raises ValueError when there are fewer training photos than one batch on every process holds.
    """

    def __init__(self, photos, batch_size, device="cpu", augment=None, share=(0, 1), seed=0):
        self.photos, self.batch_size, self.device, self.augment = photos, batch_size, torch.device(device), augment
        self.streamed = not torch.is_tensor(photos)
        self.process, self.processes = share
        self.random = torch.Generator().manual_seed(seed)
        self.skip = 0  # batches that the next epoch leaves out: those that were done before it was interrupted
        if not self.streamed:
            self.photos = photos.to(device)
        if augment is not None and len(photos) < batch_size * self.processes:
            each = f" on each of {self.processes} processes" if self.processes > 1 else ""
            raise ValueError(f"{len(photos)} training photos are fewer than one batch of {batch_size}{each}.")

    def __len__(self):
        if self.augment is not None:
            return len(self.photos) // self.processes // self.batch_size
        return -(-len(self.order()) // self.batch_size)

    def order(self):
        """Return the numbers of this process's photos, as an epoch takes them; in training a new order at each call."""
        count = len(self.photos)
        order = torch.arange(count) if self.augment is None else torch.randperm(count, generator=self.random)
        return order[self.process :: self.processes]

    def __iter__(self):
        self.order_of_epoch = self.random.get_state()
        order = self.order() if self.streamed else self.order().to(self.device)
        skip, self.skip = self.skip, 0
        for photos in self._read(order.split(self.batch_size)[skip : len(self)]):
            rgb = photos.to(self.device, non_blocking=True).float() / 255
            for transform in self.augment or ():
                rgb = transform(rgb)
            rgb = rgb.clamp(0, 1)
            yield Batch(*rgb_to_L_ab(rgb), rgb)

    def _read(self, groups):
        """Return the photos of each group of numbers, one group after the other: uint8 (N, 3, H, W)."""
        if not self.streamed:
            return (self.photos[group] for group in groups)
        return workspace.in_parallel(self._from_disk, groups, ahead=4 * workspace.cores())

    def _from_disk(self, group):
        """Read a group of photos; in pinned memory, where a GPU fetches them while it computes."""
        photos = torch.stack([self.photos[i] for i in group])
        return photos.pin_memory() if self.device.type == "cuda" else photos
