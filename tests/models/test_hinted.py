"""A trained generator that also takes hints, and the colors that it proposes."""

import pytest
import torch
from tiny import TinyGenerator, TinyPhotos
from torch import nn

from helpers.models.generator import Generator
from helpers.models.hinted import with_hints
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
    assert torch.equal(after(L), before(L))  # bit for bit
    assert (after(L, hints) - before(L)).abs().max() > 1e-2


def test_only_the_hint_layers_can_learn():
    photos = TinyPhotos().load("train")
    after = with_hints(loud().train(), photos)
    learned = {name for name, weights in after.named_parameters() if weights.requires_grad}
    assert learned == {name for name, _ in after.named_parameters() if name.startswith("hint_")} and len(learned) > 6
    norms = [norm for norm in after.modules() if isinstance(norm, nn.BatchNorm2d)]
    assert after.training and norms and not any(norm.training for norm in norms)
    assert after.palette[..., 2].gt(0).any()  # shares of the photos' pixels


@pytest.mark.parametrize("network", [TinyGenerator(), SRResNet(1)])
def test_a_network_that_cannot_take_hints_is_refused_by_its_class(network):
    with pytest.raises(ValueError, match=type(network).__name__):
        with_hints(network)
