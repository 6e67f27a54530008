"""Colour for every pixel from a small prediction: sharp or smooth, and no colour that a screen cannot show."""

from functools import lru_cache

import torch

from helpers.color import L_ab_to_raw_rgb, L_ab_to_rgb

KERNELS = {  # of x in pixels of the small image, and how many pixels to either side they reach
    "bilinear": (lambda x: (1 - x.abs()).clamp(min=0), 1),
    "lanczos": (lambda x: torch.sinc(x) * torch.sinc(x / 3) * (x.abs() < 3), 3),
}
ENLARGED = 1.25  # from here on the blur is undone; nearer to 1 that would raise noise tenfold, for little
WAYS = ("auto", "sharp", "smooth", "bilinear")
CLEAN = 0.65  # grain up to which a prediction is worth sharpening: all of Kodak24's true colours are below it


def interpolation(large, small, kernel="lanczos"):
    """Return the matrix (large, small) that enlarges a row of `small` numbers to `large`; edges are repeated."""
    function, reach = KERNELS[kernel]
    place = (torch.arange(large, dtype=torch.float64) + 0.5) * small / large - 0.5
    taps = place.floor().long()[:, None] + torch.arange(1 - reach, reach + 1)
    weights = function(place[:, None] - taps)
    weights = weights / weights.sum(1, keepdim=True)
    return torch.zeros(large, small, dtype=torch.float64).scatter_add_(1, taps.clamp(0, small - 1), weights)


def averaging(small, large):
    """Return the matrix (small, large) that reduces a row by averaging what each small pixel covers."""
    edges = torch.arange(small + 1, dtype=torch.float64) * large / small
    cells = torch.arange(large, dtype=torch.float64)
    covered = torch.minimum(edges[1:, None], cells + 1) - torch.maximum(edges[:-1, None], cells)
    return covered.clamp(min=0) * small / large


def grain(L, ab):
    """Say how much of what alternates in a prediction from pixel to pixel is the network's pattern, and no detail.

    L (1, h, w) and ab (2, h, w) in [-1, 1]. Networks that double their maps leave such a pattern everywhere (Odena et
    al. 2016); true colours alternate where lightness does. Returns the mean alternation over the half of the pixels
    where lightness is most even, as a share of that over the other half: about 0.4 for true colours, near 1 for a
    pattern.
    """
    if min(L.shape[-2:]) < 4:
        return 0.0
    uneven, changes = alternation(L)[0], torch.hypot(*alternation(ab))
    even = uneven <= uneven.median()
    return (changes[even].mean() / changes[~even].mean().clamp(min=1e-6)).item() if not even.all() else 0.0


def way_for(L, ab, way="auto"):
    """Return the way to enlarge a prediction, see `grain`: a given one, or for "auto" the one that suits it."""
    return way if way != "auto" else "sharp" if grain(L, ab) <= CLEAN else "smooth"


def alternation(maps):
    """Return how far each inner pixel of maps (C, h, w) is from the mean of its neighbours: (C, h - 2, w - 2)."""
    rows = maps.diff(n=2, dim=-2)[..., 1:-1]
    columns = maps.diff(n=2, dim=-1)[..., 1:-1, :]
    return (rows.abs() + columns.abs()) / 8


class Enlarger:
    """Enlarge maps from a size (h, w) to another (H, W), a strip of rows at a time.

    way: "sharp" is Lanczos's kernel, and exact: averaged over what each small pixel covers, it gives the small map
    again (back-projection, Irani and Peleg 1991; here solved at once, row by row). "bilinear" is plain; "smooth" is
    that after averaging neighbours with the weights 1, 2, 1, which takes away what alternates from pixel to pixel.
    """

    def __init__(self, small, large, way="sharp"):
        self.pairs = [_matrices(less, more, way) for less, more in zip(small, large, strict=True)]

    def prepare(self, maps):
        """Return what `rows` wants of small maps (C, h, w)."""
        (_, rows_before), (columns, columns_before) = self.pairs
        return rows_before @ maps @ columns_before.T @ columns.T

    def rows(self, prepared, start, stop):
        """Return rows start to stop of the large maps: (C, stop - start, W)."""
        return self.pairs[0][0][start:stop] @ prepared


@lru_cache(maxsize=4)  # photos of a folder often have one size
def _matrices(less, more, way):
    """Return the matrix (more, less) that enlarges, and the one (less, less) to be applied before it."""
    before = torch.eye(less)
    if way == "sharp":
        matrix = interpolation(more, less, "lanczos")
        if more >= ENLARGED * less:
            before = torch.linalg.inv(averaging(less, more) @ matrix).float()
        return matrix.float(), before
    if way == "smooth":
        neighbours = (torch.arange(less)[:, None] + torch.tensor([-1, 0, 0, 1])).clamp(0, less - 1)
        before = torch.zeros(less, less).scatter_add_(1, neighbours, torch.full(neighbours.shape, 0.25))
    return interpolation(more, less, "bilinear").float(), before


def enlarge(maps, size, way="sharp"):
    """Return maps (C, h, w) at a size (H, W), see `Enlarger`."""
    enlarger = Enlarger(maps.shape[-2:], size, way)
    return enlarger.rows(enlarger.prepare(maps), 0, size[0])


def into_gamut(L, ab):
    """Reduce the chroma of colours that no screen can show, and leave lightness and hue alone.

    L (N, 1, H, W) and ab (N, 2, H, W) in [-1, 1]; returns ab, with the largest share of each colour that sRGB holds.
    """
    raw = L_ab_to_raw_rgb(L, ab)
    outside = ((raw < -1e-4) | (raw > 1 + 1e-4)).any(1, keepdim=True)
    if not outside.any():
        return ab
    L_out = L[outside].view(-1, 1, 1, 1)
    ab_out = torch.stack([ab[:, :1][outside], ab[:, 1:][outside]], dim=1).view(-1, 2, 1, 1)
    low, high = torch.zeros_like(L_out), torch.ones_like(L_out)
    for _ in range(10):  # halving: the share is known to a thousandth then
        middle = (low + high) / 2
        raw = L_ab_to_raw_rgb(L_out, ab_out * middle)
        inside = ((raw >= -1e-4) & (raw <= 1 + 1e-4)).all(1, keepdim=True)
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    share = torch.ones_like(L)
    share[outside] = low.flatten()
    return ab * share


def paint(L, ab):
    """Return uint8 photos (N, 3, H, W) of L (N, 1, H, W) and ab (N, 2, H, W) in [-1, 1], brought into gamut."""
    return (L_ab_to_rgb(L, into_gamut(L, ab)) * 255).round().byte()
