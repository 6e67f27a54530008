"""Hints that nobody has to click: from a reference photo, or from colors that are likely at uncertain places."""

from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.color import ab_of, rgb_to_L_ab
from helpers.data.photos import reduced, to_rgb, to_tensor
from helpers.inference.colorizer import Colorizer
from helpers.inference.user_hints import NO_HINTS, Hint, ab_of_color, likely_colors
from helpers.models.blocks import pad_to_stride

SIDE = 256  # pixels on the shorter side of the photos that are matched
LEVELS = (2, 3, 4)  # of the encoder's feature maps: 1/8, 1/16 and 1/32
CELL = 8  # pixels on a side of a match
LIKE = 0.45  # cosine similarity from which places count as alike
MOST = 300  # matches
FEW = 0.03  # share of a photo's cells with a match; a reference with fewer is unrelated, and followed nowhere
SURE = 0.9  # weight of the best match; a clicked hint has 1
GRID = 7  # places along each side that answers are looked for at
DIFFERENT, SPREAD = 6.0, 0.05  # CIE units, and the share of pixels, by which two answers differ at least


@torch.inference_mode()
def descriptors(colorizer: Colorizer, L: Tensor) -> Tensor:
    """Return a unit vector for each cell of CELL pixels, (C, h, w), from the encoder's features of L (1, 1, H, W)."""
    rows, columns = (max(1, round(length / CELL)) for length in L.shape[-2:])  # padding would match padding
    with colorizer.accelerator.autocast():
        features = colorizer.generator.encoder(pad_to_stride(L).to(colorizer.accelerator.device))
    size, maps = features[LEVELS[0]].shape[-2:], []
    for level in LEVELS:
        centered = features[level].float() - features[level].float().mean((2, 3), keepdim=True)
        maps.append(F.normalize(F.interpolate(centered, size, mode="bilinear"), dim=1))
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
    return hints_like(colorizer, photo, described(colorizer, reference), follow)


def described(colorizer: Colorizer, reference: Any) -> tuple[Tensor, Tensor]:
    """Return a reference photo's descriptors (C, h, w) and colors (2, h, w); raises as `reference_hints` does."""
    if not colorizer.takes_hints:
        raise ValueError(NO_HINTS)
    L, ab = rgb_to_L_ab(to_tensor(reduced(to_rgb(reference), SIDE)))
    if ab.norm(dim=1).mean() * 128 < 2:
        raise ValueError("the reference photo has no colors to follow")
    theirs = descriptors(colorizer, L)
    return theirs, F.avg_pool2d(pad_to_stride(ab), CELL)[0, :, : theirs.shape[1], : theirs.shape[2]]


def hints_like(colorizer: Colorizer, photo: Any, reference: tuple[Tensor, Tensor], follow: float = 1.0) -> Tensor:
    """Return the hints of `reference_hints` for a reference that is `described` already, once for many photos."""
    ours = descriptors(colorizer, rgb_to_L_ab(to_tensor(reduced(to_rgb(photo), SIDE)))[0])
    theirs, colors = reference
    cells, partners, similarity = match(ours, theirs)
    hints = torch.zeros(3, ours.shape[1] * ours.shape[2])
    hints[:2, cells] = colors.flatten(1)[:, partners]
    hints[2, cells] = SURE * follow * ((similarity - LIKE) / (1 - LIKE)).clamp(0, 1).sqrt()
    return hints.view(1, 3, *ours.shape[1:])


def answers(colorizer: Colorizer, photo: Any, count: int = 4) -> list[list[Hint]]:
    """Return up to `count` colorizations of a photo as lists of hints; the first, empty, is the automatic one.

    Where the palette's likely colors differ most from the predicted one, one of them becomes a hint. Two answers differ
    by DIFFERENT on a SPREAD of the photo. Give one to the colorizer: `colorizer(photo, answers[1])`.
    """
    full = to_rgb(photo)
    small = reduced(full, 128)
    share, colored, candidates = len(full) / len(small), colorizer(small), []
    places = (np.linspace(0, length - 1, GRID + 2)[1:-1].astype(int).tolist() for length in small.shape[:2])
    for y, x in product(*places):
        own, *likely = likely_colors(colorizer.generator, small, colored, x, y)
        for color in likely:
            distance = 128 * (ab_of_color(color) - ab_of_color(own)).norm().item()
            candidates.append((abs(distance - 18), x, y, color))  # different, and still plausible
    chosen, looks = [[]], [ab_of(torch.from_numpy(colored).permute(2, 0, 1)[None])[0]]
    for _, x, y, color in sorted(candidates)[:40]:
        if len(chosen) == count:
            break
        look = ab_of(torch.from_numpy(colorizer(small, [Hint(x, y, color)])).permute(2, 0, 1)[None])[0]
        if all(((look - other).norm(dim=0) > DIFFERENT).float().mean() > SPREAD for other in looks):
            chosen.append([Hint(x * share, y * share, color)])
            looks.append(look)
    return chosen
