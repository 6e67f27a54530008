"""CIELAB and back, the normalized L and ab that the networks see, the gamut of sRGB, and colorfulness."""

from collections.abc import Callable
from functools import cache, wraps

import cv2
import numpy as np
import torch
from torch import Tensor

WHITE = (0.95047, 1.0, 1.08883)  # D65, 2 degrees
RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
XYZ_TO_RGB = tuple(map(tuple, np.linalg.inv(RGB_TO_XYZ).tolist()))
LIGHTS, HUES = 129, 361  # rows and columns of the gamut's table


@cache
def constant(values: tuple, device: torch.device) -> Tensor:
    """Return numbers as a tensor on a device, copied there once: a copy in each step would make a GPU wait."""
    with torch.inference_mode(False):  # training uses it too
        return torch.tensor(values, device=device)


def mixed(matrix: tuple, image: Tensor) -> Tensor:
    """Multiply the channels of each pixel of (N, 3, H, W) by a 3x3 matrix."""
    weights = constant(matrix, image.device)[..., None, None]
    return (weights * image[:, None]).sum(2)  # a convolution or matrix product on a GPU would round to TF32's 10 bits


def in_fp32(conversion: Callable) -> Callable:
    """Run a conversion of tensors in full fp32: bf16 has only 8 bits of precision."""

    @wraps(conversion)
    def _outside_autocast(*tensors):
        with torch.autocast(tensors[0].device.type, enabled=False):
            return conversion(*(tensor.float() for tensor in tensors))

    return _outside_autocast


def rgb_to_linear(rgb: Tensor) -> Tensor:
    """Return the light of sRGB values, both in [0, 1] (IEC 61966-2-1)."""
    return torch.where(rgb > 0.04045, ((rgb.clamp(min=0.04045) + 0.055) / 1.055).pow(2.4), rgb / 12.92)


def linear_to_rgb(light: Tensor) -> Tensor:
    """Return the sRGB values of light: the inverse of `rgb_to_linear`, for values beyond [0, 1] too."""
    return torch.where(light > 0.0031308, 1.055 * light.clamp(min=0.0031308).pow(1 / 2.4) - 0.055, 12.92 * light)


@in_fp32
def rgb_to_L_ab(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Split photos into normalized lightness and chrominance.

    rgb: (N, 3, H, W) in [0, 1], sRGB. Returns L (N, 1, H, W) = L*/50 - 1 and ab (N, 2, H, W) = ab*/128,
    both in [-1, 1], float32 (CIE 1976, white D65).
    """
    xyz = mixed(RGB_TO_XYZ, rgb_to_linear(rgb)) / constant(WHITE, rgb.device).view(3, 1, 1)
    roots = torch.where(xyz > 0.008856, xyz.clamp(min=0.008856).pow(1 / 3), 7.787 * xyz + 4 / 29)
    x, y, z = roots.unbind(1)
    lab = torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)  # (N, 3, H, W), CIE units
    return lab[:, :1] / 50 - 1, lab[:, 1:] / 128


def L_ab_to_lab(L: Tensor, ab: Tensor) -> Tensor:
    """Join normalized L (N, 1, H, W) and ab (N, 2, H, W) to CIE units: L* in [0, 100], a* and b* in [-128, 128]."""
    return torch.cat([(L + 1) * 50, ab * 128], dim=1)


@in_fp32
def L_ab_to_linear(L: Tensor, ab: Tensor) -> Tensor:
    """Turn normalized L and ab into the light of red, green and blue (N, 3, H, W), beyond [0, 1] where out of gamut.

    Not kornia's lab_to_rgb, which has no gradient of b* where a color is dark and far too yellow.
    """
    L, a, b = L_ab_to_lab(L, ab).unbind(1)
    y = (L + 16) / 116
    roots = torch.stack([y + a / 500, y, y - b / 200], dim=1)
    dark = 3 * (6 / 29) ** 2 * (roots - 4 / 29)
    xyz = torch.where(roots > 6 / 29, roots**3, dark) * constant(WHITE, L.device).view(3, 1, 1)
    return mixed(XYZ_TO_RGB, xyz)


def L_ab_to_rgb(L: Tensor, ab: Tensor) -> Tensor:
    """Turn normalized L and ab into photos, differentiably.

    L (N, 1, H, W) and ab (N, 2, H, W) in [-1, 1]. Returns rgb (N, 3, H, W) in [0, 1], float32. Colors out of gamut are
    clipped, but the gradient ignores the clip (straight-through estimator, Bengio et al. 2013): without a gradient
    outside the gamut the generator could never return to it.
    """
    rgb = linear_to_rgb(L_ab_to_linear(L, ab))
    return rgb + (rgb.detach().clamp(0, 1) - rgb.detach())


def gray_rgb(L: Tensor) -> Tensor:
    """Return L (N, 1, H, W) in [-1, 1] as a gray photo (N, 3, H, W) in [0, 1]."""
    return L_ab_to_rgb(L, torch.zeros_like(L).repeat(1, 2, 1, 1))


@cache
def gamut_boundary() -> np.ndarray:
    """Return how far from gray a color may be until its red, green or blue leaves sRGB: (LIGHTS, HUES, 3), float32.

    Distances are |a*| + |b*|. Rows: L* from 0 to 100; columns: hue from -2 to 2, see `to_8bit_rgb`. Each channel has a
    table of its own, because its limit is smooth; the least of the three has sharp edges, which no grid can hold.
    """
    L = torch.linspace(-1, 1, LIGHTS).view(-1, 1).expand(3, 1, LIGHTS, HUES)
    a = 1 - torch.linspace(-2, 2, HUES).abs()
    direction = torch.stack([a, torch.linspace(-2, 2, HUES).sign() * (1 - a.abs())])[:, None]  # |a| + |b| = 1
    low, high = torch.zeros_like(L), torch.full_like(L, 2)
    for _ in range(14):  # bisection from far outside, so that the outermost limit is found where there are two
        middle = (low + high) / 2
        light = L_ab_to_linear(L, direction * middle).diagonal().permute(2, 0, 1)[:, None]
        inside = (light > -1e-5) & (light < 1 + 2e-4)
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    low[:, :, [0, -1]] = 0  # black and white have no hue
    return np.ascontiguousarray(128 * low[:, 0].permute(1, 2, 0).numpy())


def to_8bit_rgb(L: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a photo (H, W, 3), uint8, of L*, a* and b* (H, W), float32, in CIE units.

    Colors outside sRGB lose just enough chroma, and keep their lightness and hue. Each pixel's result is the same in
    strips of whole rows and on any number of threads.
    """
    chroma = np.maximum(np.abs(a) + np.abs(b), 1e-6)
    hue = np.copysign(1 - a / chroma, b)  # around the circle from -2 to 2, without an arctangent
    places = (hue + 2) * ((HUES - 1) / 4), L * ((LIGHTS - 1) / 100)
    lines = -(-L.size // 4096), 4096  # OpenCV's lookup takes no side above 32766
    x, y = (np.resize(place, lines) for place in places)
    limits = cv2.remap(gamut_boundary(), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    limit = np.minimum(np.minimum(limits[..., 0], limits[..., 1]), limits[..., 2])
    share = np.minimum(1, limit.ravel()[: L.size].reshape(L.shape) / chroma)
    rgb = cv2.cvtColor(cv2.merge([L, a * share, b * share]), cv2.COLOR_LAB2RGB)
    photo, gray = cv2.convertScaleAbs(rgb, alpha=255), (a == 0) & (b == 0)
    photo[gray] = photo[gray][:, 1:2]  # the channels' last digits differ
    return photo


def to_photo(L: Tensor, ab: Tensor) -> Tensor:
    """Return uint8 photos (N, 3, H, W), on the CPU, of L (N, 1, H, W) and ab (N, 2, H, W) in [-1, 1]; into gamut."""
    lab = L_ab_to_lab(L.float(), ab.float()).detach().cpu()
    rgb = to_8bit_rgb(*(plane.flatten(0, 1).numpy() for plane in lab.unbind(1)))
    return torch.from_numpy(rgb).unflatten(0, (len(lab), -1)).permute(0, 3, 1, 2).contiguous()


def lightness(rgb: np.ndarray) -> np.ndarray:
    """Return L* (H, W), float32, in [0, 100], of a photo (H, W, 3), uint8."""
    light = rgb_to_linear(torch.arange(256) / 255).numpy()
    Y = cv2.transform(cv2.LUT(rgb, light), np.float32(RGB_TO_XYZ[1:2]))
    return np.where(Y > 0.008856, 116 * cv2.pow(Y, 1 / 3) - 16, 903.3 * Y)


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
