"""Measures that one notebook explains and the benches use too: hints, detail, films."""

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor, nn

from helpers.color import rgb_to_L_ab
from helpers.data.hint_squares import fixed_hints, fixed_squares
from helpers.evaluation import metrics
from helpers.inference.steadying import warp

SHOWN = 80 / 128  # ab beyond which a histogram has one bin for all


def spread_colors(photos: Tensor, hints: Tensor, near: float = 0.2, alike: float = 10.0) -> Tensor:
    """Colorize photos from hints without a network: each pixel takes the mean of the hints' colors, weighted.

    photos: uint8 (N, 3, H, W), returned in color; hints: (N, 3, H, W). A hint weighs the more, the nearer it is
    (`near`: a standard deviation, of the side) and the more alike its lightness (`alike`: another, in CIE units).
    """
    L = rgb_to_L_ab(photos.float() / 255)[0]
    rows, columns = (torch.arange(length) / min(L.shape[-2:]) for length in L.shape[-2:])
    colored = []
    for lightness, hint in zip(L, hints, strict=True):
        top, left = hint[2].nonzero()[::9].T  # one pixel in nine says all that a square has to say
        distance = (rows[:, None] - rows[top, None, None]).square() + (columns - columns[left, None, None]).square()
        differ = (50 * (lightness - lightness[0, top, left][:, None, None])).square()
        weight = torch.exp(-distance / (2 * near**2) - differ / (2 * alike**2)) + 1e-6
        colored.append(torch.einsum("khw,ck->chw", weight / weight.sum(0), hint[:2, top, left]))
    return metrics.as_photos(L, torch.stack(colored))


def hint_curve(
    generator: nn.Module, photos: Tensor, counts: Sequence[int], device: torch.device | str = "cpu"
) -> pd.DataFrame:
    """Return the mean PSNR in dB on uint8 photos (N, 3, H, W) with each number of hints, true colors at fixed places.

    Columns: "network", its "gain" over no hint, and "no network", see `spread_colors`.
    """
    table, truth = fixed_squares(len(photos), photos.shape[-2:], max(counts)), photos.float() / 255

    def _psnr(colored):
        return metrics.psnr(colored.float() / 255, truth).mean().item()

    rows = {}
    for count in counts:
        hints = fixed_hints(photos, table, count)
        rows[count] = {"network": _psnr(metrics.colorize_all(generator, photos, device, hints=hints))}
        rows[count]["no network"] = _psnr(spread_colors(photos, hints))
    curve = pd.DataFrame(rows).T.rename_axis("hints")
    curve.insert(1, "gain", curve["network"] - curve["network"].iloc[0])
    return curve


def spectrum(photos: Tensor, bins: int = 64) -> Tensor:
    """Return the mean energy of Y in rings of equal frequency: (bins,), from 0 to half the sampling rate.

    photos: (N, 3, H, W) in [0, 1]. A Hann window keeps the borders from looking like detail.
    """
    Y = metrics.luma(photos) - metrics.luma(photos).mean((1, 2), keepdim=True)
    window = torch.hann_window(Y.shape[1])[:, None] * torch.hann_window(Y.shape[2])
    energy = torch.fft.rfft2(Y * window).abs().square().mean(0)
    rows, columns = torch.fft.fftfreq(Y.shape[1]), torch.fft.rfftfreq(Y.shape[2])
    frequency = (rows[:, None].square() + columns.square()).sqrt()
    inside = frequency < 0.5
    ring = (frequency[inside] * 2 * bins).long()
    return torch.zeros(bins).index_add_(0, ring, energy[inside])


def detail(photos: Tensor) -> float:
    """Return the share of the energy of Y that lies above a quarter of the sampling rate; (N, 3, H, W) in [0, 1]."""
    rings = spectrum(photos)
    return (rings[len(rings) // 2 :].sum() / rings.sum()).item()


def pan(
    photo: np.ndarray,
    count: int = 48,
    size: tuple[int, int] = (180, 320),
    shift: tuple[float, float] = (2.0, 0.7),
    zoom: float = 0.003,
    turn: float = 0.2,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return a film of a photo (H, W, 3) that a camera moves over, frames (h, w, 3), and its motion.

    size: h and w; shift: pixels a frame, right and down; zoom: share a frame; turn: degrees a frame. The motion is, for
    each frame but the first, where its pixels were in the one before: (h, w, 2), exact.
    """
    views, (height, width) = [], size
    for i in range(count):
        view = cv2.getRotationMatrix2D((width / 2, height / 2), turn * i, 1 / (1 + zoom * i))
        view[:, 2] += np.array(photo.shape[1::-1]) / 2 - np.array([width, height]) / 2
        view[:, 2] += np.array(shift) * (i - count / 2)
        views.append(view)
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    frames = [cv2.warpAffine(photo, view, (width, height), flags=how, borderMode=cv2.BORDER_REFLECT) for view in views]
    places, flows = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=2).astype(float), []
    for before, now in zip(views[:-1], views[1:], strict=True):
        back = cv2.invertAffineTransform(before)
        seen = cv2.transform(cv2.transform(places, now), back)
        flows.append((seen - places).astype(np.float32))
    return frames, flows


def warping_error(colors: Sequence[np.ndarray], flows: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> float:
    """Return the mean squared change of ab along the motion, where nothing is occluded (Lai et al. 2018, 1808.00449).

    colors: ab (h, w, 2), float32, frame by frame; flows (h, w, 2): from each frame but the first to the one before;
    masks (h, w): 1 where that is known, 0 elsewhere.
    """
    total = seen = 0.0
    for before, now, flow, mask in zip(colors[:-1], colors[1:], flows, masks, strict=True):
        total += float((np.square(now - warp(before, flow)).sum(2) * mask).sum())
        seen += float(mask.sum())
    return total / max(seen, 1.0)


def color_change(colors: Sequence[np.ndarray], gaps: Sequence[int] = (1, 2, 4), bins: int = 64) -> float:
    """Return how much the distribution of colors changes (CDC, Liu et al. 2021, 2110.04562): 0 for none.

    The mean Jensen-Shannon divergence of the histograms of a and of b between frames that are `gaps` apart. Not small
    is good, but near to the truth's. colors: as in `warping_error`.
    """
    clipped = [np.clip(ab, -SHOWN, SHOWN) for ab in colors]
    tables = np.array([[np.histogram(ab[..., i], bins, (-SHOWN, SHOWN))[0] for i in (0, 1)] for ab in clipped], float)
    means = []
    for gap in gaps:
        if gap < len(tables):
            means.append(np.square(jensenshannon(tables[:-gap], tables[gap:], axis=2)).mean())
    return float(np.mean(means)) if means else 0.0
