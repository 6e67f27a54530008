"""Simulated hints: what they say, where they lie, and that a curve over their number adds to the same ones."""

import pytest
import torch
from skimage.color import rgb2lab

from helpers.data.hint_squares import draw_squares, fixed_hints, fixed_squares, hints_of


def test_hints_say_the_mean_color_of_their_squares_and_nothing_elsewhere():
    ab = torch.rand(2, 2, 20, 30) * 2 - 1
    none, hints = hints_of(ab, [[], [(3, 10, 4), (12, 20, 5)]])
    assert not none.any()
    for top, left, side in ((3, 10, 4), (12, 20, 5)):
        rows, columns = slice(top, top + side), slice(left, left + side)
        mean = ab[1, :, rows, columns].mean((1, 2)).view(2, 1, 1)
        assert torch.allclose(hints[:2, rows, columns], mean.expand(2, side, side))
        assert (hints[2, rows, columns] == 1).all()
        hints[:, rows, columns] = 0
    assert not hints.any()


def test_places_are_drawn_as_in_zhangs_paper():
    drawn = [draw_squares(20, 30, centered=0.0) for _ in range(1000)]
    assert sum(map(len, drawn)) / 1000 == pytest.approx(7, abs=1) and [] in drawn  # geometric, stop = 1/8
    squares = torch.tensor(sum(drawn, []))
    assert set(squares[:, 2].tolist()) == set(range(1, 10)) and squares.min() == 0
    assert (squares[:, 0] + squares[:, 2]).max() == 20 and (squares[:, 1] + squares[:, 2]).max() == 30
    around = torch.tensor(sum((draw_squares(200, 200, centered=1.0, spread=0.1) for _ in range(200)), []))
    assert (around[:, :2] + 4.5).float().mean().item() == pytest.approx(100, abs=3)
    assert (around[:, 0] + 4.5).float().std().item() == pytest.approx(20, abs=3)


def test_fixed_places_are_always_the_same_and_k_hints_are_the_first_k():
    photos = torch.randint(0, 256, (3, 3, 20, 30), dtype=torch.uint8)
    table = fixed_squares(3, (20, 30), 100)
    assert table.equals(fixed_squares(3, (20, 30), 100)) and table.groupby("photo").size().tolist() == [100] * 3
    assert (table["top"].min(), table["top"].max(), table["left"].min(), table["left"].max()) == (0, 14, 0, 24)
    ab = torch.tensor(rgb2lab(photos.permute(0, 2, 3, 1).numpy())[..., 1:]).permute(0, 3, 1, 2).float() / 128
    first = [
        [tuple(row) for row in places[["top", "left", "side"]].to_numpy()[:2]] for _, places in table.groupby("photo")
    ]
    assert torch.allclose(fixed_hints(photos, table, 2), hints_of(ab, first), atol=1e-4)
