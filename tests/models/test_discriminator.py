"""The discriminator: 70x70 patches, 30x30 scores, spectral normalization."""

import pytest
import torch
from torch import nn

from helpers.models.discriminator import Discriminator


@pytest.fixture(scope="module")
def discriminator():
    torch.manual_seed(0)
    return Discriminator().eval()


@pytest.mark.parametrize(("size", "scores"), [((255, 255), (30, 30)), ((256, 256), (30, 30)), ((33, 64), (6, 6))])
@torch.no_grad()
def test_it_scores_patches(discriminator, size, scores):
    assert discriminator(torch.zeros(1, 1, *size), torch.zeros(1, 2, *size)).shape == (1, 1, *scores)
    assert Discriminator(1)(torch.zeros(1, 1, *size)).shape == (1, 1, *scores)  # lightness alone


def test_each_patch_has_70_by_70_pixels(discriminator):
    L, ab = torch.randn(1, 1, 256, 256, requires_grad=True), torch.randn(1, 2, 256, 256, requires_grad=True)
    discriminator(L, ab)[0, 0, 15, 15].backward()
    for gradient in (L.grad, ab.grad):
        seen = gradient[0].abs().amax(0) > 0
        assert seen.any(1).sum() == seen.any(0).sum() == 70 and seen.sum() == 70 * 70


def test_it_has_the_reports_layers(discriminator):
    kinds = [type(layer).__name__.removeprefix("Parametrized") for layer in discriminator.layers]
    assert kinds == ["Conv2d", "BatchNorm2d", "LeakyReLU"] * 4 + ["Conv2d"]
    assert [layer.out_channels for layer in discriminator.layers[::3]] == [64, 128, 256, 512, 1]


@torch.no_grad()
def test_every_convolution_is_spectrally_normalized_whatever_the_size_of_its_weights():
    discriminator = Discriminator().train()
    discriminator.layers[0].parametrizations.weight.original.mul_(1000)
    for _ in range(20):  # each pass takes one step of the power iteration
        discriminator(torch.randn(2, 1, 32, 32), torch.randn(2, 2, 32, 32))
    convolutions = [module for module in discriminator.eval().modules() if isinstance(module, nn.Conv2d)]
    largest = [torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() for conv in convolutions]
    assert largest == pytest.approx([1.0] * 5, abs=0.05)
