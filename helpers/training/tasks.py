"""What the trainer can learn: to colorize, to follow color hints, to enlarge lightness."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from helpers.color import gray_rgb, rgb_to_L_ab
from helpers.data.batches import Batch, Batches, lab_batch
from helpers.data.hint_squares import Squares, draw_squares, fixed_hints, fixed_squares, hints_of
from helpers.evaluation import metrics
from helpers.models.generator import PALETTE
from helpers.models.srresnet import SRResNet, bicubic
from helpers.runs import arguments_of
from helpers.training.losses import Judged, Prediction

HINT_PARTS = ("hint_convs.", "hint_attention.", "palette")  # of a generator's state dict
Transforms = Sequence[Callable[[Tensor], Tensor]]


class Colorization:
    """The task of the report; hand the Trainer another object with these methods to train something else."""

    phase = ""  # the phase's name; empty: "warmup", or "adversarial" with a discriminator
    monitor = "L1"  # the validation metric to minimize

    def batch(self, rgb: Tensor) -> Batch:
        """Return the batch of augmented photos rgb (N, 3, H, W) in [0, 1]."""
        return lab_batch(rgb)

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return the generator's inputs."""
        return (batch.L,)

    def prediction(self, batch: Batch, output: Tensor, **networks: Any) -> Prediction:
        """Return the arguments of the loss terms; networks: the discriminator, and the context for other networks."""
        return Prediction(batch.L, batch.ab, batch.rgb, output, **networks)

    def outputs(self, generator: nn.Module, photos: Tensor, device: torch.device) -> Tensor:
        """Colorize validation photos, uint8 (N, 3, H, W), as the user gets them: same shape."""
        return metrics.colorize_all(generator, photos, device)

    def measure(self, outputs: Tensor, photos: Tensor, perceptual: nn.Module | None, device: Any) -> pd.DataFrame:
        """Return the validation metrics, a row per photo."""
        return metrics.measure_all(outputs, photos, perceptual, device, with_ssim=False)


@dataclass
class HintedBatch(Batch):
    """A batch with hints (N, 3, H, W)."""

    hints: Tensor


class HintedColorization(Colorization):
    """The task of following hints, drawn anew for each batch, and always the same in validation.

    draw(height, width): returns the squares of one photo. counts: the numbers of hints that validation measures.
    """

    phase = "hints"

    def __init__(self, draw: Callable[[int, int], Squares] = draw_squares, counts: Sequence[int] = (0, 1, 5, 10, 50)):
        self.draw, self.counts = draw, tuple(counts)

    @property
    def columns(self) -> list[str]:
        """The names of the validation metrics, one for each number of hints."""
        return [f"PSNR, {count} hint{'s' * (count != 1)}" for count in self.counts]

    def batch(self, rgb: Tensor) -> HintedBatch:
        """Return a batch of photos, rgb (N, 3, H, W) in [0, 1], with hints."""
        plain = lab_batch(rgb)
        return HintedBatch(plain.L, plain.ab, rgb, hints_of(plain.ab, [self.draw(*rgb.shape[-2:]) for _ in rgb]))

    def inputs(self, batch: HintedBatch) -> tuple[Tensor, ...]:
        """Return lightness and hints."""
        return batch.L, batch.hints

    def outputs(self, generator: nn.Module, photos: Tensor, device: torch.device) -> Tensor:
        """Colorize validation photos with each number of hints, one set after another: (K * N, 3, H, W)."""
        table = fixed_squares(len(photos), photos.shape[-2:], max(self.counts))
        sets = [fixed_hints(photos, table, count) for count in self.counts]
        return torch.cat([metrics.colorize_all(generator, photos, device, hints=hints) for hints in sets])

    def measure(self, outputs: Tensor, photos: Tensor, perceptual: nn.Module | None, device: Any) -> pd.DataFrame:
        """Return a row per photo: the metrics' means over the numbers of hints, and the PSNR with each number."""
        measure = super().measure  # before Python 3.12, super() does not work within a comprehension
        tables = [measure(part, photos, None, device) for part in outputs.split(len(photos))]
        psnr = {name: table["PSNR"] for name, table in zip(self.columns, tables, strict=True)}
        return (sum(tables) / len(tables)).assign(**psnr)


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


@dataclass
class Pair:
    """Lightness small (N, 1, H, W) and four times as large, L (N, 1, 4H, 4W), both in [-1, 1]."""

    small: Tensor
    L: Tensor


@dataclass
class Enlargement(Judged):
    """The arguments of a loss term of super-resolution: lightness small, large and predicted, in [-1, 1]."""

    small: Tensor
    L: Tensor
    L_pred: Tensor
    discriminator: nn.Module | None = None
    autocast: Callable = nullcontext

    @property
    def judged(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The true and the predicted lightness."""
        return (self.L,), (self.L_pred,)

    def detached(self, discriminator: nn.Module) -> "Enlargement":
        """Return a copy for the discriminator's step: no gradient flows into the generator."""
        return replace(self, L_pred=self.L_pred.detach(), discriminator=discriminator)


class SuperResolution(Colorization):
    """The task of enlarging lightness four times, validated by PSNR and SSIM of Y.

    phase: "superres" (L1 alone) or "superres_gan". before, after: transforms that damage gray photos (N, 1, H, W) in
    [0, 1], before and after they are reduced by bicubic interpolation.
    """

    def __init__(self, phase: str = "superres", before: Transforms = (), after: Transforms = ()):
        self.phase, self.before, self.after = phase, before, after

    def batch(self, rgb: Tensor) -> Pair:
        """Return photos (N, 3, H, W) in [0, 1], H and W multiples of 4, as pairs of small and large lightness."""
        L = rgb_to_L_ab(rgb)[0]
        gray = (L + 1) / 2
        for transform in self.before:
            gray = transform(gray)
        gray = bicubic(gray, 1 / SRResNet.scale)
        for transform in self.after:
            gray = transform(gray)
        return Pair(gray.clamp(0, 1) * 2 - 1, L)

    def inputs(self, batch: Pair) -> tuple[Tensor, ...]:
        """Return the small lightness."""
        return (batch.small,)

    def prediction(self, batch: Pair, output: Tensor, **networks: Any) -> Enlargement:
        """Return the arguments of the loss terms."""
        return Enlargement(batch.small, batch.L, output, **networks)

    @torch.no_grad()
    def outputs(self, generator: nn.Module, photos: Tensor, device: torch.device) -> Tensor:
        """Return photos, uint8 (N, 3, H, W), reduced (always with the same damage) and enlarged again, in gray."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            pairs = [*Batches(photos, 8, device, make=self.batch)]
        return torch.cat([(gray_rgb(generator(pair.small)) * 255).round().byte().cpu() for pair in pairs])

    def measure(self, outputs: Tensor, photos: Tensor, perceptual: nn.Module | None, device: Any) -> pd.DataFrame:
        """Return L1 of L, and PSNR (dB) and SSIM of Y, a row per photo."""
        ours, L = outputs.float() / 255, rgb_to_L_ab(photos.float() / 255)[0]
        error = (rgb_to_L_ab(ours)[0] - L).abs().mean((1, 2, 3))
        return metrics.quality(ours, gray_rgb(L)).assign(L1=error.numpy())
