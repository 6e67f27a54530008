"""From a small prediction to a color for every pixel: bilinear, in strips, and in gamut."""

import pytest
import torch
import torch.nn.functional as F

from helpers import color
from helpers.inference.colorizer import bilinear


def enlarged(maps, size):
    """Maps (C, h, w) at `size` (H, W), all rows at once."""
    return bilinear(maps, size)(0, size[0])


@pytest.mark.parametrize(("small", "large"), [(5, 12), (32, 100), (7, 7), (128, 301)])
def test_enlarging_keeps_a_constant_and_a_slope(small, large):
    assert torch.allclose(enlarged(torch.full((1, small, 6), 0.3), (large, 9)), torch.tensor(0.3))
    slope = torch.arange(small).float()[None, :, None].expand(1, small, 6)
    place = (torch.arange(large) + 0.5) * small / large - 0.5
    inner = (place >= 0) & (place <= small - 1)
    assert inner.any()
    assert torch.allclose(enlarged(slope, (large, 9))[0, inner], place[inner][:, None].expand(-1, 9), atol=1e-3)


def test_it_is_bilinear_interpolation():
    maps = torch.rand(2, 9, 13)
    wanted = F.interpolate(maps[None], (40, 31), mode="bilinear", align_corners=False)[0]
    assert torch.allclose(enlarged(maps, (40, 31)), wanted, atol=1e-5)


def test_strips_are_rows_of_the_whole():
    rows = bilinear(torch.rand(2, 9, 13), (40, 31))
    assert torch.allclose(torch.cat([rows(i, i + 8) for i in range(0, 40, 8)], dim=1), rows(0, 40))


def test_into_gamut_keeps_lightness_and_hue_and_as_much_chroma_as_there_is():
    L, ab = torch.rand(1, 1, 60, 60) * 2 - 1, torch.rand(1, 2, 60, 60) * 2 - 1
    brought = color.into_gamut(L, ab)
    raw = color.L_ab_to_raw_rgb(L, brought)
    assert raw.min() > -2e-4 and raw.max() < 1 + 2e-4
    share = brought.norm(dim=1) / ab.norm(dim=1)
    assert (share <= 1.0001).all() and (share < 0.99).any() and (share > 0.9999).any()
    cosine = F.cosine_similarity(brought, ab, dim=1)[share > 0.01]
    assert (cosine > 0.9999).all()
    more = color.L_ab_to_raw_rgb(L, brought * 1.02)  # a little more would not do, where anything was taken away
    outside = ((more < -1e-4) | (more > 1 + 1e-4)).any(1)
    assert outside[(share < 0.99) & (brought.norm(dim=1) > 0.02)].float().mean() > 0.95


def test_a_photo_is_what_its_colors_in_gamut_round_to():
    L, ab = torch.rand(1, 1, 20, 30) * 2 - 1, torch.rand(1, 2, 20, 30) - 0.5
    photo = color.to_photo(L, ab)
    assert photo.dtype == torch.uint8 and photo.shape == (1, 3, 20, 30)
    exact = color.L_ab_to_raw_rgb(L, color.into_gamut(L, ab)) * 255
    assert (photo - exact).abs().max() < 0.55
