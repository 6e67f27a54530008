"""Photos with pasted ellipses in another color: they teach hints to fill an object up to its outline."""

import math

import torch
from torch import Tensor

from helpers.color import L_ab_to_rgb, rgb_to_L_ab


def paste(rgb: Tensor, share: float = 0.75, largest: float = 0.35) -> Tensor:
    """Paste an ellipse of another photo, in another color, into some of a batch (N, 3, H, W) in [0, 1].

    The ellipse's hue is rotated, and its colors are mixed with their mean, because objects often have one color. After
    CutMix (Yun et al. 2019, arXiv 1905.04899). share: of the photos; largest: half axis, in shares of the side.
    """
    (count, _, height, width), draw = rgb.shape, lambda low, high: low + (high - low) * torch.rand(len(rgb), 1, 1)
    rows, columns = torch.arange(height).view(1, -1, 1) / height, torch.arange(width).view(1, 1, -1) / width
    y, x = ((axis - draw(0, 1)) / draw(0.1, largest) for axis in (rows, columns))
    inside = (y.square() + x.square() < 1) & (torch.rand(count, 1, 1) < share)
    L, ab = rgb_to_L_ab(rgb.roll(1, 0))
    inside, turn, plain = (maps[:, None].to(rgb.device) for maps in (inside, draw(-math.pi, math.pi), draw(0, 1)))
    mean = (ab * inside).sum((2, 3), keepdim=True) / inside.sum((2, 3), keepdim=True).clamp(min=1)
    a, b = ab.lerp(mean, plain).split(1, 1)
    ab = torch.cat([turn.cos() * a - turn.sin() * b, turn.sin() * a + turn.cos() * b], 1)
    return torch.where(inside, L_ab_to_rgb(L, ab), rgb)
