"""Attention to hints against its formula in loops, and the color cast that hints have in common."""

import copy
import math

import pytest
import torch

from helpers.models.hint_attention import APART, CAST, CELL, FARTHER, FEW, SURPRISE, HintAttention, cast


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return HintAttention((8, 6), width=4)


def cast_of(corrections, spots, shares, apart):
    """The cast, one hinted cell after another: the mean of small corrections, times n^2 / (n^2 + 9) for n hints."""
    total, number = 0, 0
    for correction, spot, share in zip(corrections, spots, shares, strict=True):
        near = [other for other, at in zip(shares, spots, strict=True) if (at - spot).abs().max() <= apart]
        vote = share / sum(near)
        total, number = total + vote * correction * (-((correction.norm() / CAST) ** 4)).exp(), number + vote
    return total / number * number**2 / (number**2 + FEW**2)


def written_out(attention, features, L, ab, hints):
    """The formula, one photo and one hinted cell after another."""
    places, result = attention.places(features, L), []
    b, c = 10 * attention.knobs[:2]
    for u, colors, (*color, mask) in zip(places, ab, hints, strict=True):
        weights, taken, found = [], [], []
        for top in range(0, mask.shape[0], CELL):
            for left in range(0, mask.shape[1], CELL):
                here = (slice(top, top + CELL), slice(left, left + CELL))
                if mask[here].sum() > 0:
                    mean = lambda maps, here=here, m=mask: (maps[(..., *here)] * m[here]).sum((1, 2)) / m[here].sum()  # noqa: E731
                    own, correction = mean(colors), mean(torch.stack(color) - colors)
                    distance = (u - mean(u)[:, None, None]).square().sum(0)
                    weights.append((b - (1 + correction.square().sum() / SURPRISE**2) * distance).exp())
                    found.append((correction, torch.tensor([top, left]) / CELL, mask[here].mean()))
                    taken.append(correction[:, None, None] + c * (own[:, None, None] - colors))
        common = cast_of(*zip(*found, strict=True), apart=APART * min(mask.shape) / CELL / 2)[:, None, None]
        result.append((common + sum(w * ab for w, ab in zip(weights, taken, strict=True))) / (1 + sum(weights)))
    return torch.stack(result)


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    features, L = [torch.randn(2, 8, 16, 24), torch.randn(2, 6, 32, 48)], torch.rand(2, 1, 32, 48)
    ab, hints = torch.rand(2, 2, 32, 48) - 0.5, torch.zeros(2, 3, 32, 48)
    hints[0, :, 10:16, 10:16] = torch.tensor([0.3, -0.2, 1]).view(3, 1, 1)
    hints[1, :, 20:26, 30:36] = torch.tensor([-0.3, 0.2, 1]).view(3, 1, 1)
    hints[1, :, 5:6, 5:6] = torch.tensor([-0.1, 0.4, 1]).view(3, 1, 1)
    return features, L, ab, hints


def test_attention_to_hints_is_its_formula(attention, inputs):
    assert torch.allclose(attention(*inputs), written_out(attention, *inputs), atol=1e-5)


@torch.no_grad()
def test_outside_training_it_is_the_formula_with_a_longer_reach_where_no_edge_is_in_the_way(attention, inputs):
    features, L, ab, hints = inputs
    flat = torch.full_like(L, 0.2)
    found = attention.eval()(features, flat, ab, hints)
    farther = copy.deepcopy(attention)
    farther.knobs[2] += math.log(FARTHER) / 10
    assert torch.allclose(found, written_out(farther, features, flat, ab, hints), atol=1e-4)


@torch.no_grad()
def test_edges_hold_hints_back(attention):
    hints, L = torch.zeros(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)
    hints[:, :, 28:32, 8:12] = torch.tensor([0.4, 0, 1]).view(3, 1, 1)
    L[1, :, :, 30:34] = 0.8  # a fence; behind it all is as before
    features = [torch.zeros(2, 8, 64, 64), torch.zeros(2, 6, 64, 64)]
    free, fenced = attention.eval()(features, L, torch.zeros(2, 2, 64, 64), hints)[:, 0]
    assert fenced[30, 50] < 0.3 * free[30, 50] and torch.allclose(fenced[:, :24], free[:, :24], atol=0.05)


@torch.no_grad()
def test_influence_is_what_one_hint_decides(attention, inputs):
    features, L, ab, hints = (part[:1] if isinstance(part, torch.Tensor) else [x[:1] for x in part] for part in inputs)
    influence = attention.eval().influence(features, L, (8, 12))
    assert influence.shape == (96, 96) and influence.min() >= 0 and influence.max() <= 1
    assert (influence.diagonal() > 0.9).all() and influence.mean() < influence.diagonal().mean()


def test_its_gradient_is_the_formulas(attention, inputs):
    def _gradients(function):
        features = [x.clone().requires_grad_() for x in inputs[0]]
        function(features, *inputs[1:]).square().sum().backward()
        found = [*(x.grad for x in features), *(parameter.grad.clone() for parameter in attention.parameters())]
        attention.zero_grad()
        return found

    pairs = zip(_gradients(attention), _gradients(lambda *x: written_out(attention, *x)), strict=True)
    for ours, theirs in pairs:
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_photos_of_a_batch_do_not_share_hints(attention, inputs):
    inputs[-1][0] = 0  # the first photo has none
    added = attention(*inputs)
    assert added[0].abs().max() == 0 and added[1].abs().max() > 0.1
    alone = attention([x[1:] for x in inputs[0]], *(part[1:] for part in inputs[1:]))
    assert torch.allclose(added[1:], alone, atol=1e-6)


def follow(correction, size=64):
    """What one hint in the middle adds to a*, in units of its correction; pixels differ by place alone."""
    torch.manual_seed(0)
    hints, flat = torch.zeros(1, 3, size, size), torch.zeros(1, 8, size, size)
    hints[0, 0, 28:32, 28:32], hints[0, 2, 28:32, 28:32] = correction, 1
    with torch.no_grad():
        return HintAttention((8,))([flat], flat[:, :1], flat[:, :2], hints)[0, 0] / correction


def test_a_hint_is_followed_where_it_is_and_less_far_away():
    added = follow(0.4)  # too large for a cast
    assert added[30, 30] > 0.9 and added[30, 30] > added[30, 45] > added[30, 63] and added[0, 0] < 0.1


def test_a_large_correction_reaches_less_far():
    assert follow(0.05)[30, 44] > 0.9 > 0.3 > follow(0.8)[30, 44]


def cells(*corrections, size=40):
    """Corrections of a* as maps (1, 2, size, size), each far from the others, and their shares (1, 1, size, size)."""
    maps, share = torch.zeros(1, 2, size, size), torch.zeros(1, 1, size, size)
    for i, correction in enumerate(corrections):
        row, column = 10 * (i // 4) + 1, 10 * (i % 4) + 1
        maps[0, 0, row, column], share[0, 0, row, column] = correction, 1
    return maps, share


@pytest.mark.parametrize(
    ("corrections", "expected"),
    [
        ([0.04], 0.0123),  # one hint: less than a third of it
        ([0.04] * 3, 0.032),
        ([0.04] * 12, 0.0394),  # many that agree: nearly all of it
        ([0.04, -0.04] * 6, 0.0),
        ([0.8] * 12, 0.0),  # too large for a cast
        ([], 0.0),
    ],
)
def test_a_cast_is_what_many_small_corrections_have_in_common(corrections, expected):
    found = cast(*cells(*corrections))
    assert torch.allclose(found, torch.tensor([[expected, 0.0]]), atol=2e-4)


def test_a_stroke_counts_as_one_hint():
    maps, share = cells()
    maps[0, 0, 20:23, 20:23], share[0, 0, 20:23, 20:23] = 0.04, 1
    assert torch.allclose(cast(maps, share)[0, 0], cast(*cells(0.04))[0, 0], atol=1e-4)
