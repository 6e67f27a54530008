"""Distances between the distributions of true and colorized photos: FID and KID over features of any network."""

from collections.abc import Callable

import numpy as np
import scipy.linalg
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.models.generator import imagenet_weights


def efficientnet(name: str = "tf_efficientnet_lite0") -> Callable[[Tensor], Tensor]:
    """Return a function from photos (N, 3, H, W) in [0, 1] to pooled ImageNet features (N, 1280), at 224 px.

    Name the network beside the numbers: they cannot be compared with those of Inception features, which papers use.
    Raises RuntimeError if the weights cannot be had.
    """
    network = timm.create_model(name, num_classes=0)
    network.load_state_dict(imagenet_weights(name, network), strict=False)  # counters of batches may be missing
    return features_of(network.eval(), 224)


def features_of(network: nn.Module, size: int) -> Callable[[Tensor], Tensor]:
    """Return a function from photos (N, 3, H, W) in [0, 1] to the features (N, D) of a timm network, at a size."""
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))

    @torch.no_grad()
    def _features(rgb: Tensor) -> Tensor:
        rgb = F.interpolate(rgb, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        return network((rgb - mean.to(rgb.device)) / std.to(rgb.device)).flatten(1).float()

    return _features


def frechet_distance(ours: Tensor, truth: Tensor) -> float:
    """Return the Frechet distance of two sets of features (N, D) as Gaussians (FID, Heusel et al. 2017, 1706.08500)."""
    a, b = ours.double().cpu().numpy(), truth.double().cpu().numpy()
    one, other = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    mixed = np.real(scipy.linalg.sqrtm(one @ other))
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(one + other - 2 * mixed))


def kernel_distance(ours: Tensor, truth: Tensor) -> float:
    """Return the unbiased squared MMD of two sets of features (N, D), polynomial kernel of degree 3.

    KID (Binkowski et al. 2018, arXiv 1801.01401), usually given times 1000. It needs fewer photos than FID.
    """

    def _kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    def _mean(kernel):
        return (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1))

    a, b = ours.double(), truth.double()
    return (_mean(_kernel(a, a)) + _mean(_kernel(b, b)) - 2 * _kernel(a, b).mean()).item()
