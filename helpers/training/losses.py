"""Losses of both networks as lists of named, weighted terms; adversarial, L1 and perceptual losses."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import lpips
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.color import L_ab_to_rgb
from helpers.config import Config
from helpers.models.blocks import optional, torchvision_weights


class Judged:
    """Patch scores of the truth and of a prediction, each computed once per batch, when a term first needs it."""

    discriminator: nn.Module | None
    judged: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # its inputs: the true maps and the predicted ones

    @cached_property
    def real_logits(self) -> Tensor:
        """The discriminator's patch scores for the truth."""
        return self._score(self.judged[0])

    @cached_property
    def fake_logits(self) -> Tensor:
        """The discriminator's patch scores for the prediction."""
        return self._score(self.judged[1])

    def _score(self, maps: tuple[Tensor, ...]) -> Tensor:
        if self.discriminator is None:
            raise ValueError("A GAN term needs a discriminator: give one to the Trainer.")
        return self.discriminator(*maps).float()


@dataclass
class Prediction(Judged):
    """The arguments of a loss term: a batch, the generator's prediction for it, and the discriminator.

    L (N, 1, H, W), ab and ab_pred (N, 2, H, W) in [-1, 1]; rgb (N, 3, H, W) in [0, 1], the truth. `rgb_pred`,
    `real_logits` and `fake_logits` (N, 1, h, w) are computed when a term first needs them.
    """

    L: Tensor
    ab: Tensor
    rgb: Tensor
    ab_pred: Tensor
    discriminator: nn.Module | None = None
    autocast: Callable = nullcontext  # the context for a network that a term runs, such as LPIPS

    @property
    def judged(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Lightness and colors, true and predicted."""
        return (self.L, self.ab), (self.L, self.ab_pred)

    @cached_property
    def rgb_pred(self) -> Tensor:
        """The predicted photo (N, 3, H, W) in [0, 1], differentiable."""
        return L_ab_to_rgb(self.L, self.ab_pred)

    def detached(self, discriminator: nn.Module) -> "Prediction":
        """Return a copy for the discriminator's step: no gradient flows into the generator."""
        return replace(self, ab_pred=self.ab_pred.detach(), discriminator=discriminator)


@dataclass(frozen=True)
class LossTerm:
    """One term of a loss: `weight` times `function(prediction)`, logged and plotted as `name`."""

    name: str
    weight: float
    function: Callable[[Prediction], Tensor]


def total_loss(terms: list[LossTerm], prediction: Prediction) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of the terms, and each unweighted value by name; terms of weight 0 are skipped."""
    values = {term.name: term.function(prediction) for term in terms if term.weight}
    return sum(term.weight * values[term.name] for term in terms if term.weight), values


def l1_loss(prediction: Prediction) -> Tensor:
    """Return the mean |ab - ab_pred|, in the [-1, 1] scale."""
    return F.l1_loss(prediction.ab_pred.float(), prediction.ab)


def ab_distance(prediction: Prediction) -> Tensor:
    """Return the mean Euclidean distance between ab and ab_pred, in the [-1, 1] scale.

    L1 adds the errors of a and b, so it favors some hues; this distance does not depend on the axes.
    """
    return torch.linalg.vector_norm(prediction.ab_pred.float() - prediction.ab, dim=1).mean()


COLOR_LOSSES = {"L1": l1_loss, "ab distance": ab_distance}


def color_term(cfg: Config, weight: float = 1.0) -> LossTerm:
    """Return the color loss that a configuration names; notebooks 03 and 04 write it out."""
    return LossTerm(cfg.color_loss, weight, COLOR_LOSSES[cfg.color_loss])


def gan_loss(prediction: Prediction) -> Tensor:
    """Return the generator's GAN loss: cross-entropy of the scores of its prediction against "real"."""
    return bce(prediction.fake_logits, 1.0)


def real_loss(prediction: Prediction) -> Tensor:
    """Return the cross-entropy of the truth's scores against "real" (Goodfellow et al. 2014)."""
    return bce(prediction.real_logits, 1.0)


def fake_loss(prediction: Prediction) -> Tensor:
    """Return the cross-entropy of the prediction's scores against "fake" (Goodfellow et al. 2014)."""
    return bce(prediction.fake_logits, 0.0)


def bce(logits: Tensor, target: float) -> Tensor:
    """Return the mean binary cross-entropy of logits against one target, 1 (real) or 0 (fake)."""
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, target, dtype=torch.float32))


class Perceptual(nn.Module):
    """LPIPS with a VGG-16 backbone, frozen, head included (Zhang et al. 2018).

    weights: "imagenet", "auto" (ImageNet's where they can be had), or None for an untrained backbone, whose values
    cannot be compared with published LPIPS and only respond to large color differences. `trained` says which. Call it
    with two photos (N, 3, H, W) in [0, 1] for (N,), at least 0; `loss(prediction)` is the mean over a batch.

    Raises RuntimeError when the weights can neither be found nor downloaded.
    """

    def __init__(self, weights: str | None = "imagenet"):
        super().__init__()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)  # it calls torchvision by old names
            self.model = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
        vgg = optional(weights, lambda: torchvision_weights("vgg16", "lpips_weights"), "LPIPS on an untrained backbone")
        if vgg:  # loaded here, because lpips would unpickle the file and run any code in it
            net = self.model.net
            net.load_state_dict({name: vgg["features." + name.split(".", 1)[1]] for name in net.state_dict()})
        self.trained = vgg is not None
        self.name = "LPIPS" if self.trained else "LPIPS (untrained backbone)"
        self.model.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # lpips leaves its head trainable

    def train(self, mode: bool = True) -> "Perceptual":
        """Stay in evaluation mode: LPIPS has dropout in its head."""
        return super().train(False)

    def features(self, rgb: Tensor, autocast: Callable = nullcontext) -> list[Tensor]:
        """Return the five feature maps of photos, each pixel's vector scaled to length 1, channels last."""
        x = self.model.scaling_layer(rgb * 2 - 1).contiguous(memory_format=torch.channels_last)
        with autocast():
            return [F.normalize(features, dim=1, eps=1e-6) for features in self.model.net(x)]

    def forward(self, rgb: Tensor, truth: Tensor, autocast: Callable = nullcontext) -> Tensor:
        """Return each photo's distance from the truth (N,): the mean of weighted squared differences of the maps.

        Feature maps keep the backbone's precision, sums are in fp32; the lpips package would copy all maps to fp32.
        """
        with torch.no_grad():
            wanted = self.features(truth, autocast)
        distance = 0
        for ours, theirs, lin in zip(self.features(rgb, autocast), wanted, self.model.lins, strict=True):
            weighted = F.conv2d((ours - theirs).square(), lin.model[-1].weight.to(ours.dtype))
            distance = distance + weighted.float().mean((1, 2, 3))
        return distance

    def loss(self, prediction: Prediction) -> Tensor:
        """Return the mean LPIPS between the predicted photo and the truth, as a loss term."""
        return self(prediction.rgb_pred, prediction.rgb, prediction.autocast).mean()


def generator_terms(cfg: Config, perceptual: Perceptual) -> list[LossTerm]:
    """Return the generator's loss of notebook 04: GAN + lambda_l1 color loss + lambda_perc LPIPS."""
    return [
        LossTerm("GAN", 1.0, gan_loss),
        color_term(cfg, cfg.lambda_l1),
        LossTerm(perceptual.name, cfg.lambda_perc, perceptual.loss),
    ]


def discriminator_terms() -> list[LossTerm]:
    """Return the report's discriminator loss of notebook 04: (real + fake) / 2."""
    return [LossTerm("D real", 0.5, real_loss), LossTerm("D fake", 0.5, fake_loss)]
