"""How steady the colors of a film are: along its motion, and in their distribution. Gray has no flicker at all."""

from collections.abc import Sequence

import cv2
import numpy as np
from scipy.spatial.distance import jensenshannon

from helpers.data.flow import warp

SHOWN = 80 / 128  # ab beyond which a histogram has one bin for all


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
