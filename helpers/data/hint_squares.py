"""Color hints as maps: simulated for training, at fixed places to measure with.

A hint says what color a small square of a photo has (Zhang et al. 2017, arXiv 1705.02999). Hints are maps
(N, 3, H, W): ab in [-1, 1] where a color was said and 0 elsewhere, and a mask, 1 where one was said.
"""

from collections.abc import Sequence

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.color import ab_of

Squares = Sequence[Sequence[int]]  # top, left and side of each, in pixels


def draw_squares(
    height: int, width: int, stop: float = 1 / 8, largest: int = 9, centered: float = 0.5, spread: float = 1 / 4
) -> Squares:
    """Draw the places of one photo's hints, as Zhang et al. 2017 do; how many is geometric, often none.

    stop: chance that no further hint follows; largest: side of the largest square; centered: share of the photos whose
    hints lie around the center, with a standard deviation of `spread` of the sides; elsewhere they lie anywhere.
    """
    count, around = int(torch.empty(()).geometric_(stop)) - 1, torch.rand(()) < centered
    side = torch.randint(1, min(largest, height, width) + 1, (count, 1))
    place = (0.5 + spread * torch.randn(count, 2)).clamp(0, 1) if around else torch.rand(count, 2)
    corner = (place * (torch.tensor([height, width]) - side)).round().int()
    return torch.cat([corner, side], 1).tolist()


def hints_of(ab: Tensor, squares: Sequence[Squares]) -> Tensor:
    """Return the hints (N, 3, H, W) that say of each photo's squares which color they have in the mean.

    ab: (N, 2, H, W) in [-1, 1]; squares: for each photo, within it; where two overlap, the later one counts. All are
    drawn at once, on ab's device; the result does not depend on the order in which a GPU works.
    """
    photos, _, height, width = ab.shape
    rows = [(photo, *square) for photo, places in enumerate(squares) for square in places]  # K of them
    table = torch.tensor(rows, dtype=torch.long).view(-1, 4).to(ab.device, non_blocking=True)
    photo, top, left, side = table.T[..., None]  # (K, 1) each
    step = torch.arange(max((row[3] for row in rows), default=1), device=ab.device)  # (S,), S: the largest side
    inside = (step < side)[:, :, None] & (step < side)[:, None]  # (K, S, S)
    pixel = ((top + step)[:, :, None] * width + (left + step)[:, None]) * inside  # its number in the photo
    place = photo[..., None], slice(None), pixel
    color = (ab.flatten(2)[place] * inside[..., None]).sum((1, 2)) / side.square()  # (K, 2)
    said = F.pad(F.pad(color, (0, 1), value=1.0), (0, 0, 1, 0))  # (1 + K, 3): a, b and mask; 0 says nothing
    number = torch.arange(1, len(rows) + 1, device=ab.device).view(-1, 1, 1) * inside
    last = torch.zeros(photos, height * width, dtype=torch.long, device=ab.device)  # the square that counts here
    last.view(-1).scatter_reduce_(0, (photo[..., None] * last.shape[1] + pixel).flatten(), number.flatten(), "amax")
    hints = ab.new_zeros(photos, 3, height * width)
    hints[place] = said[last[photo[..., None], pixel]]
    return hints.unflatten(2, (height, width))


def fixed_squares(photos: int, size: tuple[int, int], count: int = 100, side: int = 6, seed: int = 0) -> pd.DataFrame:
    """Return the places of hints to measure with, anywhere in the photos, always the same: a table, a row a hint.

    Columns: photo (its number), top, left and side in pixels of photos of `size` (H, W). The first k of a photo are its
    places for k hints, so that a curve over k is one of adding hints.
    """
    chance, (height, width) = torch.Generator().manual_seed(seed), size
    free = torch.tensor([height - side + 1, width - side + 1])
    top, left = (torch.rand(photos, count, 2, generator=chance) * free).int().flatten(0, 1).T.numpy()
    photo = torch.arange(photos).repeat_interleave(count).numpy()
    return pd.DataFrame({"photo": photo, "top": top, "left": left, "side": side})


def squares_of(table: pd.DataFrame) -> list[Squares]:
    """Return the squares of a table of `fixed_squares`, a list for each photo."""
    return [rows[["top", "left", "side"]].to_numpy().tolist() for _, rows in table.groupby("photo")]


def fixed_hints(photos: Tensor, table: pd.DataFrame, count: int) -> Tensor:
    """Return hints (N, 3, H, W) of true colors at the first `count` places that a table has of each of uint8 photos."""
    return hints_of(ab_of(photos) / 128, [squares[:count] for squares in squares_of(table)])
