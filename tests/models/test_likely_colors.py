"""Likely colors against photos of two things that a network cannot tell apart."""

import pytest
import torch
from torch import nn

from helpers.color import rgb_to_L_ab, to_photo
from helpers.models.likely_colors import APART, OWN, PALETTE, count_colors, expected_error, likely_colors


class Brown(nn.Module):
    """Predicts the same color everywhere."""

    def __init__(self):
        super().__init__()
        self.ab = nn.Parameter(torch.tensor([0.1, 0.2]))

    def forward(self, L):
        return self.ab.view(1, 2, 1, 1).expand(len(L), -1, *L.shape[-2:])


def flat(L, a, b, count):
    """Photos of one color, in CIE units."""
    ab = torch.tensor([a, b]).view(1, 2, 1, 1) / 128
    return to_photo(torch.full((count, 1, 8, 8), L / 50 - 1), ab.expand(count, -1, 8, 8))


@pytest.fixture(scope="module")
def counted():
    """Half of the light photos are blue, a quarter red, a quarter as predicted; the dark ones are green."""
    return torch.cat([flat(60, 0, -40, 20), flat(60, 50, 30, 10), flat(60, 13, 26, 10), flat(30, -30, 30, 8)])


def test_likely_colors_are_the_counted_ones_in_their_order(counted):
    network = Brown()
    palette = count_colors(network, counted)
    assert palette.shape == PALETTE
    L, ab = (
        torch.tensor([60.0, 30.0]).view(2, 1, 1, 1) / 50 - 1,
        network.ab.detach().view(1, 2, 1, 1).expand(2, -1, 1, 1),
    )
    light, dark = likely_colors(palette, L, ab)[:, 0, 0]
    assert torch.allclose(128 * light[:2, :2], torch.tensor([[0.0, -40], [50, 30]]), atol=5.5)  # half a square
    assert torch.allclose(light[:2, 2], torch.tensor([0.5, 0.25]), atol=0.01)
    assert torch.allclose(128 * dark[0, :2], torch.tensor([-30.0, 30]), atol=5.5) and dark[0, 2] > 0.95
    for found in (light, dark):
        known = 128 * found[found[:, 2] > 0, :2]
        assert (known - 128 * network.ab.detach()).norm(dim=1).min() > OWN - 8 and torch.pdist(known).min() > APART / 2


def test_the_expected_error_is_how_far_the_counted_colors_lie(counted):
    palette = count_colors(network := Brown(), counted)
    L, true = rgb_to_L_ab(counted.float() / 255)
    error = 128 * (true - network(L)).norm(dim=1)
    light = slice(0, 40)
    expected = expected_error(palette, L, network(L))[light].mean()
    assert abs(expected - error[light].mean()) < 4


def test_what_no_photo_has_falls_back_to_the_commonest_colors(counted):
    strange = torch.tensor([-0.4, -0.4]).view(1, 2, 1, 1)
    first = likely_colors(count_colors(Brown(), counted), torch.zeros(1, 1, 1, 1), strange)[0, 0, 0, 0]
    assert torch.allclose(128 * first[:2], torch.tensor([0.0, -40]), atol=5.5)
