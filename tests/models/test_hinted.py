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
    after, L, hints = with_hints(before), torch.rand(2, 1, 33, 50) * 2 - 1, torch.rand(2, 3, 33, 50)
    for conv in after.hint_convs:
        nn.init.normal_(conv.weight)
    assert torch.equal(after(L), before(L))  # bit for bit
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
    photos, colors = torch.zeros(4, 3, 60, 60).byte(), torch.tensor([[60, 110, 220], [60, 140, 60], [130, 90, 60]])
    for rows, color in zip((slice(0, 20), slice(20, 60), slice(20, 25)), colors, strict=True):
        photos[:, :, rows] = color.byte().view(3, 1, 1)
    palette = common_colors(photos)
    assert palette.shape == (3, 8, 6, 2)
    for third, color in enumerate((colors[0], colors[1], colors[1])):
        pixel = lab_batch(color.view(1, 3, 1, 1) / 255)
        lightness = int((pixel.L.item() + 1) / 2 * 8)
        assert (palette[third, lightness, 0] - pixel.ab.flatten()).abs().max() < 6 / 128, third
    distance = (palette[..., None, :] - palette[..., None, :, :]).abs().amax(-1) + torch.eye(6)
    assert distance.min() > 0  # no color twice
