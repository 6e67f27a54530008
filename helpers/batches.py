"""Photos on the device, augmentation, and the batches of an epoch."""

from dataclasses import dataclass

import kornia.augmentation as K
import torch

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
    """The batches of an epoch, in a new order each time, from photos that stay on the device as bytes.

    photos: uint8 (N, 3, H, W). augment: transforms of rgb in [0, 1], applied one after the other; with none the photos
    come in their own order, and the last batch may be smaller (in training it is left out: batch normalisation wants
    full batches).

    Raises ValueError when there are fewer training photos than one batch holds.
    """

    def __init__(self, photos, batch_size, device="cpu", augment=None):
        self.photos, self.batch_size, self.augment = photos.to(device), batch_size, augment
        if augment is not None and len(photos) < batch_size:
            raise ValueError(f"{len(photos)} training photos are fewer than one batch of {batch_size}.")

    def __len__(self):
        if self.augment is not None:
            return len(self.photos) // self.batch_size
        return -(-len(self.photos) // self.batch_size)

    def __iter__(self):
        count, device = len(self.photos), self.photos.device
        order = torch.arange(count) if self.augment is None else torch.randperm(count)
        for indices in order.split(self.batch_size)[: len(self)]:
            rgb = self.photos[indices.to(device)].float() / 255
            for transform in self.augment or ():
                rgb = transform(rgb)
            rgb = rgb.clamp(0, 1)
            yield Batch(*rgb_to_L_ab(rgb), rgb)
