"""A trained generator that also takes color hints."""

import torch
from torch import Tensor, nn

from helpers.data.batches import Batches
from helpers.models.generator import PALETTE, arguments_of

HINT_PARTS = ("hint_convs.", "hint_attention.", "palette")  # of a generator's state dict


def with_hints(generator: nn.Module, photos: Tensor | None = None) -> nn.Module:
    """Return a trained generator that also takes hints; without hints its colors are the same, and stay the same.

    The trained weights are frozen, and the new hint layers are to be learned. photos: uint8 (N, 3, H, W), to propose
    their common colors. Raises ValueError for a network that is not built like a `Generator` with hints=True.
    """
    known = {key: value for key, value in generator.state_dict().items() if not key.startswith(HINT_PARTS)}
    try:
        again = type(generator)(**arguments_of(generator) | {"weights": None, "hints": True})
        if other := [key for key in again.load_state_dict(known, strict=False)[0] if not key.startswith(HINT_PARTS)]:
            raise TypeError(f"it has no {', '.join(other[:3])}")
    except (RuntimeError, TypeError) as error:
        name = type(generator).__name__
        raise ValueError(f"{name} cannot take hints, as a Generator and its subclasses can: {error}") from error
    if photos is not None:
        again.palette.copy_(common_colors(photos))
    for key, parameter in again.named_parameters():
        parameter.requires_grad_(key.startswith(HINT_PARTS))
    again.trained_size = getattr(generator, "trained_size", None)
    return again.train(generator.training)


def common_colors(photos: Tensor, apart: int = 2) -> Tensor:
    """Return the most common colors by height in the photo and lightness: ab in [-1, 1], of shape PALETTE.

    photos: uint8 (N, 3, H, W). Colors are counted in squares of 10 CIE units; of two squares closer than `apart`, only
    the more common one is used.
    """
    heights, lights, colors, _ = PALETTE
    counts = torch.zeros(heights * lights, 27 * 27)
    for batch in Batches(photos, 64):
        rows = torch.linspace(0, heights - 0.01, batch.L.shape[-2]).long().view(1, -1, 1)
        cell = rows * lights + ((batch.L[:, 0] + 1) / 2 * (lights - 0.01)).long()  # (N, H, W)
        a, b = (batch.ab * 12.8 + 13).round().long().clamp(0, 26).unbind(1)
        counts.view(-1).index_add_(0, (cell * 729 + a * 27 + b).flatten(), torch.ones(cell.numel()))
    counts += counts.sum(0) / counts.sum()  # cells with few colors fall back to the most common ones of all
    square = torch.cartesian_prod(torch.arange(27), torch.arange(27))
    palette = torch.zeros(heights * lights, colors, 2)
    for left, found in zip(counts, palette, strict=True):
        for i in range(colors):
            best = left.argmax()
            found[i] = (square[best] - 13) / 12.8
            left[(square - square[best]).abs().amax(1) < apart] = -1
    return palette.view(PALETTE)
