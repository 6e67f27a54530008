"""Color hints as maps: squares drawn all at once are those drawn one by one; simulated and fixed places."""

import numpy as np
import pytest
import torch

from helpers.color import ab_of
from helpers.data.hint_squares import draw_squares, fixed_hints, fixed_squares, hints_of, squares_of


def one_by_one(ab, squares):
    """What `hints_of` computes, in a plain loop."""
    hints = ab.new_zeros(len(ab), 3, *ab.shape[-2:])
    for photo, places in enumerate(squares):
        for top, left, side in places:
            square = slice(top, top + side), slice(left, left + side)
            hints[photo, :2, *square] = ab[photo, :, *square].mean((1, 2), keepdim=True)
            hints[photo, 2, *square] = 1
    return hints


SQUARES = [[[(0, 0, 1)], [], [(19, 29, 1)]]]  # in the corners, and a photo without any
SQUARES += [[[(0, 0, 20), (5, 5, 3)], [(5, 5, 3), (0, 10, 20)], [(2, 3, 4), (4, 5, 4), (3, 4, 1)] * 2]]  # overlaps
SQUARES += [[draw_squares(20, 30, stop=1 / 50) for _ in range(6)]]


@pytest.mark.parametrize("squares", SQUARES)
def test_all_squares_at_once_are_those_drawn_one_by_one(squares):
    ab = torch.rand(len(squares), 2, 20, 30) * 2 - 1
    hints, wanted = hints_of(ab, squares), one_by_one(ab, squares)
    assert torch.equal(hints[:, 2], wanted[:, 2]) and hints.is_contiguous()
    torch.testing.assert_close(hints, wanted, atol=1e-6, rtol=0)


def test_a_simulated_user_gives_seven_hints_on_average_and_none_in_one_photo_of_eight():
    drawn = [np.array(draw_squares(60, 100)).reshape(-1, 3) for _ in range(2000)]
    counts = np.array([len(squares) for squares in drawn])
    assert abs(counts.mean() - 7) < 0.6 and abs((counts == 0).mean() - 1 / 8) < 0.03
    top, left, side = np.concatenate(drawn).T
    assert set(side) == set(range(1, 10))
    assert min(top.min(), left.min()) == 0 and (top + side).max() == 60 and (left + side).max() == 100


def test_hints_lie_around_the_center_or_anywhere():
    around, anywhere = (
        np.concatenate([np.array(draw_squares(101, 101, 0.05, 1, share, 0.1)).reshape(-1, 3) for _ in range(100)])
        for share in (1.0, 0.0)
    )
    assert np.allclose(around[:, :2].std(0), 10, atol=1) and np.allclose(around[:, :2].mean(0), 50, atol=1.5)
    assert np.allclose(anywhere[:, :2].std(0), 100 / 12**0.5, atol=1.5)
    assert len(draw_squares(3, 200, stop=0.001, largest=9)) and max(draw_squares(3, 200, stop=0.001))[2] <= 3


def test_places_to_measure_with_are_always_the_same_and_more_hints_are_added_ones():
    state = torch.get_rng_state()
    table, fewer = fixed_squares(5, (40, 30), 8), fixed_squares(5, (40, 30), 8)
    assert torch.equal(torch.get_rng_state(), state) and table.equals(fewer)
    assert table["top"].between(0, 34).all() and table["left"].between(0, 24).all() and len(table) == 40
    photos = torch.randint(0, 256, (5, 3, 40, 30), dtype=torch.uint8)
    ab = ab_of(photos) / 128
    for count in (0, 1, 8):
        wanted = one_by_one(ab, [squares[:count] for squares in squares_of(table)])
        torch.testing.assert_close(fixed_hints(photos, table, count), wanted, atol=1e-6, rtol=0)
