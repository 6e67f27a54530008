"""Enlarging lightness of any size with a trained network, tile by tile."""

from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from helpers import workspace
from helpers.color import L_ab_to_rgb, rgb_to_L_ab
from helpers.data.photos import to_tensor
from helpers.evaluation import metrics
from helpers.models.srresnet import bicubic
from helpers.runs import ENLARGERS, Run, load_network, missing

TILE = 128  # pixels of the small photo on a side of what goes through the network at a time, without its context
ENOUGH = 2_000_000  # pixels that a photo is large with


def latest_enlarger() -> Path:
    """Return the weights of the super-resolution that was trained last, with a GAN if any was.

    Raises FileNotFoundError if there is none.
    """
    for phase in reversed(ENLARGERS):
        if found := list(workspace.folder("runs").glob(f"*/{phase}.safetensors")):
            return max(found, key=lambda file: file.stat().st_mtime)
    raise FileNotFoundError(missing(Run("*").file("superres"), ENLARGERS["superres"]))


def gray_pixels(L: Tensor) -> np.ndarray:
    """Return L (1, 1, H, W) in [-1, 1] as a gray photo (H, W, 3), uint8."""
    return (L_ab_to_rgb(L, metrics.gray(L)) * 255).round().byte()[0].permute(1, 2, 0).numpy()


class Enlarger:
    """A super-resolution network, ready to enlarge gray photos.

    network: one, or the path of its weights; None for those that were trained last. Raises FileNotFoundError when there
    are none, ValueError for a file that holds something else.
    """

    def __init__(self, network: nn.Module | Path | str | None = None, precision: str = "auto"):
        self.accelerator = workspace.make_accelerator(precision)
        if not isinstance(network, nn.Module):
            path = Path(network or latest_enlarger())
            network = load_network(path, ENLARGERS["superres"])
            if not hasattr(network, "scale"):
                raise ValueError(f"{path} holds a colorizer, not a network for super-resolution")
        self.network = network.eval().to(self.accelerator.device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def enlarge(self, L: Tensor, scale: int = 4) -> Tensor:
        """Return L (N, C, h, w) in [-1, 1] `scale` times as large, 2 or 4, on the CPU.

        Twice as large is four times as large, and reduced.
        """
        with self.accelerator.autocast():
            large = self.network(L.to(self.accelerator.device)).float().cpu()
        return bicubic(large, scale / self.network.scale).clamp(-1, 1) if scale < self.network.scale else large

    def __call__(self, rgb: np.ndarray, scale: int = 4, tile: int = TILE) -> np.ndarray:
        """Return a photo (H, W, 3), uint8, gray and `scale` times as large, 2 or 4; in tiles, in bounded memory.

        A tile goes through the network with all around it that decides on its pixels: no seam is left.
        """
        (height, width), edge = rgb.shape[:2], self.network.context
        result = np.empty((scale * height, scale * width, 3), np.uint8)
        for top, left in product(range(0, height, tile), range(0, width, tile)):
            first = max(0, top - edge), max(0, left - edge)
            around = rgb[first[0] : top + tile + edge, first[1] : left + tile + edge]
            L = self.enlarge(rgb_to_L_ab(to_tensor(around))[0], scale)
            rows, columns = (
                slice(scale * (start - begun), scale * (min(start + tile, length) - begun))
                for start, begun, length in zip((top, left), first, (height, width), strict=True)
            )
            target = result[scale * top : scale * (top + tile), scale * left : scale * (left + tile)]
            target[:] = gray_pixels(L[..., rows, columns])
        return result
