"""Color for every pixel from a small prediction, and no color that a screen cannot show."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.color import L_ab_to_raw_rgb, L_ab_to_rgb


def enlarger(maps: Tensor, size: tuple[int, int]) -> Callable[[int, int], Tensor]:
    """Return a function that gives rows `start` to `stop` of maps (C, h, w) at `size` (H, W): bilinear.

    Strips of rows keep the memory of a large photo bounded. Bilinear interpolation is linear in rows and in columns, so
    two matrices do it: what PyTorch makes of the unit matrix. In double precision, for in single the last digits of a
    product depend on where its numbers happen to lie in memory, and a film that was killed has to come out the same.
    """
    rows, columns = (
        F.interpolate(torch.eye(less)[None], size=more, mode="linear")[0].T.double()
        for less, more in zip(maps.shape[-2:], size, strict=True)
    )
    wide = maps.double() @ columns.T
    return lambda start, stop: (rows[start:stop] @ wide).float()


def into_gamut(L: Tensor, ab: Tensor) -> Tensor:
    """Reduce the chroma of colors that no screen can show, and leave lightness and hue alone.

    L (N, 1, H, W) and ab (N, 2, H, W) in [-1, 1]; returns ab, with the largest share of each color that sRGB holds.
    """

    def _fits(L, ab):
        raw = L_ab_to_raw_rgb(L, ab)
        return ((raw >= -1e-4) & (raw <= 1 + 1e-4)).all(1, keepdim=True)

    outside = ~_fits(L, ab)
    if not outside.any():
        return ab
    L_out = L[outside].view(-1, 1, 1, 1)
    ab_out = torch.stack([ab[:, :1][outside], ab[:, 1:][outside]], dim=1).view(-1, 2, 1, 1)
    low, high = torch.zeros_like(L_out), torch.ones_like(L_out)
    for _ in range(10):  # halving: the share is known to a thousandth then
        middle = (low + high) / 2
        inside = _fits(L_out, ab_out * middle)
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    share = torch.ones_like(L)
    share[outside] = low.flatten()
    return ab * share


def to_photo(L: Tensor, ab: Tensor) -> Tensor:
    """Return uint8 photos (N, 3, H, W) of L (N, 1, H, W) and ab (N, 2, H, W) in [-1, 1], brought into gamut."""
    return (L_ab_to_rgb(L, into_gamut(L, ab)) * 255).round().byte()
