"""Which colors are likely where a network predicts one: counted on photos, without another network."""

import torch
from torch import Tensor, nn

from helpers.color import rgb_to_L_ab

CELL = 8  # CIE units of predicted ab that share a list of likely colors
SQUARE = 10  # CIE units on a side of the squares in which true colors are counted
OWN, APART = 12, 12.5  # CIE units by which likely colors differ from the predicted one, and from each other
STEPS, LIGHTS = 21, 6  # cells of a palette along a and b, and along L
PALETTE = (STEPS * STEPS * LIGHTS, 8, 3)  # in each cell eight times: ab in [-1, 1], and share of the cell's pixels


def cells_of(L: Tensor, ab: Tensor) -> Tensor:
    """Return the numbers of the palette's cells for L (N, 1, H, W) and predicted ab (N, 2, H, W): (N, H, W)."""
    a, b = (ab * 128 / CELL + STEPS // 2).round().long().clamp(0, STEPS - 1).unbind(1)
    return (a * STEPS + b) * LIGHTS + ((L[:, 0] + 1) / 2 * (LIGHTS - 0.01)).long()


def likely_colors(palette: Tensor, L: Tensor, ab: Tensor) -> Tensor:
    """Return a palette's colors for each pixel of L (N, 1, H, W) and predicted ab (N, 2, H, W): (N, H, W, 8, 3).

    The most likely first, each an ab in [-1, 1] and its share of the training pixels with that prediction; that of the
    prediction itself is not among them.
    """
    return palette[cells_of(L, ab)]


def expected_error(palette: Tensor, L: Tensor, ab: Tensor) -> Tensor:
    """Return how far the likely colors are from the predicted ones in the mean, in CIE units: (N, H, W).

    A map of where the network is unsure: too sure on photos unlike those that were counted.
    """
    found = likely_colors(palette, L, ab)
    distance = 128 * (found[..., :2] - ab.movedim(1, -1)[..., None, :]).norm(dim=-1)
    return (distance * found[..., 2]).sum(-1)


def most_likely(counts: Tensor) -> Tensor:
    """Return the palette of counts (cells, squares of ab): one color after another, each with most pixels near it."""
    axes = (torch.arange(27.0) - 13) * SQUARE, (torch.arange(float(STEPS)) - STEPS // 2) * CELL
    squares, own = (torch.cartesian_prod(axis, axis) for axis in axes)
    own = own.repeat_interleave(LIGHTS, 0)  # the predicted color of each cell
    total, left = counts.sum(1, keepdim=True), counts * (torch.cdist(own, squares) >= OWN)
    distance = torch.cdist(squares, squares)
    around, found = (distance < 1.01 * SQUARE).float(), []
    for _ in range(PALETTE[1]):
        best = (left @ around).argmax(1)
        near = left * around[best]
        mean = near @ squares / near.sum(1, keepdim=True).clamp(min=1e-9)
        gone = distance[best] < APART
        found.append(torch.cat([mean / 128, (left * gone).sum(1, keepdim=True) / total], 1))
        left = left * ~gone
    return torch.stack(found, 1)


@torch.no_grad()
def count_colors(generator: nn.Module, photos: Tensor) -> Tensor:
    """Return which colors photos, uint8 (N, 3, H, W), have where a generator predicts one: of shape PALETTE.

    Predictions that no photo has fall back to the most common colors of all.
    """
    counts, device = torch.zeros(PALETTE[0], 27 * 27), next(generator.parameters()).device
    training = generator.training
    generator.eval()
    for part in photos.split(32):
        L, true = rgb_to_L_ab(part.to(device).float() / 255)
        cell = cells_of(L, generator(L).float())
        a, b = (true * 128 / SQUARE + 13).round().long().clamp(0, 26).unbind(1)
        found = (cell * 729 + a * 27 + b).flatten().cpu()
        counts.view(-1).index_add_(0, found, torch.ones(len(found)))
    generator.train(training)
    return most_likely(counts + counts.sum(0) / counts.sum())
