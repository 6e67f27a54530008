"""The network that enlarges: bicubic before it has learned, smooth at the start, at any size."""

import numpy as np
import pytest
import torch
from odd_photos import color
from PIL import Image

from helpers.models.srresnet import Shuffle, SRResNet, bicubic


@pytest.mark.parametrize("scale", [4, 1 / 4, 1 / 2])
def test_bicubic_is_pillows(scale):
    photo = color((160, 96)).convert("L")
    theirs = photo.resize((round(160 * scale), round(96 * scale)), Image.Resampling.BICUBIC)
    ours = bicubic(torch.from_numpy(np.array(photo))[None, None].float(), scale)[0, 0].clamp(0, 255).round()
    assert np.abs(ours.numpy() - np.array(theirs).astype(int)).max() <= 1


@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (3, 70), (24, 16)])
def test_an_untrained_network_is_bicubic_at_any_size(size, maps):
    x = torch.rand(2, maps, *size) * 2 - 1
    assert torch.equal(SRResNet(2, maps=maps)(x), bicubic(x, 4))


def test_a_shuffle_starts_without_a_checkerboard_and_can_learn_one():
    shuffle = Shuffle(8)
    pixels = shuffle(torch.randn(1, 8, 9, 7))
    assert pixels.shape == (1, 8, 18, 14) and pixels.std() > 0.1
    assert torch.equal(pixels, pixels[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3))
    pixels[..., ::2, ::2].sum().backward()
    assert shuffle[0].weight.grad[::4].abs().max() > 0 and not shuffle[0].weight.grad[1::4].any()


def test_only_pixels_within_the_context_matter():
    network = SRResNet(2)
    torch.nn.init.normal_(network.last.weight)
    middle = network.context + 4
    x = torch.rand(1, 1, 2 * middle + 1, 2 * middle + 1, requires_grad=True)
    (network(x) - bicubic(x, 4))[0, 0, 4 * middle : 4 * middle + 4, 4 * middle : 4 * middle + 4].abs().sum().backward()
    reached = x.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert reached.max() - middle <= network.context
    assert network.context - 2 <= middle - reached.min() <= network.context  # and it is no larger than needed
