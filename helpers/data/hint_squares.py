"""Color hints as maps: simulated for training, at fixed places to measure with.

A hint says what color a small square of a photo has (Zhang et al. 2017, arXiv 1705.02999). Hints are maps
(N, 3, H, W): ab in [-1, 1] where a color was said and 0 elsewhere, and a mask, 1 where one was said.
"""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from helpers.color import ab_of

Squares = list[tuple[int, int, int]]  # top, left and side, in pixels


def draw_squares(
    height: int, width: int, stop: float = 1 / 8, largest: int = 9, centered: float = 0.5, spread: float = 1 / 4
) -> Squares:
    """Draw the places of one photo's hints, as Zhang et al. 2017 do; how many is geometric, often none.

    stop: chance that no further hint follows; largest: side of the largest square; centered: share of the photos whose
    hints lie around the center, with a standard deviation of `spread` of the sides; elsewhere they lie anywhere.
    """
    squares, around = [], torch.rand(()) < centered
    while torch.rand(()) >= stop:
        side = int(torch.randint(1, min(largest, height, width) + 1, ()))
        place = 0.5 + spread * torch.randn(2) if around else torch.rand(2)
        top, left = (place.clamp(0, 1) * torch.tensor([height - side, width - side])).round().int().tolist()
        squares.append((top, left, side))
    return squares


def hints_of(ab: Tensor, squares: Sequence[Squares]) -> Tensor:
    """Return the hints (N, 3, H, W) that say of each photo's squares which color they have in the mean.

    ab: (N, 2, H, W) in [-1, 1]; squares: a list for each photo.
    """
    hints = ab.new_zeros(len(ab), 3, *ab.shape[-2:])
    for i, places in enumerate(squares):
        for top, left, side in places:
            rows, columns = slice(top, top + side), slice(left, left + side)
            hints[i, :2, rows, columns] = ab[i, :, rows, columns].mean((1, 2), keepdim=True)
            hints[i, 2, rows, columns] = 1
    return hints


def fixed_squares(photos: int, size: tuple[int, int], count: int = 100, side: int = 6, seed: int = 0) -> pd.DataFrame:
    """Return the places of hints to measure with, anywhere in the photos, always the same: a table, a row a hint.

    Columns: photo (its number), top, left and side in pixels of photos of `size` (H, W). The first k of a photo are its
    places for k hints, so that a curve over k is one of adding hints.
    """
    chance, (height, width) = torch.Generator().manual_seed(seed), size
    free = torch.tensor([height - side + 1, width - side + 1])
    places = (torch.rand(photos, count, 2, generator=chance) * free).int().flatten(0, 1)
    table = pd.DataFrame(places.numpy(), columns=["top", "left"])
    table.insert(0, "photo", torch.arange(photos).repeat_interleave(count).numpy())
    return table.assign(side=side)


def fixed_hints(photos: Tensor, table: pd.DataFrame, count: int) -> Tensor:
    """Return hints (N, 3, H, W) of true colors at the first `count` places that a table has of each of uint8 photos."""
    first = table.groupby("photo").head(count)
    squares = [[] for _ in photos]
    for photo, *square in first[["photo", "top", "left", "side"]].itertuples(index=False):
        squares[photo].append(tuple(square))
    return hints_of(ab_of(photos) / 128, squares)
