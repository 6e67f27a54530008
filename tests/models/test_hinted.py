"""A trained generator that also takes hints, and the colors that it proposes."""

import pytest
import torch
from tiny import TinyGenerator, TinyPhotos
from torch import nn

from helpers.data.batches import lab_batch
from helpers.models.generator import Generator
from helpers.models.hinted import common_colors, with_hints
from helpers.models.srresnet import SRResNet


def loud(**arguments):
    """A generator whose outputs show a change of its inputs."""
    torch.manual_seed(1)
    generator = Generator("test_efficientnet", None, res_blocks=1, **arguments)
    with torch.no_grad():
        generator.head.weight.mul_(20)
    return generator.eval()


@pytest.mark.parametrize("changes", [{}, {"bottleneck": "identity"}])
@torch.no_grad()
def test_without_hints_its_colors_are_as_before(changes):
    before = loud(**changes)
    after = with_hints(before)
    for conv in after.hint_convs:
        nn.init.normal_(conv.weight)
    for size in ((64, 64), (33, 50), (100, 64)):
        L = torch.rand(2, 1, *size) * 2 - 1
        assert torch.equal(after(L), before(L))  # bit for bit
    hints = torch.rand(2, 3, 100, 64)
    assert (after(L, hints) - before(L)).abs().max() > 1e-2


def test_only_the_hint_layers_can_learn():
    photos = TinyPhotos().load("train")
    after = with_hints(loud().train(), photos)
    learned = {name for name, weights in after.named_parameters() if weights.requires_grad}
    assert learned == {name for name, _ in after.named_parameters() if name.startswith("hint_")} and len(learned) > 6
    norms = [norm for norm in after.modules() if isinstance(norm, nn.BatchNorm2d)]
    assert after.training and norms and not any(norm.training for norm in norms)
    assert torch.equal(after.palette, common_colors(photos))


@pytest.mark.parametrize("network", [TinyGenerator(), SRResNet(1)])
def test_a_network_that_cannot_take_hints_is_refused_by_its_class(network):
    with pytest.raises(ValueError, match=type(network).__name__):
        with_hints(network)


def test_the_proposed_colors_are_the_common_ones():
    photos = torch.zeros(4, 3, 60, 60, dtype=torch.uint8)
    blue, green, brown = ((60, 110, 220), (60, 140, 60), (130, 90, 60))
    for rows, color in ((slice(0, 20), blue), (slice(20, 60), green), (slice(20, 25), brown)):
        photos[:, :, rows] = torch.tensor(color, dtype=torch.uint8).view(3, 1, 1)
    palette = common_colors(photos)
    assert palette.shape == (3, 8, 6, 2)
    for third, color in ((0, blue), (1, green), (2, green)):
        pixel = lab_batch(torch.tensor(color).view(1, 3, 1, 1) / 255)
        lightness = int((pixel.L.item() + 1) / 2 * 8)
        assert (palette[third, lightness, 0] - pixel.ab.flatten()).abs().max() < 6 / 128, third
    distance = (palette[..., None, :] - palette[..., None, :, :]).abs().amax(-1) + torch.eye(6)
    assert distance.min() > 0  # no color twice
