"""Hints that nobody has to look for: from a reference photo, and where the model asks for a color, which are likely."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_gradient_magnitude
from torch import Tensor

from helpers.color import rgb_to_L_ab
from helpers.data.photos import reduced, to_rgb, to_tensor
from helpers.inference.colorizer import Colorizer, render
from helpers.inference.user_hints import NO_HINTS, Hint, hint_maps, suggest_colors
from helpers.models.blocks import pad_to_stride
from helpers.models.geodesic import grid_of

SIDE = 256  # pixels on the shorter side of the photos that are matched
LEVELS = (2, 3, 4)  # of the encoder's feature maps: 1/8, 1/16 and 1/32
CELL = 8  # pixels on a side of a match
LIKE = 0.45  # cosine similarity from which places count as alike
MOST = 300  # matches
FEW = 0.03  # share of a photo's cells with a match; a reference with fewer is unrelated, and followed nowhere
SURE = 0.9  # weight of the best match; a clicked hint has 1
TRIED = 8  # for alternatives
PLACES = 256  # cells of the photo in which the model may ask
FLAT = 0.02  # standard deviation of L, in [-1, 1], of a photo that shows nothing to ask for
SHOWING = 0.85  # absolute L, in [-1, 1], above which a pixel is black or white, and shows no color
BORDER = 2.0  # pixels, as the network sees them, by which L is smoothed to find borders
RING = 512  # pixels on the longer side of a photo with rings, at least
NOTHING = "The model has no question: the photo is flat, black or white, or its hints decide every place."
DIFFERENT, SPREAD = 6.0, 0.05  # CIE units, and the share of pixels, by which two alternatives differ at least


@torch.inference_mode()
def descriptors(colorizer: Colorizer, L: Tensor) -> Tensor:
    """Return a unit vector for each cell of CELL pixels, (C, h, w), from the encoder's features of L (1, 1, H, W)."""
    rows, columns = (max(1, round(length / CELL)) for length in L.shape[-2:])  # padding would match padding
    with colorizer.accelerator.autocast():
        features = colorizer.generator.encoder(pad_to_stride(L).to(colorizer.accelerator.device))
    centered = [features[level].float() - features[level].float().mean((2, 3), keepdim=True) for level in LEVELS]
    maps = [F.normalize(F.interpolate(x, centered[0].shape[-2:], mode="bilinear"), dim=1) for x in centered]
    return F.normalize(torch.cat(maps, 1), dim=1)[0, :, :rows, :columns].cpu()


def match(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cells of two maps (C, h, w) that are each other's nearest neighbors: both numbers, and similarity.

    At most MOST, and only those above LIKE, the best first; none at all for fewer than FEW.
    """
    similarity = ours.flatten(1).T @ theirs.flatten(1)  # (HW, hw)
    best, partner = similarity.max(1)
    mutual = similarity.argmax(0)[partner] == torch.arange(len(partner))
    found = torch.nonzero(mutual & (best > LIKE))[:, 0]
    found = found[best[found].argsort(descending=True)[: MOST if len(found) >= FEW * len(best) else 0]]
    return found, partner[found], best[found]


def reference_hints(colorizer: Colorizer, photo: Any, reference: Any, follow: float = 1.0) -> Tensor:
    """Return hints (1, 3, h, w) for `hint_maps`: places that look like places of a reference photo get their colors.

    photo, reference: of any kind, see `to_rgb`; follow: 0 to 1, how much. Raises ValueError for a gray reference, and
    if the generator has no encoder of five levels or takes no hints.
    """
    return hints_like(colorizer, photo, encode_reference(colorizer, reference), follow)


def encode_reference(colorizer: Colorizer, reference: Any) -> tuple[Tensor, Tensor]:
    """Return a reference photo's descriptors (C, h, w) and colors (2, h, w); raises as `reference_hints` does."""
    if not colorizer.takes_hints:
        raise ValueError(NO_HINTS)
    L, ab = rgb_to_L_ab(to_tensor(reduced(to_rgb(reference), SIDE)))
    if ab.norm(dim=1).mean() * 128 < 2:
        raise ValueError("the reference photo has no colors to follow")
    theirs = descriptors(colorizer, L)
    return theirs, F.avg_pool2d(pad_to_stride(ab), CELL)[0, :, : theirs.shape[1], : theirs.shape[2]]


def hints_like(colorizer: Colorizer, photo: Any, reference: tuple[Tensor, Tensor], follow: float = 1.0) -> Tensor:
    """Return the hints of `reference_hints` for a reference from `encode_reference`, once for many photos."""
    ours = descriptors(colorizer, rgb_to_L_ab(to_tensor(reduced(to_rgb(photo), SIDE)))[0])
    cells, partners, similarity = match(ours, reference[0])
    hints = torch.zeros(3, ours.shape[1] * ours.shape[2])
    hints[:2, cells] = reference[1].flatten(1)[:, partners]
    hints[2, cells] = SURE * follow * ((similarity - LIKE) / (1 - LIKE)).clamp(0, 1).sqrt()
    return hints.view(1, 3, *ours.shape[1:])


@dataclass(frozen=True)
class Question:
    """A place of a photo whose color the model asks for.

    x and y in the photo's pixels from the upper left; colors: likely ones as "#rrggbb", the predicted one first; gain:
    share of the photo, 0 to 1, that an answer decides and no earlier one does; at: seconds into a film.
    """

    x: float
    y: float
    colors: list[str]
    gain: float
    at: float = 0.0


@torch.inference_mode()
def influence_of_places(colorizer: Colorizer, L: Tensor, hints: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return how much a hint in each of about PLACES cells decides in each of them, the cell of each pixel, and ab.

    L (1, 1, h, w), hints (1, 3, h, w); returns (cells, cells), 0 to 1, see `HintAttention.influence`, (h, w), and
    (2, h, w) in [-1, 1] with the hints followed.
    """
    generator, (height, width) = colorizer.generator, L.shape[-2:]
    L, *given = map(pad_to_stride, colorizer.inputs(L, hints))
    with colorizer.predicting, colorizer.accelerator.autocast():
        ab, maps = generator.decoded(L)
        ab = generator.hinted(L, ab, maps, *given) if given else ab
    grid = grid_of(L.shape[-2:], PLACES)
    cells = F.interpolate(torch.arange(float(grid[0] * grid[1])).view(1, 1, *grid), L.shape[-2:])
    influence = generator.hint_attention.influence(maps, L, grid).cpu()
    return influence, cells[0, 0, :height, :width].long(), ab[0, :, :height, :width].float().cpu()


def cover(influence: Tensor, worth: Tensor, left: Tensor, free: Tensor, count: int) -> list[tuple[int, Tensor]]:
    """Choose at most `count` cells, each for the most worth that it decides and earlier ones do not.

    influence: (cells, cells), how much a hint in one decides in another; worth, left (the share that is undecided),
    free (bool, whether it may be chosen): (cells,). Returns their numbers, each with what it newly decides (cells,).
    Greedy choice, at least 63% as good as the best (Nemhauser et al. 1978, doi 10.1007/BF01588971).
    """
    chosen = []
    for _ in range(min(count, int(free.sum()))):
        cell = int((influence @ (left * worth)).where(free, -1.0).argmax())
        chosen.append((cell, influence[cell] * left))
        left, free = left * (1 - influence[cell]), free & (torch.arange(len(free)) != cell)
    return chosen


def questions(
    colorizer: Colorizer, photo: Any, count: int = 5, hints: Sequence[Hint | np.ndarray | Tensor] = ()
) -> list[Question]:
    """Return at most `count` places of a photo where a color would help the model most, the best first.

    Each is chosen for what it decides beside the given hints and earlier questions; within its cell it lies away from
    borders. None lies in black or white, and a photo of one flat color gives none. photo: of any kind, see `to_rgb`;
    hints: see `hint_maps`. Raises ValueError if the generator takes no hints.
    """
    if not colorizer.takes_hints:
        raise ValueError(NO_HINTS)
    options, generator = colorizer.options(), colorizer.generator
    full, L, size = colorizer.prepare(photo, options)
    if L.std(correction=0) < FLAT:
        return []
    given = hint_maps(hints, size, L.shape[-2:])
    influence, cells, ab = influence_of_places(colorizer, L, given if len(hints) else None)
    showing, small, found = L[0, 0].abs() < SHOWING, reduced(full, options.input_size), []
    maps = showing.float(), given[:, 2:]
    pixels, hinted = (torch.bincount(cells.flatten(), x.flatten(), len(influence)).float() for x in maps)
    border = torch.from_numpy(gaussian_gradient_magnitude(L[0, 0].numpy(), BORDER)).where(showing, torch.inf)
    left, colored = (1 - influence[hinted > 0]).prod(0), render(small, ab)
    for cell, decided in cover(influence, pixels, left, (pixels > 0) & (hinted == 0), count):
        row, column = divmod(int(border.where(cells == cell, torch.inf).argmin()), border.shape[1])
        y, x = ((at + 0.5) * whole / less for at, whole, less in zip((row, column), size, border.shape, strict=True))
        colors = suggest_colors(generator, small, colored, column, row)
        found.append(Question(x, y, colors, (decided @ pixels / pixels.sum()).item()))
    return found


def ringed(photo: np.ndarray, places: Sequence[Question], first: int = 1) -> np.ndarray:
    """Return a photo (H, W, 3) with a ring around each place, numbered from `first` on, enlarged if it is small."""
    share = max(1.0, RING / max(photo.shape))
    shown = cv2.resize(photo, None, fx=share, fy=share, interpolation=cv2.INTER_CUBIC)
    radius = max(8, min(shown.shape[:2]) // 30)
    for number, place in enumerate(places, first):
        x, y = round(place.x * share), round(place.y * share)
        corner = min(x + radius, shown.shape[1] - 2 * radius), max(y - radius // 2, 2 * radius)
        for color, width in (((0,) * 3, radius // 2), ((255,) * 3, radius // 6)):  # white in black: seen everywhere
            cv2.circle(shown, (x, y), radius, color, width, cv2.LINE_AA)
            cv2.putText(shown, str(number), corner, cv2.FONT_HERSHEY_SIMPLEX, radius / 11, color, width, cv2.LINE_AA)
    return shown


def alternatives(colorizer: Colorizer, photo: Any, count: int = 4) -> list[list[Hint]]:
    """Return up to `count` colorizations of a photo as lists of hints; the first, empty, is the automatic one.

    Where the model would ask, a likely color becomes a hint. Two alternatives differ by DIFFERENT on a SPREAD of the
    photo. Give one to the colorizer: `colorizer(photo, alternatives[1])`.
    """
    options = colorizer.options()
    full, L, size = colorizer.prepare(photo, options)
    chosen, looks = [[]], [colorizer.predict_colors(L, options)]
    asked = questions(colorizer, full, TRIED)
    likeliest_first = (Hint(q.x, q.y, color) for rank in range(1, 9) for q in asked for color in q.colors[rank:][:1])
    for hint in likeliest_first:
        if len(chosen) == count:
            break
        look = colorizer.predict_colors(L, options, [hint], size)
        if all((128 * (look - other).norm(dim=0) > DIFFERENT).float().mean() > SPREAD for other in looks):
            chosen.append([hint])
            looks.append(look)
    return chosen
