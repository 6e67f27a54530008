"""The frontier: a colorizer as a curve, its error against its colorfulness while its saturation is turned up."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from helpers.color import to_photo
from helpers.data.batches import Batches, Device
from helpers.evaluation import metrics

SATURATIONS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


@torch.no_grad()
def frontier(
    colorize: Callable, photos: Tensor, device: Device = "cpu", perceptual: nn.Module | None = None
) -> pd.DataFrame:
    """Return how a colorizer does on photos when its ab is multiplied by each of SATURATIONS; index: saturation.

    colorize: a function of L (N, 1, H, W), such as a generator in evaluation mode; photos: uint8 (N, 3, H, W). Columns:
    the means of `metrics.measure_all`, and "of truth" (colorfulness as a share of the truth's). Saturation 0 is gray.
    What is better in one column is often worse in another (perception against distortion, Blau and Michaeli 2018,
    arXiv 1711.06077), so models are compared at equal colorfulness: the better curve lies above.
    """
    predicted = [(batch.L, colorize(batch.L)) for batch in Batches(photos, 16, device)]
    rows = {}
    for saturation in SATURATIONS:
        colored = torch.cat([to_photo(L, saturation * ab) for L, ab in predicted])
        rows[saturation] = metrics.measure_all(colored, photos, perceptual, device, with_ssim=False).mean()
    table = pd.DataFrame(rows).T.rename_axis("saturation")
    return table.assign(**{"of truth": table["colorfulness"] / table["truth"]})


def at_share(curve: pd.DataFrame, share: float, metric: str = "PSNR") -> float:
    """Return a metric of a frontier where its colorfulness is a share of the truth's; NaN beyond its most colorful."""
    reached = curve["of truth"].to_numpy()
    return float(np.interp(share, reached, curve[metric], right=np.nan))


def gain(curve: pd.DataFrame, share: float = 0.75) -> float:
    """Return the gain over gray in dB at a share of the truth's colorfulness: one number for tables."""
    return at_share(curve, share) - curve["PSNR"].iloc[0]


def over_slider(curve: pd.DataFrame, slider: pd.DataFrame) -> float:
    """Return by how many dB a model lies above another one's curve, at its own saturation 1: equal colorfulness.

    slider: the warmup's curve, say. What a saturation slider on the warmup can do is no merit of what came after.
    """
    return float(curve.loc[1.0, "PSNR"] - at_share(slider, curve.loc[1.0, "of truth"]))
