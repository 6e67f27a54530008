"""Losses as functions of tensors: known answers, and LPIPS against the lpips package."""

import math
import warnings

import lpips
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.training.losses import COLOR_LOSSES, Perceptual, bce


@pytest.mark.parametrize("error", [(0.3, 0.4), (0.5, 0.0), (-0.4, 0.3), (0.0, 0.0)])
def test_color_losses_of_a_known_error(error):
    truth = torch.rand(2, 2, 16, 16) - 0.5
    ab = (truth + torch.tensor(error).view(1, 2, 1, 1)).requires_grad_()
    assert COLOR_LOSSES["L1"](ab, truth).item() == pytest.approx(F.l1_loss(ab, truth).item(), abs=1e-7)
    distance = COLOR_LOSSES["ab distance"](ab, truth)  # does not depend on the direction of the error
    assert distance.item() == pytest.approx(math.hypot(*error), abs=1e-6)
    distance.backward()
    assert ab.grad.isfinite().all()


def test_bce_is_torchs_of_probabilities_and_finite_for_extreme_scores_in_half_precision():
    logits = 4 * torch.randn(2, 1, 5, 5)
    for target in (0.0, 1.0):
        wanted = F.binary_cross_entropy(logits.sigmoid(), torch.full_like(logits, target))
        assert bce(logits, target).item() == pytest.approx(wanted.item(), rel=1e-4)
        assert bce((1 - 2 * target) * torch.full((2, 1), 1000.0, dtype=torch.bfloat16), target).item() == 1000


# LPIPS


@pytest.fixture(scope="module")
def package(perceptual):
    """The lpips package's own network with the same weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    reference.load_state_dict(perceptual.model.state_dict())
    return lambda x, truth: reference(x, truth, normalize=True).flatten()


def test_lpips_and_its_gradient_are_the_packages(perceptual, package):
    rgb, truth, found = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64), []
    for distance in (perceptual, package):
        x = rgb.clone().requires_grad_()
        values = distance(x, truth)
        found.append((values.detach(), *torch.autograd.grad(values.sum(), x)))
    (ours, gradient), (theirs, wanted) = found
    assert theirs.min() > 1e-2 and torch.allclose(ours, theirs, atol=1e-5)
    assert torch.allclose(gradient, wanted, atol=1e-2 * wanted.abs().max())


def test_the_gradient_of_lpips_is_finite_where_no_feature_fires(perceptual):
    black = torch.zeros(1, 3, 64, 64, requires_grad=True)
    perceptual(black, torch.rand(1, 3, 64, 64)).sum().backward()
    assert black.grad.isfinite().all()


def test_lpips_is_frozen_its_head_is_trained_and_its_backbone_need_not_be(perceptual):
    assert not any(parameter.requires_grad for parameter in perceptual.parameters())
    assert not any(module.training for module in nn.ModuleList([perceptual]).train()[0].modules())
    assert not perceptual.trained and "untrained" in perceptual.name
    for lin in perceptual.model.lins:  # no weight is negative, and they are not all alike
        assert lin.model[-1].weight.min() >= 0 and lin.model[-1].weight.std() > 0


def test_without_weights_there_is_an_error_or_an_untrained_backbone(offline, capsys):
    with pytest.raises(RuntimeError, match="lpips_weights=None"):
        Perceptual("imagenet")
    assert not Perceptual("auto").trained and "untrained" in capsys.readouterr().out
