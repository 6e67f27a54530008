"""How a generator takes hints: exact where it has to be, and the attention to hints against its formula written out."""

import pytest
import torch

from helpers.models.hints import CELL, SURPRISE, HintAttention


@pytest.fixture(scope="module")
def attention():
    torch.manual_seed(0)
    return HintAttention((8, 6), width=4)


def written_out(attention, features, L, ab, hints):
    """The formula, a photo and a cell after the other, for photos that have hints."""
    places, result = attention.places(features, L), []
    b, c = 10 * attention.knobs[:2]
    for u, colors, (*said, mask) in zip(places, ab, hints, strict=True):
        weights, taken = [], []
        for top in range(0, mask.shape[0], CELL):
            for left in range(0, mask.shape[1], CELL):
                here = (slice(top, top + CELL), slice(left, left + CELL))
                if mask[here].sum() > 0:
                    mean = lambda maps, here=here, m=mask: (maps[(..., *here)] * m[here]).sum((1, 2)) / m[here].sum()  # noqa: E731
                    own, correction = mean(colors), mean(torch.stack(said) - colors)
                    distance = (u - mean(u)[:, None, None]).square().sum(0)
                    weights.append((b - (1 + correction.square().sum() / SURPRISE**2) * distance).exp())
                    taken.append(correction[:, None, None] + c * (own[:, None, None] - colors))
        result.append(sum(w * ab for w, ab in zip(weights, taken, strict=True)) / (1 + sum(weights)))
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


def test_a_photo_without_hints_is_left_alone_beside_one_that_has_some(attention, inputs):
    inputs[-1][0] = 0
    added = attention(*inputs)
    assert added[0].abs().max() == 0 and added[1].abs().max() > 0.1
    assert torch.allclose(
        added[1:], attention([x[1:] for x in inputs[0]], *(part[1:] for part in inputs[1:])), atol=1e-6
    )


def test_a_hint_is_followed_where_it_is_and_less_far_away():
    torch.manual_seed(0)
    attention, features = HintAttention((8,)), [torch.zeros(1, 8, 64, 64)]  # only their place tells pixels apart
    hints = torch.zeros(1, 3, 64, 64)
    hints[0, :2, 28:32, 28:32], hints[0, 2, 28:32, 28:32] = 0.1, 1
    added = attention(features, torch.zeros(1, 1, 64, 64), torch.zeros(1, 2, 64, 64), hints)[0, 0]
    assert added[30, 30] > 0.09 and added[30, 30] > added[30, 45] > added[30, 63] and added[0, 0] < 0.01


def test_a_hint_that_corrects_more_reaches_less_far():
    torch.manual_seed(0)
    attention, reached = HintAttention((8,)), []
    for correction in (0.05, 0.8):
        hints = torch.zeros(1, 3, 64, 64)
        hints[0, 0, 28:32, 28:32], hints[0, 2, 28:32, 28:32] = correction, 1
        flat = torch.zeros(1, 8, 64, 64), torch.zeros(1, 1, 64, 64), torch.zeros(1, 2, 64, 64)
        added = attention(flat[:1], *flat[1:], hints)[0, 0] / correction
        reached.append(added[30, 40].item())
    assert reached[0] > 0.9 > 0.3 > reached[1]
