"""The generator's loss as a list of named, weighted terms; adversarial, L1 and perceptual losses."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import lpips
import torch
import torch.nn.functional as F
from torch import nn

from helpers.color import L_ab_to_rgb
from helpers.networks import download_weights

PIECE = 2**18  # numbers of a feature map that are looked at together: 1 MB in fp32


@dataclass
class Prediction:
    """What a loss term may look at: a batch, what the generator made of it, and the discriminator.

    L (N, 1, H, W), ab and ab_pred (N, 2, H, W) in [-1, 1]; rgb (N, 3, H, W) in [0, 1], the truth. `rgb_pred` and
    `fake_logits` are computed when a term first asks for them, once a batch.
    """

    L: torch.Tensor
    ab: torch.Tensor
    rgb: torch.Tensor
    ab_pred: torch.Tensor
    discriminator: nn.Module | None = None
    autocast: Callable = nullcontext  # makes the context in which a term may run a network of its own

    @cached_property
    def rgb_pred(self):
        """The predicted photo (N, 3, H, W) in [0, 1], differentiable."""
        return L_ab_to_rgb(self.L, self.ab_pred)

    @cached_property
    def fake_logits(self):
        """The discriminator's patch logits for the prediction; raises ValueError in the warmup, which has none."""
        if self.discriminator is None:
            raise ValueError("A GAN term needs a discriminator: give one to the Trainer.")
        return self.discriminator(self.L, self.ab_pred)


@dataclass(frozen=True)
class LossTerm:
    """One line of the generator's loss: `weight` times `function(prediction)`, logged and plotted as `name`."""

    name: str
    weight: float
    function: Callable[[Prediction], torch.Tensor]


def total_loss(terms, prediction):
    """Return the weighted sum of the terms, and the value of each term before its weight, by name."""
    values = {term.name: term.function(prediction) for term in terms}
    return sum(term.weight * values[term.name] for term in terms), values


def l1_loss(prediction):
    """Return the mean |ab - ab_pred|, in the [-1, 1] scale."""
    return F.l1_loss(prediction.ab_pred.float(), prediction.ab)


def gan_loss(prediction):
    """Return how far the discriminator is from calling the prediction real (binary cross-entropy of its logits)."""
    return bce(prediction.fake_logits, 1.0)


def bce(logits, target):
    """Return the mean binary cross-entropy of logits against one target, 1 (real) or 0 (fake)."""
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, target, dtype=torch.float32))


def discriminator_losses(real_logits, fake_logits):
    """Return L_real and L_fake; the discriminator's loss is half their sum (Goodfellow et al. 2014)."""
    return bce(real_logits, 1.0), bce(fake_logits, 0.0)


class Perceptual(nn.Module):
    """LPIPS on a VGG-16 trunk, frozen, head included (Zhang et al. 2018).

    weights: "IMAGENET1K_V1", or None for a trunk that was never trained; its numbers then rank colours but are
    no LPIPS that can be compared with anybody's. Call it with two photos (N, 3, H, W) in [0, 1] for (N,), at
    least 0; `loss(prediction)` is the mean over a batch.

    Raises RuntimeError when the weights can neither be found nor downloaded.
    """

    def __init__(self, weights="IMAGENET1K_V1"):
        super().__init__()
        self.name = "LPIPS" if weights else "LPIPS (untrained trunk)"
        self.model = load_lpips(weights).eval().requires_grad_(False)  # lpips leaves its head trainable

    def train(self, mode=True):
        """Stay in evaluation mode: LPIPS has dropout in its head."""
        return super().train(False)

    def features(self, rgb, autocast=nullcontext):
        """Return the five feature maps of photos, channels last."""
        x = self.model.scaling_layer(rgb * 2 - 1).contiguous(memory_format=torch.channels_last)
        with autocast():
            return list(self.model.net(x))

    def forward(self, rgb, truth, autocast=nullcontext):
        maps = zip(self.features(rgb, autocast), self.features(truth, autocast), self.model.lins, strict=True)
        return sum(FeatureDistance.apply(ours, theirs, lin.model[-1].weight.flatten()) for ours, theirs, lin in maps)

    def loss(self, prediction):
        """Return the mean LPIPS between the predicted photo and the truth, as a loss term."""
        return self(prediction.rgb_pred, prediction.rgb, prediction.autocast).mean()


class FeatureDistance(torch.autograd.Function):
    """What LPIPS does with a layer's feature maps: scale each pixel's vector to length 1, weigh squared differences.

    ours, theirs: (N, C, H, W), the gradient goes to the first; weight: (C,). Returns (N,), in fp32 from maps of any
    type. It is done piece by piece, value and gradient together, so that a piece stays in the processor's cache:
    with ordinary operations, each of which goes through a whole map, a CPU spends a third of a training step here.
    """

    @staticmethod
    def forward(ctx, ours, theirs, weight):
        wants_gradient = ctx.needs_input_grad[0]
        gradient = torch.empty_like(ours) if wants_gradient else None
        values, pixels = [], ours[0, 0].numel()
        rows = max(1, PIECE // ours.shape[1]) if ours.device.type == "cpu" else pixels
        for i in range(len(ours)):
            maps = (ours[i], theirs[i]) if gradient is None else (ours[i], theirs[i], gradient[i])
            pieces = zip(*(m.permute(1, 2, 0).flatten(0, 1).split(rows) for m in maps), strict=True)
            values.append(sum(distance(weight, pixels, *piece) for piece in pieces) / pixels)
        ctx.save_for_backward(gradient)
        return torch.stack(values)

    @staticmethod
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.to(gradient.dtype).view(-1, 1, 1, 1), None, None


def distance(weight, pixels, ours, theirs, gradient=None):
    """Return the summed distance of feature vectors (M, C), and fill in the gradient of the mean over `pixels`."""
    ours, theirs = ours.float(), theirs.float()
    length = ours.norm(dim=1, keepdim=True).clamp(min=1e-10)
    unit = ours / length
    difference = unit - theirs / theirs.norm(dim=1, keepdim=True).clamp(min=1e-10)
    weighted = difference * weight
    if gradient is not None:
        along = (weighted * unit).sum(1, keepdim=True)
        slope = torch.addcmul(weighted, unit, along, value=-1).mul_(2 / (pixels * length))
        gradient.copy_(slope.masked_fill_(length <= 1e-10, 0.0))
    return (weighted * difference).sum()


def report_terms(cfg, perceptual):
    """Return the report's generator loss, as notebook 04 spells it out: GAN + lambda_l1 L1 + lambda_perc LPIPS."""
    return [
        LossTerm("GAN", 1.0, gan_loss),
        LossTerm("L1", cfg.lambda_l1, l1_loss),
        LossTerm(perceptual.name, cfg.lambda_perc, perceptual.loss),
    ]


def load_lpips(weights):
    """Return the lpips package's VGG model; raises RuntimeError, with what to do, when its weights cannot be had."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # it calls torchvision by old names
        model = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    if weights is not None:  # loaded here, for lpips would unpickle the file, and run what code it finds in it
        trunk = download_weights("vgg16", weights, "lpips_weights")
        state = {name: trunk["features." + name.split(".", 1)[1]] for name in model.net.state_dict()}
        model.net.load_state_dict(state)
    return model.to(memory_format=torch.channels_last)
