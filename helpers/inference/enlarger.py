"""Enlarging lightness of any size with a trained network, tile by tile."""

from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from helpers import workspace
from helpers.color import gray_rgb, rgb_to_L_ab
from helpers.data.photos import to_tensor
from helpers.models.srresnet import bicubic
from helpers.runs import BOX, ENLARGERS, TRIAL, Run, load_network, missing

TILE = 128  # pixels on a side of a tile of the small photo, without its context
ENOUGH = 2_000_000  # photos above this many pixels are not enlarged by default


def latest_enlarger() -> Path:
    """Return the weights of the most recent super-resolution, with a GAN if there is one; else those in the box.

    Raises FileNotFoundError if there are none.
    """
    for phase in reversed(ENLARGERS):
        found = workspace.folder("runs").glob(f"*/{phase}.safetensors")
        if found := [file for file in found if not file.parent.name.startswith(TRIAL)]:
            return max(found, key=lambda file: file.stat().st_mtime)
    if (boxed := BOX / "superres.safetensors").exists():
        return boxed
    raise FileNotFoundError(missing(Run("*").file("superres"), ENLARGERS["superres"]))


class Enlarger:
    """A super-resolution network ready to enlarge gray photos.

    network: a network or the path of its weights; None for `latest_enlarger`. Raises FileNotFoundError if there is
    none, ValueError for a file that holds something else.
    """

    def __init__(self, network: nn.Module | Path | str | None = None, precision: str = "auto"):
        self.accelerator = workspace.make_accelerator(precision, training=False)
        if not isinstance(network, nn.Module):
            path = Path(network or latest_enlarger())
            network = load_network(path, notebook=ENLARGERS["superres"])
            if not hasattr(network, "scale"):
                raise ValueError(f"{path} holds a colorizer, not a network for super-resolution")
        self.network = network.eval().to(self.accelerator.device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def enlarge(self, L: Tensor, scale: int = 4) -> Tensor:
        """Return L (N, C, h, w) in [-1, 1] `scale` times as large, on the CPU; 2 is 4, reduced to a half."""
        with self.accelerator.autocast():
            large = self.network(L.to(self.accelerator.device)).float().cpu()
        return bicubic(large, scale / self.network.scale).clamp(-1, 1) if scale < self.network.scale else large

    def __call__(self, rgb: np.ndarray, scale: int = 4, tile: int = TILE) -> np.ndarray:
        """Return a photo (H, W, 3), uint8, in gray and `scale` times as large, 2 or 4, in bounded memory.

        Each tile goes through the network with its whole receptive field, so there are no seams.
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
            target[:] = (gray_rgb(L[..., rows, columns]) * 255).round().byte()[0].permute(1, 2, 0).numpy()
        return result
