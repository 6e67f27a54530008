"""Attention: the fast kernels and the formulas agree, it starts by changing nothing, and takes any size."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.models.attention import SelfAttention2d, ViTBlock, tokens, vit_bottleneck
from helpers.models.generator import Generator

SMALL = "test_efficientnet"


def written_out(layer, x):
    """SelfAttention2d, pixel by pixel: a mean of the values, weighted by how well each key fits the query."""
    query, key, value = (part(x).flatten(2) for part in (layer.query, layer.key, layer.value))
    means = []
    for n in range(len(x)):
        for i in range(query.shape[-1]):
            weights = (query[n, :, i] @ key[n]).exp()
            means.append((value[n] * weights).sum(1) / weights.sum())
    means = torch.stack(means).view(len(x), -1, value.shape[1])
    return x + layer.gamma * layer.out(means.mT.unflatten(2, x.shape[-2:]))


@pytest.fixture
def x():
    return torch.randn(2, 16, 3, 5)


@pytest.mark.parametrize("spectral", [False, True])
def test_self_attention_and_its_gradient_are_the_formulas(x, spectral):
    layer = SelfAttention2d(16, spectral).eval()
    nn.init.constant_(layer.gamma, 0.7)
    x.requires_grad_()
    for both in (
        (layer(x), written_out(layer, x)),
        [torch.autograd.grad(f.square().sum(), x)[0] for f in (layer(x), written_out(layer, x))],
    ):
        assert torch.allclose(*both, atol=1e-5, rtol=1e-5)


def test_maps_are_those_that_the_layers_use(x):
    layer = SelfAttention2d(16)
    nn.init.constant_(layer.gamma, 1.0)
    seen = layer.maps(x)[:, 0] @ tokens(layer.value(x))
    assert torch.allclose(layer(x), x + layer.out(seen.mT.unflatten(2, (3, 5))), atol=1e-5)
    block = ViTBlock(16, heads=4)
    reference = nn.MultiheadAttention(16, 4, batch_first=True)
    reference.load_state_dict(
        {f"in_proj_{kind}": getattr(block.qkv, kind) for kind in ("weight", "bias")}
        | {f"out_proj.{kind}": getattr(block.out, kind) for kind in ("weight", "bias")}
    )
    normalized = block.norm1(tokens(x))
    wanted, maps = reference(normalized, normalized, normalized, average_attn_weights=False)
    assert torch.allclose(block.maps(x), maps, atol=1e-5)
    nn.init.zeros_(block.mlp[-1].weight)
    nn.init.zeros_(block.mlp[-1].bias)
    assert torch.allclose(tokens(block(x)), tokens(x) + wanted, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{"bottleneck": "attention"}, {"attention_at": 8}, {"attention_at": 4}])
def test_at_first_self_attention_changes_nothing(changes):
    plain, attentive = (Generator(SMALL, None, res_blocks=1, **more).eval() for more in ({}, changes))
    missing, unexpected = attentive.load_state_dict(plain.state_dict(), strict=False)
    assert missing and not unexpected
    L = torch.rand(1, 1, 64, 96) * 2 - 1
    assert torch.equal(attentive(L), plain(L))


@torch.no_grad()
@pytest.mark.parametrize("positions", ["conv", "learned"])
@pytest.mark.parametrize("size", [(33, 33), (512, 64)])
def test_any_size_goes_through_the_transformer(positions, size):
    generator = Generator(SMALL, None, bottleneck="vit", positions=positions, attention_at=16).eval()
    assert generator(torch.zeros(1, 1, *size)).shape == (1, 2, *size)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["conv", "learned"])
def test_the_transformer_knows_places(positions):
    """Without positions, attention over equal pixels gives equal pixels."""
    same = torch.randn(1, 64, 1, 1).expand(1, 64, 4, 4)
    assert vit_bottleneck(64, depth=1, positions=positions)(same).std((2, 3)).max() > 1e-3
    assert ViTBlock(64)(same).std((2, 3)).max() < 1e-5


def test_every_weight_learns(x):
    for layer in (SelfAttention2d(16), ViTBlock(16)):
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.5)
        F.mse_loss(layer(x), torch.zeros_like(x)).backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())
