"""The network that enlarges: bicubic before it has learned, smooth at the start, at any size."""

import numpy as np
import pytest
import torch
from odd_photos import color
from PIL import Image

from helpers.models.discriminator import Discriminator
from helpers.models.superres import Shuffle, SRResNet, bicubic


@pytest.mark.parametrize("scale", [4, 1 / 4, 1 / 2])
def test_bicubic_is_pillows(scale):
    photo = color((160, 96)).convert("L")
    size = round(160 * scale), round(96 * scale)
    theirs = np.array(photo.resize(size, Image.Resampling.BICUBIC)).astype(int)
    ours = bicubic(torch.from_numpy(np.array(photo))[None, None].float(), scale)[0, 0].clamp(0, 255).round()
    assert np.abs(ours.numpy() - theirs).max() <= 1


@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (3, 70), (24, 16)])
def test_an_untrained_network_is_bicubic_at_any_size(size, maps):
    x = torch.rand(2, maps, *size) * 2 - 1
    assert torch.equal(SRResNet(2, maps=maps)(x), bicubic(x, 4))


def test_a_shuffle_starts_without_a_checkerboard_and_learns_to_have_one():
    shuffle = Shuffle(8)
    pixels = shuffle(torch.randn(1, 8, 9, 7))
    squares = pixels.unflatten(2, (-1, 2)).unflatten(4, (-1, 2))
    assert pixels.shape == (1, 8, 18, 14) and pixels.std() > 0.1
    assert torch.equal(squares[:, :, :, :1].expand_as(squares), squares)
    assert torch.equal(squares[..., :1].expand_as(squares), squares)
    shuffle(torch.randn(1, 8, 9, 7))[..., ::2, ::2].sum().backward()
    assert shuffle[0].weight.grad[::4].abs().max() > 0 and not shuffle[0].weight.grad[1::4].any()


def test_no_pixel_beyond_the_context_matters_and_the_last_within_does():
    network = SRResNet(2)
    torch.nn.init.normal_(network.last.weight)
    size = 2 * network.context + 9
    x = torch.rand(1, 1, size, size, requires_grad=True)
    middle = size // 2
    (network(x) - bicubic(x, 4))[0, 0, 4 * middle : 4 * middle + 4, 4 * middle : 4 * middle + 4].abs().sum().backward()
    rows = x.grad[0, 0].abs().sum(1)
    reached = rows.nonzero().flatten()
    assert middle - reached.min() <= network.context and reached.max() - middle <= network.context
    assert middle - reached.min() >= network.context - 2  # it is no larger than it must be


def test_the_discriminator_can_judge_lightness_alone():
    assert (
        Discriminator(1)(torch.rand(2, 1, 96, 96)).shape
        == Discriminator()(torch.rand(2, 1, 96, 96), torch.rand(2, 2, 96, 96)).shape
    )
