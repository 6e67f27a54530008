"""PSNR, SSIM, LPIPS, L1 and colorfulness of colorized photos as the user gets them; baselines; tables."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import Tensor

from helpers.color import ab_of, colorfulness, ddcolor_cf, rgb_to_L_ab, to_8bit, to_photo
from helpers.data.batches import Batches, Device

HIGHER_IS_BETTER = {"PSNR": True, "SSIM": True, "L1": False, "LPIPS": False}
WINDOW = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}  # of SSIM, as Wang et al. 2004 use it
BORDER = 4  # pixels on each side that super-resolution leaves out, as is usual at a scale of 4


def psnr(rgb: Tensor, truth: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each photo in dB; rgb and truth (N, 3, H, W) in [0, 1]."""
    return -10 * (rgb - truth).square().mean((1, 2, 3)).clamp(min=1e-10).log10()


def ssim(rgb: Tensor, truth: Tensor) -> list[float]:
    """Return each photo's structural similarity (Wang et al. 2004); both (N, 3, H, W) in [0, 1]."""
    pairs = zip(rgb.cpu().numpy(), truth.cpu().numpy(), strict=True)
    return [float(structural_similarity(a, b, channel_axis=0, data_range=1.0, **WINDOW)) for a, b in pairs]


def luma(rgb: Tensor) -> Tensor:
    """Return Y of photos (N, 3, H, W) in [0, 1], rounded to 8 bits: (N, H, W) from 16 to 235 (ITU-R BT.601)."""
    red, green, blue = to_8bit(rgb).unbind(1)
    return (16 + 65.481 * red + 128.553 * green + 24.966 * blue).round()


def quality(rgb: Tensor, truth: Tensor) -> pd.DataFrame:
    """Return PSNR (dB) and SSIM of Y without the border, a row per photo; both (N, 3, H, W) in [0, 1]."""
    inside = slice(BORDER, -BORDER)
    Y, wanted = (luma(photos)[:, None, inside, inside].double().cpu() / 255 for photos in (rgb, truth))  # (N, 1, h, w)
    return pd.DataFrame({"PSNR": psnr(Y, wanted).numpy(), "SSIM": ssim(Y, wanted)})


def ab_error(rgb: Tensor, truth: Tensor) -> Tensor:
    """Return the mean |ab - ab'| of each photo, in the [-1, 1] scale; both (N, 3, H, W) in [0, 1]."""
    return (rgb_to_L_ab(rgb)[1] - rgb_to_L_ab(truth)[1]).abs().mean((1, 2, 3))


def measure(rgb: Tensor, truth: Tensor, perceptual: Callable | None = None, with_ssim: bool = True) -> pd.DataFrame:
    """Return a table of metrics, one row a photo.

    rgb, truth: (N, 3, H, W) in [0, 1]; rgb is rounded to 8 bits first. perceptual: a `losses.Perceptual`; without
    it, or if it is not trained, that column is left out. Columns: L1, PSNR (dB), SSIM, LPIPS, colorfulness (Hasler and
    Suesstrunk's), truth (the truth's colorfulness), and both as DDColor computes them.
    """
    rgb = to_8bit(rgb)
    columns = {"L1": ab_error(rgb, truth), "PSNR": psnr(rgb, truth)}
    if perceptual is not None and getattr(perceptual, "trained", True):
        columns["LPIPS"] = perceptual(rgb, truth)
    columns |= {"colorfulness": colorfulness(rgb), "truth": colorfulness(truth)}
    columns |= {"CF (DDColor)": ddcolor_cf(rgb), "truth's CF (DDColor)": ddcolor_cf(truth)}
    table = pd.DataFrame({name: values.detach().cpu().double().numpy() for name, values in columns.items()})
    if with_ssim:
        table.insert(2, "SSIM", ssim(rgb, truth))
    return table


@torch.no_grad()
def measure_all(
    colored: Tensor, photos: Tensor, perceptual: Callable | None = None, device: Device = "cpu", with_ssim: bool = True
) -> pd.DataFrame:
    """Return `measure`'s table for uint8 photos (N, 3, H, W), which are measured in batches."""
    pairs = zip(colored.split(16), photos.split(16), strict=True)
    tables = [measure(a.to(device) / 255, b.to(device) / 255, perceptual, with_ssim) for a, b in pairs]
    return pd.concat(tables, ignore_index=True)


def summary(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return a row per colorizer: mean, median, best and worst of each metric, and colorfulness beside the truth's.

    tables: a dict of name -> `measure` table. "of truth" is a share; "|delta CF|" is the difference of the two means,
    which is what papers print (Kang et al. 2023, arXiv 2212.11613).
    """
    rows = {}
    for name, table in tables.items():
        mean, row = table.mean(), {}
        for metric in [m for m in HIGHER_IS_BETTER if m in table]:
            ordered = np.sort(table[metric])[:: -1 if HIGHER_IS_BETTER[metric] else 1]
            row |= {f"{metric} mean": mean[metric], f"{metric} median": table[metric].median()}
            row |= {f"{metric} best": ordered[0], f"{metric} worst": ordered[-1]}
        row |= {"colorfulness": mean["colorfulness"], "of truth": mean["colorfulness"] / mean["truth"]}
        row["CF (DDColor)"] = mean["CF (DDColor)"]
        row["|delta CF| (DDColor)"] = abs(mean["CF (DDColor)"] - mean["truth's CF (DDColor)"])
        rows[name] = row
    return pd.DataFrame(rows).T


@torch.no_grad()
def colorize_all(
    colorize: Callable, photos: Tensor, device: Device = "cpu", batch_size: int = 16, hints: Tensor | None = None
) -> Tensor:
    """Colorize photos from their lightness, and hints (N, 3, H, W) if given; returns uint8 (N, 3, H, W) on the CPU.

    colorize: a function of L (N, 1, H, W), and of hints if they are given, such as a generator in evaluation mode, that
    returns ab (N, 2, H, W) in [-1, 1]. photos: uint8 (N, 3, H, W).
    """
    batches = Batches(photos, batch_size, device)
    inputs = [()] * len(batches) if hints is None else [(part.to(device),) for part in hints.split(batch_size)]
    return torch.cat([to_photo(batch.L, colorize(batch.L, *more)) for batch, more in zip(batches, inputs, strict=True)])


def gray(L: Tensor) -> Tensor:
    """Return ab = 0 for L (N, 1, H, W): the baseline without color."""
    return torch.zeros_like(L).repeat(1, 2, 1, 1)


def mean_color(photos: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a baseline: a function of L that gives every pixel the mean ab of uint8 photos (N, 3, H, W)."""
    mean = torch.stack([batch.ab.mean((0, 2, 3)) for batch in Batches(photos, 1)]).mean(0)
    return lambda L: mean.to(L.device).view(1, 2, 1, 1).expand(len(L), 2, *L.shape[-2:])


def contrast(ab: Tensor) -> Tensor:
    """Return the gradient magnitude of ab (N, 2, H, W): (N, H, W)."""
    return torch.stack(torch.gradient(ab, dim=(2, 3))).square().sum((0, 2)).sqrt()


def edge_report(colorized: Tensor, photos: Tensor, threshold: float = 8.0, reach: int = 3) -> pd.DataFrame:
    """Measure color bleeding at the truth's color edges, a row per photo.

    colorized, photos: uint8 (N, 3, H, W). At an edge ab changes by more than `threshold` CIE units between neighbors;
    "near" is within `reach` pixels. Columns: mean ab error near edges and elsewhere (CIE units), and the predicted
    color contrast across edges as a share of the truth's: 1 is sharp, 0 is washed out.
    """
    truth, ours = ab_of(photos), ab_of(colorized)
    edge = contrast(truth) > threshold
    near = F.max_pool2d(edge.float(), 2 * reach + 1, 1, reach) > 0

    error = (truth - ours).norm(dim=1)
    columns = {"error near edges": (error * near).sum((1, 2)) / near.sum((1, 2))}
    columns["error elsewhere"] = (error * ~near).sum((1, 2)) / (~near).sum((1, 2))
    columns["edge contrast kept"] = (contrast(ours) * edge).sum((1, 2)) / (contrast(truth) * edge).sum((1, 2))
    return pd.DataFrame({name: values.double().numpy() for name, values in columns.items()})
