"""Teaching a generator to follow color hints: the trainer's task, and a generator that takes them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from helpers.color import L_ab_to_rgb, rgb_to_L_ab
from helpers.data.batches import Batch, Batches, lab_batch
from helpers.data.hints import Squares, draw_squares, fixed_hints, fixed_squares, hints_of
from helpers.evaluation import metrics
from helpers.evaluation.hints import colorize_with
from helpers.models.generator import PALETTE
from helpers.runs.weights import arguments_of
from helpers.training.step import Colorization

HINT_PARTS = ("encoder.hint_conv.", "look.", "palette")  # of a generator, that only one with hints has


def paste(rgb: Tensor, share: float = 0.75, largest: float = 0.35) -> Tensor:
    """Paste an ellipse out of another photo, in another color, into some of a batch, (N, 3, H, W) in [0, 1].

    Its hue is turned, and its colors are mixed with their mean: an object often has one color. It teaches hints to fill
    an object and to stop at its outline. See CutMix (Yun et al. 2019, arXiv 1905.04899).
    share: of the photos; largest: half axis, of the side.
    """
    (count, _, height, width), draw = rgb.shape, lambda low, high: low + (high - low) * torch.rand(len(rgb), 1, 1)
    rows, columns = torch.arange(height).view(1, -1, 1) / height, torch.arange(width).view(1, 1, -1) / width
    y, x = ((axis - draw(0, 1)) / draw(0.1, largest) for axis in (rows, columns))
    inside = (y.square() + x.square() < 1) & (torch.rand(count, 1, 1) < share)
    L, ab = rgb_to_L_ab(rgb.roll(1, 0))
    inside, turn, plain = (maps[:, None].to(rgb.device) for maps in (inside, draw(-math.pi, math.pi), draw(0, 1)))
    mean = (ab * inside).sum((2, 3), keepdim=True) / inside.sum((2, 3), keepdim=True).clamp(min=1)
    a, b = ab.lerp(mean, plain).split(1, 1)
    ab = torch.cat([turn.cos() * a - turn.sin() * b, turn.sin() * a + turn.cos() * b], 1)
    return torch.where(inside, L_ab_to_rgb(L, ab), rgb)


@dataclass
class HintedBatch(Batch):
    """A batch with hints (N, 3, H, W)."""

    hints: Tensor


class HintedColorization(Colorization):
    """The trainer's task with hints: drawn anew for each batch, always the same in validation.

    draw(height, width): returns the squares of one photo. counts: the numbers of hints that validation measures.
    """

    phase = "hints"

    def __init__(
        self,
        draw: Callable[[int, int], Squares] = draw_squares,
        counts: Sequence[int] = (0, 1, 5, 10, 50),
    ):
        self.draw, self.counts = draw, tuple(counts)

    @property
    def columns(self) -> list[str]:
        """The names of what validation measures for each number of hints."""
        return [f"PSNR, {count} hint{'s' * (count != 1)}" for count in self.counts]

    def batch(self, rgb: Tensor) -> HintedBatch:
        """Return a batch of photos, rgb (N, 3, H, W) in [0, 1], with hints."""
        plain = lab_batch(rgb)
        squares = [self.draw(*rgb.shape[-2:]) for _ in rgb]
        return HintedBatch(plain.L, plain.ab, rgb, hints_of(plain.ab, squares))

    def inputs(self, batch: HintedBatch) -> tuple[Tensor, ...]:
        """Return what the generator gets of a batch."""
        return batch.L, batch.hints

    def outputs(self, generator: nn.Module, photos: Tensor, device: torch.device) -> Tensor:
        """Return the photos as they come out with each number of hints, one set after the other: (K * N, 3, H, W)."""
        table = fixed_squares(len(photos), photos.shape[-2:], max(self.counts))
        sets = [fixed_hints(photos, table, count) for count in self.counts]
        return torch.cat([colorize_with(generator, photos, hints, device) for hints in sets])

    def measure(self, outputs: Tensor, photos: Tensor, perceptual: nn.Module | None, device: Any) -> pd.DataFrame:
        """Return the validation metrics, a row a photo: means over the numbers of hints, and the PSNR with each."""
        parts = outputs.split(len(photos))
        tables = [metrics.measure_all(part, photos, None, device, with_ssim=False) for part in parts]
        psnr = {name: table["PSNR"] for name, table in zip(self.columns, tables, strict=True)}
        return (sum(tables) / len(tables)).assign(**psnr)


def common_colors(photos: Tensor, apart: int = 2) -> Tensor:
    """Return the colors that photos have most, by height in the photo and lightness: ab in [-1, 1], of shape PALETTE.

    photos: uint8 (N, 3, H, W). Colors are counted in squares of 10 CIE units, and of two that lie
    closer than `apart` squares the rarer is left out.
    """
    heights, lights, colors, _ = PALETTE
    counts = torch.zeros(heights * lights, 27 * 27)
    for batch in Batches(photos, 64):
        rows = torch.linspace(0, heights - 0.01, batch.L.shape[-2]).long().view(1, -1, 1)
        cell = rows * lights + ((batch.L[:, 0] + 1) / 2 * (lights - 0.01)).long()
        a, b = (batch.ab * 12.8 + 13).round().long().clamp(0, 26).unbind(1)
        counts.view(-1).index_add_(0, (cell * 729 + a * 27 + b).flatten(), torch.ones(cell.numel()))
    counts += counts.sum(0) / counts.sum()  # a cell that has too few colors takes the most common ones of all
    square = torch.cartesian_prod(torch.arange(27), torch.arange(27))
    palette = torch.zeros(heights * lights, colors, 2)
    for left, found in zip(counts, palette, strict=True):
        for i in range(colors):
            best = left.argmax()
            found[i] = (square[best] - 13) / 12.8
            left[(square - square[best]).abs().amax(1) < apart] = -1
    return palette.view(PALETTE)


def with_hints(generator: nn.Module, photos: Tensor | None = None) -> nn.Module:
    """Return a generator that takes hints too, with a trained one's weights; without hints its colors are the same.

    And stay so: what it had learned is frozen (`requires_grad_(True)` lets it learn on); of hints it learns anew.
    photos: uint8 (N, 3, H, W), whose common colors it will propose.

    Raises ValueError for a network that has other parts than a `Generator` made with hints=True.
    """
    try:
        again = type(generator)(**arguments_of(generator) | {"weights": None, "hints": True})
        known = {name: tensor for name, tensor in generator.state_dict().items() if not name.startswith(HINT_PARTS)}
        missing, _ = again.load_state_dict(known, strict=False)
    except (RuntimeError, TypeError) as error:
        name = type(generator).__name__
        raise ValueError(f"{name} cannot be given hints, as a Generator and its subclasses can: {error}") from error
    if other := [name for name in missing if not name.startswith(HINT_PARTS)]:
        raise ValueError(f"{type(generator).__name__} cannot be given hints: it has no {', '.join(other)}.")
    if photos is not None:
        again.palette.copy_(common_colors(photos))
    for name, parameter in again.named_parameters():
        parameter.requires_grad_(name.startswith(HINT_PARTS))
    again.trained_size = getattr(generator, "trained_size", None)
    return again.train(generator.training)
