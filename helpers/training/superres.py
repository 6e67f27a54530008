"""Teaching super-resolution: the trainer's task, what damages a small photo, and a loss on an encoder's features."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.color import L_ab_to_rgb, rgb_to_L_ab
from helpers.data.batches import Batches
from helpers.evaluation import metrics
from helpers.evaluation.superres import quality
from helpers.models.superres import SRResNet, bicubic
from helpers.training.losses import Judged
from helpers.training.step import Colorization

Transforms = Sequence[Callable[[Tensor], Tensor]]


@dataclass
class Pair:
    """Lightness small and large: (N, 1, H, W) and (N, 1, 4H, 4W) in [-1, 1]."""

    small: Tensor
    L: Tensor


@dataclass
class Enlargement(Judged):
    """What a loss term may look at: `Pair`'s maps, the predicted large L, and the discriminator of L."""

    small: Tensor
    L: Tensor
    L_pred: Tensor
    discriminator: nn.Module | None = None
    autocast: Callable = nullcontext

    @property
    def judged(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Lightness, true and predicted."""
        return (self.L,), (self.L_pred,)

    @cached_property
    def rgb(self) -> Tensor:
        """The truth as a gray photo (N, 3, H, W) in [0, 1]."""
        return gray_photo(self.L)

    @cached_property
    def rgb_pred(self) -> Tensor:
        """The prediction as a gray photo (N, 3, H, W) in [0, 1], differentiable."""
        return gray_photo(self.L_pred)

    def detached(self, discriminator: nn.Module) -> "Enlargement":
        """Return the same for a discriminator's step: the gradient stops at the prediction."""
        return replace(self, L_pred=self.L_pred.detach(), discriminator=discriminator)


def gray_photo(L: Tensor) -> Tensor:
    """Return L (N, 1, H, W) in [-1, 1] as a gray photo (N, 3, H, W) in [0, 1]."""
    return L_ab_to_rgb(L, metrics.gray(L))


def compress(gray: Tensor, lowest: int = 40, highest: int = 95) -> Tensor:
    """Return gray photos (N, 1, H, W) in [0, 1] as JPEG leaves them, each of a quality of its own."""
    done = []
    for photo in (gray[:, 0].clamp(0, 1) * 255).round().byte().cpu().numpy():
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(torch.randint(lowest, highest + 1, ()))]
        done.append(cv2.imdecode(cv2.imencode(".jpg", photo, quality)[1], cv2.IMREAD_GRAYSCALE))
    return torch.from_numpy(np.stack(done)[:, None]).to(gray) / 255


class SuperResolution(Colorization):
    """The trainer's task: from small lightness to large; validated by PSNR and SSIM of Y.

    phase: "superres" (L1 alone) or "superres_gan". before, after: what damages a photo before and after it is reduced
    by bicubic interpolation, transforms of gray (N, 1, H, W) in [0, 1]; nothing by default.
    """

    def __init__(self, phase: str = "superres", before: Transforms = (), after: Transforms = ()):
        self.phase, self.before, self.after = phase, before, after

    def batch(self, rgb: Tensor) -> Pair:
        """Return photos (N, 3, H, W) in [0, 1] small and large; H and W are multiples of 4."""
        L = rgb_to_L_ab(rgb)[0]
        gray = (L + 1) / 2
        for transform in self.before:
            gray = transform(gray)
        gray = bicubic(gray, 1 / SRResNet.scale)
        for transform in self.after:
            gray = transform(gray)
        return Pair(gray.clamp(0, 1) * 2 - 1, L)

    def inputs(self, batch: Pair) -> tuple[Tensor, ...]:
        """Return what the network gets of a batch."""
        return (batch.small,)

    def predict(self, generator: nn.Module, batch: Pair, **more: Any) -> Enlargement:
        """Return what the loss terms may look at."""
        return Enlargement(batch.small, batch.L, generator(batch.small), **more)

    @torch.no_grad()
    def outputs(self, generator: nn.Module, photos: Tensor, device: torch.device) -> Tensor:
        """Return photos, uint8 (N, 3, H, W), reduced and enlarged again, gray; always with the same damage."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            pairs = [*Batches(photos, 8, device, make=self.batch)]
        return torch.cat([(gray_photo(generator(pair.small)) * 255).round().byte().cpu() for pair in pairs])

    def measure(self, outputs: Tensor, photos: Tensor, perceptual: nn.Module | None, device: Any) -> pd.DataFrame:
        """Return L1 of L, and PSNR (dB) and SSIM of Y, a row a photo."""
        ours, L = outputs.float() / 255, rgb_to_L_ab(photos.float() / 255)[0]
        off = (rgb_to_L_ab(ours)[0] - L).abs().mean((1, 2, 3))
        return quality(ours, gray_photo(L)).assign(L1=off.numpy())


def l1_of_L(prediction: Enlargement) -> Tensor:
    """Return the mean |L - L_pred|, in the [-1, 1] scale."""
    return F.l1_loss(prediction.L_pred.float(), prediction.L)


class EncoderFeatures(nn.Module):
    """A perceptual distance on the features of a trained colorizer's encoder, frozen (after Johnson et al. 2016).

    It stands in where no trained VGG can be had: what tells colors has to know textures. generator: a `Generator`.
    Raises ValueError for a network without an encoder.
    """

    def __init__(self, generator: nn.Module):
        super().__init__()
        if not hasattr(generator, "encoder"):
            raise ValueError(f"{type(generator).__name__} has no encoder to compare features with: take a Generator's")
        self.encoder = generator.encoder.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "EncoderFeatures":
        """Stay in evaluation mode."""
        return super().train(False)

    def features(self, L: Tensor) -> list[Tensor]:
        """Return the maps of 1/2, 1/4 and 1/8 of the size, each pixel's vector scaled to length 1."""
        return [F.normalize(x.float(), dim=1, eps=1e-6) for x in self.encoder(L)[:3]]

    def loss(self, prediction: Enlargement) -> Tensor:
        """Return the mean squared distance of the features, as a loss term."""
        with prediction.autocast():
            with torch.no_grad():
                wanted = self.features(prediction.L)
            ours = self.features(prediction.L_pred)
        return sum((a - b).square().sum(1).mean() for a, b in zip(ours, wanted, strict=True))
