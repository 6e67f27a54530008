"""CIELAB and back, the normalized L and ab that the networks see, and colorfulness."""

from collections.abc import Callable
from functools import cache, wraps

import numpy as np
import torch
import torch.nn.functional as F
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import Tensor

WHITE = (0.95047, 1.0, 1.08883)  # D65, 2 degrees
RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
XYZ_TO_RGB = tuple(map(tuple, np.linalg.inv(RGB_TO_XYZ).tolist()))


@cache
def constant(values: tuple, device: torch.device) -> Tensor:
    """Return numbers as a tensor on a device, copied there once: a copy in each step would make a GPU wait."""
    with torch.inference_mode(False):  # training uses it too
        return torch.tensor(values, device=device)


def mixed(matrix: tuple, image: Tensor) -> Tensor:
    """Multiply the channels of each pixel of (N, 3, H, W) by a 3x3 matrix."""
    weights = constant(matrix, image.device)
    if image.device.type == "cpu":
        return torch.einsum("oi,nihw->nohw", weights, image)
    return F.conv2d(image, weights[..., None, None])


def in_fp32(conversion: Callable) -> Callable:
    """Run a conversion of tensors in full fp32: bf16 has only 8 bits of precision, TF32 (in convolutions) 10."""

    @wraps(conversion)
    def _outside_autocast(*tensors):
        cudnn = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.autocast(tensors[0].device.type, enabled=False), cudnn:
            return conversion(*(tensor.float() for tensor in tensors))

    return _outside_autocast


@in_fp32
def rgb_to_L_ab(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Split photos into normalized lightness and chrominance.

    rgb: (N, 3, H, W) in [0, 1], sRGB. Returns L (N, 1, H, W) = L*/50 - 1 and ab (N, 2, H, W) = ab*/128,
    both in [-1, 1], float32 (CIE 1976, white D65).
    """
    xyz = mixed(RGB_TO_XYZ, rgb_to_linear_rgb(rgb)) / constant(WHITE, rgb.device).view(3, 1, 1)
    roots = torch.where(xyz > 0.008856, xyz.clamp(min=0.008856).pow(1 / 3), 7.787 * xyz + 4 / 29)
    x, y, z = roots.unbind(1)
    lab = torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)  # (N, 3, H, W), CIE units
    return lab[:, :1] / 50 - 1, lab[:, 1:] / 128


def L_ab_to_lab(L: Tensor, ab: Tensor) -> Tensor:
    """Join normalized L (N, 1, H, W) and ab (N, 2, H, W) to CIE units: L* in [0, 100], a* and b* in [-128, 128]."""
    return torch.cat([(L + 1) * 50, ab * 128], dim=1)


@in_fp32
def L_ab_to_raw_rgb(L: Tensor, ab: Tensor) -> Tensor:
    """Turn normalized L and ab into sRGB (N, 3, H, W), float32, beyond [0, 1] where a color is out of gamut.

    Not kornia's lab_to_rgb, which has no gradient of b* where a color is dark and far too yellow.
    """
    L, a, b = L_ab_to_lab(L, ab).unbind(1)
    y = (L + 16) / 116
    roots = torch.stack([y + a / 500, y, y - b / 200], dim=1)
    dark = 3 * (6 / 29) ** 2 * (roots - 4 / 29)
    xyz = torch.where(roots > 6 / 29, roots**3, dark) * constant(WHITE, L.device).view(3, 1, 1)
    return linear_rgb_to_rgb(mixed(XYZ_TO_RGB, xyz))


def L_ab_to_rgb(L: Tensor, ab: Tensor) -> Tensor:
    """Turn normalized L and ab into photos, differentiably.

    L (N, 1, H, W) and ab (N, 2, H, W) in [-1, 1]. Returns rgb (N, 3, H, W) in [0, 1], float32. Colors out of gamut are
    clipped, but the gradient ignores the clip (straight-through estimator, Bengio et al. 2013): without a gradient
    outside the gamut the generator could never return to it.
    """
    rgb = L_ab_to_raw_rgb(L, ab)
    return rgb + (rgb.detach().clamp(0, 1) - rgb.detach())


def gray_rgb(L: Tensor) -> Tensor:
    """Return L (N, 1, H, W) in [-1, 1] as a gray photo (N, 3, H, W) in [0, 1]."""
    return L_ab_to_rgb(L, torch.zeros_like(L).repeat(1, 2, 1, 1))


def into_gamut(L: Tensor, ab: Tensor) -> Tensor:
    """Reduce the chroma of colors outside sRGB just enough, with the same lightness and hue.

    L (N, 1, H, W) and ab (N, 2, H, W) in [-1, 1]; returns ab.
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
    for _ in range(10):  # bisection, to a thousandth
        middle = (low + high) / 2
        inside = _fits(L_out, ab_out * middle)
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    share = torch.ones_like(L)
    share[outside] = low.flatten()
    return ab * share


def to_photo(L: Tensor, ab: Tensor) -> Tensor:
    """Return uint8 photos (N, 3, H, W) of L (N, 1, H, W) and ab (N, 2, H, W) in [-1, 1], brought into gamut."""
    return (L_ab_to_rgb(L, into_gamut(L, ab)) * 255).round().byte()


def ab_of(photos: Tensor) -> Tensor:
    """Return the ab channels (N, 2, H, W) of uint8 photos (N, 3, H, W), in CIE units, a few photos at a time."""
    return torch.cat([rgb_to_L_ab(part.float() / 255)[1] * 128 for part in photos.split(64)])


def to_8bit(rgb: Tensor) -> Tensor:
    """Round photos (N, 3, H, W) to what an 8-bit file holds: in [0, 1], in steps of 1/255."""
    return (rgb.clamp(0, 1) * 255).round() / 255


def colorfulness(rgb: Tensor, absolute: bool = False) -> Tensor:
    """Measure how colorful photos are (Hasler and Suesstrunk 2003).

    rgb: (N, 3, H, W) in [0, 1]. Returns (N,) on the scale of 8-bit values: 0 is gray, about 15 slightly,
    45 averagely, 80 highly colorful. absolute: of the opponents' absolute values, see `ddcolor_cf`.
    """
    red, green, blue = (rgb.float() * 255).flatten(2).unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue])  # (2, N, pixels)
    opponents = opponents.abs() if absolute else opponents
    spread = opponents.std(dim=-1, correction=0).square().sum(0).sqrt()
    return spread + 0.3 * opponents.mean(dim=-1).square().sum(0).sqrt()


def ddcolor_cf(rgb: Tensor) -> Tensor:
    """Return `colorfulness` as DDColor's code computes it (Kang et al. 2023, arXiv 2212.11613): of absolute values."""
    return colorfulness(rgb, absolute=True)
