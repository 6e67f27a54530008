"""Attention to hints against its formula in loops, and the color cast that hints have in common."""

import copy
import math

import pytest
import torch

from helpers.models.hint_attention import APART, CAST, CELL, FARTHER, FEW, SURPRISE, HintAttention


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return HintAttention((8, 6), width=4)


def cast_of(corrections, spots, shares, apart):
    """The cast, one hinted cell after another: the mean of small corrections, shrunk towards 0 for n few hints."""
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
    features, L = [torch.randn(2, 8, 24, 28), torch.randn(2, 6, 48, 56)], torch.rand(2, 1, 48, 56)
    ab, hints = 0.2 * torch.rand(2, 2, 48, 56) - 0.1, torch.zeros(2, 3, 48, 56)
    hints[:, :, 38:46, 36:48] = torch.tensor([0.1, 0.05, 1]).view(3, 1, 1)  # so little that it can be a cast
    hints[0, :, 10:16, 10:16] = torch.tensor([0.3, -0.2, 1]).view(3, 1, 1)
    hints[1, :, 20:26, 30:36] = torch.tensor([-0.3, 0.2, 1]).view(3, 1, 1)
    hints[1, :, 5:6, 5:6] = torch.tensor([-0.1, 0.4, 1]).view(3, 1, 1)
    return features, L, ab, hints


def test_attention_to_hints_is_its_formula_and_so_are_its_gradients(attention, inputs):
    features = [x.requires_grad_() for x in inputs[0]]
    results = [way(features, *inputs[1:]) for way in (attention, lambda *x: written_out(attention, *x))]
    assert torch.allclose(*results, atol=1e-5)
    learned = [*features, *attention.parameters()]
    ours, theirs = (torch.autograd.grad(result.square().sum(), learned) for result in results)
    assert all(torch.allclose(*pair, rtol=1e-3, atol=1e-5) for pair in zip(ours, theirs, strict=True))


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


def test_photos_of_a_batch_do_not_share_hints(attention, inputs):
    inputs[-1][0] = 0  # the first photo has none
    added = attention(*inputs)
    assert added[0].abs().max() == 0 and added[1].abs().max() > 0.1
    alone = attention([x[1:] for x in inputs[0]], *(part[1:] for part in inputs[1:]))
    assert torch.allclose(added[1:], alone, atol=1e-6)


def follow(correction, size=64):
    """What one hint in the middle adds to a*, in units of its correction; pixels differ by place alone."""
    hints, flat = torch.zeros(1, 3, size, size), torch.zeros(1, 8, size, size)
    hints[0, 0, 28:32, 28:32], hints[0, 2, 28:32, 28:32] = correction, 1
    with torch.no_grad():
        return HintAttention((8,))([flat], flat[:, :1], flat[:, :2], hints)[0, 0] / correction


def test_a_hint_is_followed_where_it_is_and_less_far_away_the_less_the_more_it_surprises():
    added = follow(0.4)  # too large for a cast
    assert added[30, 30] > 0.9 and added[30, 30] > added[30, 45] > added[30, 63] and added[0, 0] < 0.1
    assert follow(0.05)[30, 44] > 0.9 > 0.3 > follow(0.8)[30, 44]
