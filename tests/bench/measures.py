"""Measures of the benches: those that a lesson teaches, from its own cells, and a few more.

Tests and benches so run what a student reads.
"""

import ast
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor, nn

from helpers.color import ab_of
from helpers.data.hint_squares import Squares, fixed_squares, hints_of, squares_of
from helpers.evaluation import metrics

SHOWN = 80 / 128  # ab beyond which a histogram has one bin for all
NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def taught(lesson: str, *names: str) -> list[Callable]:
    """Return functions that the cells of a notebook define, which may use one another and what it imports."""
    scope, cells = {}, json.loads((NOTEBOOKS / f"{lesson}.ipynb").read_text(encoding="utf-8"))["cells"]
    setup, *sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    for part in [part for source in sources for part in ast.parse(source).body]:
        if isinstance(part, (ast.Import, ast.ImportFrom)) or getattr(part, "name", None) in names:
            exec(compile(ast.Module([part], []), lesson, "exec"), scope)
    return [scope[name] for name in names]


spread_colors, paste = taught("07_hints", "spread_colors", "paste")
spectrum, detail, compress, smaller = taught("09_super_resolution", "spectrum", "detail", "compress", "smaller")
pan, warping_error = taught("10_video", "pan", "warping_error")


def psnr_with(colorize: Callable[[Tensor], Tensor], photos: Tensor, squares: list[Squares], counts: Sequence[int]):
    """Return the PSNR in dB of uint8 photos (N, 3, H, W) with true colors at the first of their squares: (counts, N).

    colorize: returns the photos in color for hints (N, 3, H, W).
    """
    ab, truth = ab_of(photos) / 128, photos.float() / 255
    drawn = (hints_of(ab, [each[:count] for each in squares]) for count in counts)
    return torch.stack([metrics.psnr(colorize(hints).float() / 255, truth) for hints in drawn])


def hint_curve(generator: nn.Module, photos: Tensor, counts: Sequence[int]) -> pd.DataFrame:
    """Return the mean PSNR in dB on uint8 photos (N, 3, H, W) with each number of hints, true colors at fixed places.

    Columns: "network", its "gain" over no hint, and "no network", see `spread_colors`.
    """
    squares = squares_of(fixed_squares(len(photos), photos.shape[-2:], max(counts)))
    network = lambda hints: metrics.colorize_all(generator, photos, hints=hints)  # noqa: E731
    ours, spread = (
        psnr_with(way, photos, squares, counts).mean(1) for way in (network, lambda hints: spread_colors(photos, hints))
    )
    columns = {"network": ours, "gain": ours - ours[0], "no network": spread}
    return pd.DataFrame(columns, index=counts).rename_axis("hints")


def color_change(colors: Sequence[np.ndarray], gaps: Sequence[int] = (1, 2, 4), bins: int = 64) -> float:
    """Return how much the distribution of colors changes (CDC, Liu et al. 2021, 2110.04562): 0 for none.

    The mean Jensen-Shannon divergence of the histograms of a and of b between frames that are `gaps` apart. A good
    value is near the truth's, not near 0. colors: as in `warping_error`.
    """
    clipped = [np.clip(ab, -SHOWN, SHOWN) for ab in colors]
    tables = np.array([[np.histogram(ab[..., i], bins, (-SHOWN, SHOWN))[0] for i in (0, 1)] for ab in clipped], float)
    means = [jensenshannon(tables[:-gap], tables[gap:], axis=2) ** 2 for gap in gaps if gap < len(tables)]
    return float(np.mean([each.mean() for each in means])) if means else 0.0
