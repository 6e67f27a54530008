"""How a generator takes hints: exact where it has to be, and the attention to hints against its formula written out."""

import pytest
import torch

from helpers.models.hints import APART, CAST, CELL, FEW, SURPRISE, HintAttention, cast


@pytest.fixture(scope="module")
def attention():
    torch.manual_seed(0)
    return HintAttention((8, 6), width=4)


def cast_of(corrections, spots, shares, apart):
    """The common cast, a hinted cell after the other: mean of small corrections over places, times n^2 / (n^2 + 9)."""
    total, number = 0, 0
    for correction, spot, share in zip(corrections, spots, shares, strict=True):
        near = [other for other, at in zip(shares, spots, strict=True) if (at - spot).abs().max() <= apart]
        voice = share / sum(near)
        total, number = total + voice * correction * (-((correction.norm() / CAST) ** 4)).exp(), number + voice
    return total / number * number**2 / (number**2 + FEW**2)


def written_out(attention, features, L, ab, hints):
    """The formula, a photo and a cell after the other, for photos that have hints."""
    places, result = attention.places(features, L), []
    b, c = 10 * attention.knobs[:2]
    for u, colors, (*said, mask) in zip(places, ab, hints, strict=True):
        weights, taken, found = [], [], []
        for top in range(0, mask.shape[0], CELL):
            for left in range(0, mask.shape[1], CELL):
                here = (slice(top, top + CELL), slice(left, left + CELL))
                if mask[here].sum() > 0:
                    mean = lambda maps, here=here, m=mask: (maps[(..., *here)] * m[here]).sum((1, 2)) / m[here].sum()  # noqa: E731
                    own, correction = mean(colors), mean(torch.stack(said) - colors)
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


def cells(*corrections, size=40):
    """Corrections of a* alone as maps: (1, 2, size, size), and their shares, each at a place of its own."""
    maps, share = torch.zeros(1, 2, size, size), torch.zeros(1, 1, size, size)
    for i, correction in enumerate(corrections):
        row, column = 10 * (i // 4) + 1, 10 * (i % 4) + 1
        maps[0, 0, row, column], share[0, 0, row, column] = correction, 1
    return maps, share


@pytest.mark.parametrize(
    ("corrections", "expected"),
    [
        ([0.04], 0.004),  # one hint says little of the whole photo
        ([0.04] * 3, 0.02),
        ([0.04] * 12, 0.0376),  # many that agree say nearly all
        ([0.04, -0.04] * 6, 0.0),
        ([0.8] * 12, 0.0),  # these are colors of objects
        ([], 0.0),
    ],
)
def test_a_cast_is_what_many_small_corrections_have_in_common(corrections, expected):
    found = cast(*cells(*corrections))
    assert torch.allclose(found, torch.tensor([[expected, 0.0]]), atol=2e-4)


def test_a_stroke_has_the_voice_of_one_hint():
    maps, share = cells()
    maps[0, 0, 20:23, 20:23], share[0, 0, 20:23, 20:23] = 0.04, 1
    assert torch.allclose(cast(maps, share)[0, 0], cast(*cells(0.04))[0, 0], atol=1e-4)
