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
from helpers.models.blocks import best_weights


class Judged:
    """What a discriminator scores: the truth and a prediction, each when a term first asks for it, once a batch."""

    discriminator: nn.Module | None

    @property
    def judged(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The maps of the truth and those of the prediction, as the discriminator takes them."""
        raise NotImplementedError

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
    """What a loss term may look at: a batch, what the generator predicted for it, and the discriminator.

    L (N, 1, H, W), ab and ab_pred (N, 2, H, W) in [-1, 1]; rgb (N, 3, H, W) in [0, 1], the truth. `rgb_pred`,
    `real_logits` and `fake_logits` are computed when a term first asks for them.
    """

    L: Tensor
    ab: Tensor
    rgb: Tensor
    ab_pred: Tensor
    discriminator: nn.Module | None = None
    autocast: Callable = nullcontext  # makes the context in which a term may run a network of its own

    @property
    def judged(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Lightness and colors, true and predicted."""
        return (self.L, self.ab), (self.L, self.ab_pred)

    @cached_property
    def rgb_pred(self) -> Tensor:
        """The predicted photo (N, 3, H, W) in [0, 1], differentiable."""
        return L_ab_to_rgb(self.L, self.ab_pred)

    def detached(self, discriminator: nn.Module) -> "Prediction":
        """Return the same for a discriminator's step: the gradient stops at the prediction."""
        return replace(self, ab_pred=self.ab_pred.detach(), discriminator=discriminator)


@dataclass(frozen=True)
class LossTerm:
    """One line of a network's loss: `weight` times `function(prediction)`, logged and plotted as `name`."""

    name: str
    weight: float
    function: Callable[[Prediction], Tensor]


def total_loss(terms: list[LossTerm], prediction: Prediction) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the weighted sum of the terms, and each term's value before its weight, by name; weight 0 is left out."""
    values = {term.name: term.function(prediction) for term in terms if term.weight}
    return sum(term.weight * values[term.name] for term in terms if term.weight), values


def l1_loss(prediction: Prediction) -> Tensor:
    """Return the mean |ab - ab_pred|, in the [-1, 1] scale."""
    return F.l1_loss(prediction.ab_pred.float(), prediction.ab)


def ab_distance(prediction: Prediction) -> Tensor:
    """Return the mean distance of ab from ab_pred as points of the plane, in the [-1, 1] scale.

    L1 measures a and b each for itself, and so prefers some hues to others; this turns with the plane.
    """
    return torch.linalg.vector_norm(prediction.ab_pred.float() - prediction.ab, dim=1).mean()


COLOR_LOSSES = {"L1": l1_loss, "ab distance": ab_distance}


def color_term(cfg: Config, weight: float = 1.0) -> LossTerm:
    """Return the color loss that a configuration chooses, as notebooks 03 and 04 spell it out."""
    return LossTerm(cfg.color_loss, weight, COLOR_LOSSES[cfg.color_loss])


def gan_loss(prediction: Prediction) -> Tensor:
    """Return how far the discriminator is from calling the prediction real (binary cross-entropy of its logits)."""
    return bce(prediction.fake_logits, 1.0)


def real_loss(prediction: Prediction) -> Tensor:
    """Return how far the discriminator is from calling the truth real (Goodfellow et al. 2014)."""
    return bce(prediction.real_logits, 1.0)


def fake_loss(prediction: Prediction) -> Tensor:
    """Return how far the discriminator is from calling the prediction fake (Goodfellow et al. 2014)."""
    return bce(prediction.fake_logits, 0.0)


def bce(logits: Tensor, target: float) -> Tensor:
    """Return the mean binary cross-entropy of logits against one target, 1 (real) or 0 (fake)."""
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, target, dtype=torch.float32))


class Perceptual(nn.Module):
    """LPIPS on a VGG-16 backbone, frozen, head included (Zhang et al. 2018).

    weights: "IMAGENET1K_V1", "auto" for that where it can be had, or None for a backbone that was never trained: its
    numbers then are no LPIPS that can be compared with anybody's, and only large color differences count. `trained`
    tells which it is. Call it with two photos (N, 3, H, W) in [0, 1] for (N,), at least 0; `loss(prediction)` is the
    mean over a batch.

    Raises RuntimeError when the weights can neither be found nor downloaded.
    """

    def __init__(self, weights: str | None = "IMAGENET1K_V1"):
        super().__init__()
        model, self.trained = load_lpips(weights)
        self.name = "LPIPS" if self.trained else "LPIPS (untrained backbone)"
        self.model = model.eval().requires_grad_(False)  # lpips leaves its head trainable

    def train(self, mode: bool = True) -> "Perceptual":
        """Stay in evaluation mode: LPIPS has dropout in its head."""
        return super().train(False)

    def features(self, rgb: Tensor, autocast: Callable = nullcontext) -> list[Tensor]:
        """Return the five feature maps of photos, each pixel's vector scaled to length 1, channels last."""
        x = self.model.scaling_layer(rgb * 2 - 1).contiguous(memory_format=torch.channels_last)
        with autocast():
            return [F.normalize(features, dim=1, eps=1e-6) for features in self.model.net(x)]

    def forward(self, rgb: Tensor, truth: Tensor, autocast: Callable = nullcontext) -> Tensor:
        """Return the distance of each photo from the truth: weighted squared differences of the maps, their mean.

        Maps stay in the precision of the backbone, layers are summed in fp32 (the package copies maps to fp32 first).
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


def load_lpips(weights: str | None) -> tuple[nn.Module, bool]:
    """Return the lpips package's VGG model, and whether it was trained; raises RuntimeError as `download_weights`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # it calls torchvision by old names
        model = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    backbone = best_weights("vgg16", weights, "lpips_weights")
    if backbone is not None:  # loaded here, for lpips would unpickle the file, and run what code it finds in it
        state = {name: backbone["features." + name.split(".", 1)[1]] for name in model.net.state_dict()}
        model.net.load_state_dict(state)
    return model.to(memory_format=torch.channels_last), backbone is not None


def generator_terms(cfg: Config, perceptual: Perceptual) -> list[LossTerm]:
    """Return the generator's loss, as notebook 04 spells it out: GAN + lambda_l1 color loss + lambda_perc LPIPS."""
    return [
        LossTerm("GAN", 1.0, gan_loss),
        color_term(cfg, cfg.lambda_l1),
        LossTerm(perceptual.name, cfg.lambda_perc, perceptual.loss),
    ]


def discriminator_terms() -> list[LossTerm]:
    """Return the report's discriminator loss, as notebook 04 spells it out: (real + fake) / 2."""
    return [LossTerm("D real", 0.5, real_loss), LossTerm("D fake", 0.5, fake_loss)]
