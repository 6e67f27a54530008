"""Losses as functions of tensors: of colors, of patch scores, and LPIPS."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext

import lpips
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.models.blocks import optional, torchvision_weights


def l1_loss(ab: Tensor, truth: Tensor) -> Tensor:
    """Return the mean |ab - truth|, of two tensors of one shape."""
    return (ab - truth).abs().mean()


def ab_distance(ab: Tensor, truth: Tensor) -> Tensor:
    """Return the mean Euclidean distance between two points of the ab plane; both (N, 2, H, W).

    L1 adds the errors of a and b, so it favors some hues; this distance does not depend on the axes.
    """
    return torch.linalg.vector_norm(ab - truth, dim=1).mean()


COLOR_LOSSES = {"L1": l1_loss, "ab distance": ab_distance}  # by `cfg.color_loss`


def bce(logits: Tensor, target: float) -> Tensor:
    """Return the mean binary cross-entropy of logits against one target, 1 (real) or 0 (fake)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


class Perceptual(nn.Module):
    """LPIPS with a VGG-16 backbone, frozen, head included (Zhang et al. 2018).

    weights: "imagenet", "auto" (ImageNet's where they can be had), or None for an untrained backbone, whose values
    cannot be compared with published LPIPS and only respond to large color differences. `trained` says which.
    compiled: let torch.compile the backbone, once for all trainings that use this object.

    Raises RuntimeError when the weights can neither be found nor downloaded.
    """

    def __init__(self, weights: str | None = "imagenet", compiled: bool = False):
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
        if compiled:
            self.model.net.compile()

    def train(self, mode: bool = True) -> "Perceptual":
        """Stay in evaluation mode: LPIPS has dropout in its head."""
        return super().train(False)

    def features(self, rgb: Tensor, autocast: Callable = nullcontext) -> list[Tensor]:
        """Return the five feature maps of photos, each pixel's vector scaled to length 1, channels last."""
        x = self.model.scaling_layer(rgb * 2 - 1).contiguous(memory_format=torch.channels_last)
        with autocast():
            maps = self.model.net(x)
        return [F.normalize(each, dim=1, eps=1e-6) for each in maps]  # autocast would copy them to fp32

    def forward(self, rgb: Tensor, truth: Tensor, autocast: Callable = nullcontext) -> Tensor:
        """Return each photo's distance from the truth, (N,), at least 0; rgb, truth: (N, 3, H, W) in [0, 1].

        autocast: the context for the backbone, such as `accelerator.autocast`. Feature maps keep its precision, sums
        are in fp32; the lpips package would copy all maps to fp32.
        """
        with torch.no_grad():
            wanted = self.features(truth, autocast)
        distance = 0
        for ours, theirs, lin in zip(self.features(rgb, autocast), wanted, self.model.lins, strict=True):
            weighted = F.conv2d((ours - theirs).square(), lin.model[-1].weight.to(ours.dtype))
            distance = distance + weighted.float().mean((1, 2, 3))
        return distance
