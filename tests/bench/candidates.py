"""What the ablation tries in the adversarial phase: each candidate differs from the base in one thing."""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from helpers.data.batches import Batches
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.runs.weights import arguments_of
from helpers.training import losses
from helpers.training.losses import LossTerm

HALF = 0.5
BASE = {"jitter": 0.3}  # what differs from profile laptop, which has learned from this table


@dataclass(frozen=True)
class Candidate:
    """One thing that differs from the base: values of the configuration, loss terms by name, or a discriminator."""

    values: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, LossTerm | None] = field(default_factory=dict)
    d_terms: dict[str, LossTerm | None] = field(default_factory=dict)
    discriminator: type = Discriminator
    generator: nn.Module | None = None  # in place of the warmup's
    alone: int = 0  # steps of the discriminator alone before the generator's first


def color(weight, function):
    """Return the term that holds the generator's colors to the truth, under one name whatever its function."""
    return LossTerm("color", weight, function)


def base_terms(cfg):
    """Return the base's loss terms of both networks, by name."""
    terms = [LossTerm("GAN", 1.0, losses.gan_loss), color(cfg.lambda_l1, losses.COLOR_LOSSES[cfg.color_loss])]
    d_terms = [LossTerm("D real", HALF, losses.real_loss), LossTerm("D fake", HALF, losses.fake_loss)]
    return {term.name: term for term in terms}, {term.name: term for term in d_terms}


def gan(generator, real, fake, weight=HALF):
    """Return the terms of another GAN loss."""
    d_terms = {"D real": LossTerm("D real", weight, real), "D fake": LossTerm("D fake", weight, fake)}
    return Candidate(terms={"GAN": LossTerm("GAN", 1.0, generator)}, d_terms=d_terms)


HINGE = gan(  # Lim and Ye 2017, arXiv 1705.02894
    lambda p: -p.fake_logits.mean(),
    lambda p: F.relu(1 - p.real_logits).mean(),
    lambda p: F.relu(1 + p.fake_logits).mean(),
)
LEAST_SQUARES = gan(  # Mao et al. 2017, arXiv 1611.04076
    lambda p: (p.fake_logits - 1).square().mean(),
    lambda p: (p.real_logits - 1).square().mean(),
    lambda p: p.fake_logits.square().mean(),
)
RELATIVISTIC = gan(  # each photo's true patch against its predicted one: Jolicoeur-Martineau 2018, arXiv 1807.00734
    lambda p: F.softplus(p.real_logits.detach() - p.fake_logits).mean(),
    lambda p: F.softplus(p.fake_logits - p.real_logits).mean(),
    lambda p: p.fake_logits.sum() * 0,
    weight=1.0,
)


def r1(prediction):
    """Return the squared gradient of the scores of true colors (Mescheder et al. 2018, arXiv 1801.04406)."""
    ab = prediction.ab.detach().requires_grad_()
    logits = prediction.discriminator(prediction.L, ab).float()
    (gradient,) = torch.autograd.grad(logits.mean((1, 2, 3)).sum(), ab, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def feature_matching(prediction):
    """Return how far apart the discriminator's features of truth and prediction are (Wang et al. 2018)."""
    real = torch.cat([prediction.L, prediction.ab], 1)
    fake = torch.cat([prediction.L, prediction.ab_pred], 1)
    distance = 0
    for layer in prediction.discriminator.layers[:-1]:
        real, fake = layer(real), layer(fake)
        if isinstance(layer, nn.LeakyReLU):
            distance = distance + F.l1_loss(fake, real.detach())
    return distance / 4


class Rebalanced:
    """L1 whose pixels weigh the less, the more common their color is among training photos (Zhang et al. 2016).

    photos: uint8 (N, 3, H, W). Colors are counted in squares of 10 CIE units; half of the weight is even.
    """

    def __init__(self, photos):
        counts = torch.zeros(26 * 26)
        for batch in Batches(photos, 64):
            counts += torch.bincount(self.square_of(batch.ab).flatten(), minlength=26 * 26)
        frequency = counts / counts.sum()
        weight = 1 / (HALF * frequency + HALF / (frequency > 0).sum())
        self.weight = weight / (weight * frequency).sum()  # 1 in the mean over the training photos

    @staticmethod
    def square_of(ab):
        """Return the number of each pixel's square: ab (N, 2, H, W) gives (N, H, W)."""
        a, b = ((ab * 128 + 130) / 10).long().clamp(0, 25).unbind(1)
        return 26 * a + b

    def __call__(self, prediction):
        """Return the loss."""
        error = (prediction.ab_pred.float() - prediction.ab).abs().mean(1)
        return (error * self.weight.to(error.device)[self.square_of(prediction.ab)]).mean()


class Binned(Generator):
    """The generator with a second head, which says for squares of 4x4 pixels which color is how likely."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.bins = nn.Conv2d(32, 26 * 26, 1)
        self.decoder[-1].register_forward_hook(self.classify)

    def classify(self, module, inputs, features):
        """Keep the scores of the colors that a forward pass arrives at."""
        self.scores = self.bins(F.avg_pool2d(features, 4)) if self.training else None

    @staticmethod
    def from_warmup(generator):
        """Return it with a trained generator's weights."""
        binned = Binned(**arguments_of(generator) | {"weights": None})
        binned.load_state_dict(generator.state_dict(), strict=False)
        return binned

    def loss(self, prediction):
        """Return the cross-entropy of the scores against the color of each square."""
        wanted = Rebalanced.square_of(F.avg_pool2d(prediction.ab, 4))
        return F.cross_entropy(self.scores.float(), wanted)


class Plain(Discriminator):
    """The discriminator without spectral normalization."""

    def __init__(self):
        super().__init__()
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.utils.parametrize.remove_parametrizations(layer, "weight")


class Augmented(Discriminator):
    """The discriminator behind a random shift, cutout and saturation (DiffAugment, Zhao et al. 2020)."""

    def forward(self, L, ab):
        """Return the patch scores of augmented photos."""
        x = torch.cat([L, ab * (HALF + torch.rand(len(ab), 1, 1, 1, device=ab.device))], 1)
        if self.training:
            size = x.shape[-1]
            down, right = torch.randint(-size // 8, size // 8 + 1, (2,)).tolist()
            x = torch.roll(x, (down, right), (2, 3))
            top, left = torch.randint(0, size // 2 + 1, (2,)).tolist()
            mask = torch.ones_like(x[:1, :1])
            mask[..., top : top + size // 2, left : left + size // 2] = 0
            x = x * mask
        return super().forward(x[:, :1], x[:, 1:])


ABOUT = {
    "base": "GAN (cross-entropy) + 50 ab distance; profile laptop, but for the report's color jitter of 0.3",
    "no GAN": "the color loss alone, as many steps",
    "LPIPS": "+ 10 LPIPS, its backbone untrained",
    "L1": "in place of ab distance: the report's",
    "twice the color loss": "weight 100, the report's first choice",
    "hinge": "GAN loss (Lim and Ye 2017)",
    "least squares": "GAN loss (Mao et al. 2017)",
    "relativistic": "GAN loss (Jolicoeur-Martineau 2018)",
    "two rates": "the discriminator's learning rate times 4 (TTUR, Heusel et al. 2017)",
    "discriminator first": "150 steps of the discriminator alone, then both",
    "R1": "+ the squared gradient of the scores of true colors (Mescheder et al. 2018)",
    "DiffAugment": "shift, cutout, saturation in front of the discriminator (Zhao et al. 2020)",
    "feature matching": "+ 10 times the distance in the discriminator's features (Wang et al. 2018)",
    "rebalanced L1": "50 L1 in which rare colors weigh more (Zhang et al. 2016)",
    "Huber": "in place of ab distance, weight 50, quadratic below a tenth",
    "313 bins": "+ half the cross-entropy of a second head, which chooses a color (Zhang et al. 2016)",
    "no spectral norm": "",
    "no augmentation": "neither flips, rotation, crops nor color jitter",
    "no color jitter": "brightness, contrast and saturation as they are",
    "no EMA": "",
}


def huber(prediction):
    """Return L1 that is quadratic below a tenth of the scale (Huber 1964)."""
    return F.smooth_l1_loss(prediction.ab_pred.float(), prediction.ab, beta=0.1)


def with_bins(generator):
    """Return the candidate with a second head."""
    binned = Binned.from_warmup(generator)
    return Candidate(terms={"bins": LossTerm("bins", HALF, binned.loss)}, generator=binned)


def candidate(name, cfg, photos, generator):
    """Return a candidate by its name; photos: a `PhotoSet`; generator: the warmup's."""
    ours = losses.COLOR_LOSSES[cfg.color_loss]
    plain = {"flip": 0.0, "rotation": 0.0, "crop": 1.0, "jitter": 0.0}
    makers = {
        "no GAN": lambda: Candidate(terms={"GAN": None}),
        "LPIPS": lambda: Candidate(terms={"LPIPS": LossTerm("LPIPS", 10.0, losses.Perceptual(None).loss)}),
        "L1": lambda: Candidate(terms={"color": color(50.0, losses.l1_loss)}),
        "twice the color loss": lambda: Candidate(terms={"color": color(2 * cfg.lambda_l1, ours)}),
        "hinge": lambda: HINGE,
        "least squares": lambda: LEAST_SQUARES,
        "relativistic": lambda: RELATIVISTIC,
        "two rates": lambda: Candidate({"discriminator_lr": 4 * cfg.adversarial_lr}),
        "discriminator first": lambda: Candidate(alone=150),
        "R1": lambda: Candidate(d_terms={"R1": LossTerm("R1", 1.0, r1)}),
        "DiffAugment": lambda: Candidate(discriminator=Augmented),
        "feature matching": lambda: Candidate(terms={"features": LossTerm("features", 10.0, feature_matching)}),
        "rebalanced L1": lambda: Candidate(terms={"color": color(50.0, Rebalanced(photos.load("train")))}),
        "Huber": lambda: Candidate(terms={"color": color(50.0, huber)}),
        "313 bins": lambda: with_bins(generator),
        "no spectral norm": lambda: Candidate(discriminator=Plain),
        "no augmentation": lambda: Candidate(plain),
        "no color jitter": lambda: Candidate({"jitter": 0.0}),
        "no EMA": lambda: Candidate({"ema_decay": None}),
    }
    return makers.get(name, Candidate)()
