"""Attention: the fast kernel and the written-out formula agree, it starts by changing nothing, and takes any size."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from helpers.models.attention import SelfAttention2d, ViTBlock, tokens, vit_bottleneck
from helpers.models.blocks import count_parameters
from helpers.models.generator import Generator
from helpers.runs.weights import load_generator, refuse_what_cannot_return, save_generator


def written_out(layer, x):
    """SelfAttention2d, pixel by pixel."""
    query, key, value = (part(x).flatten(2) for part in (layer.query, layer.key, layer.value))
    result = torch.stack(
        [sum_of(value[n], query[n, :, i], key[n]) for n in range(len(x)) for i in range(query.shape[-1])]
    ).view(len(x), -1, value.shape[1])
    return x + layer.gamma * layer.out(result.mT.unflatten(2, x.shape[-2:]))


def sum_of(value, query, key):
    """The mean of the values, weighted by how well each key answers the query."""
    weights = (query @ key).exp()
    return (value * weights).sum(1) / weights.sum()


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
def test_at_first_attention_changes_nothing(changes):
    plain = Generator(weights=None, res_blocks=1).eval()
    attentive = Generator(weights=None, res_blocks=1, **changes).eval()
    missing, unexpected = attentive.load_state_dict(plain.state_dict(), strict=False)
    assert missing and not unexpected
    L = torch.rand(1, 1, 64, 96) * 2 - 1
    assert torch.equal(attentive(L), plain(L))


@torch.no_grad()
@pytest.mark.parametrize("positions", ["conv", "learned"])
@pytest.mark.parametrize("size", [(33, 33), (1024, 256), (255, 128)])
def test_any_size_goes_through(positions, size):
    generator = Generator(weights=None, bottleneck="vit", positions=positions, attention_at=16).eval()
    assert generator(torch.zeros(1, 1, *size)).shape == (1, 2, *size)


def test_the_transformer_has_at_most_half_of_the_residual_blocks_parameters():
    residual = Generator(weights=None).bottleneck
    assert count_parameters(vit_bottleneck()) <= count_parameters(residual) / 2


@torch.no_grad()
@pytest.mark.parametrize("positions", ["conv", "learned"])
def test_the_transformer_knows_places(positions):
    """Without positions, attention over equal pixels gives equal pixels."""
    same = torch.randn(1, 64, 1, 1).expand(1, 64, 4, 4)
    spread = vit_bottleneck(64, depth=1, positions=positions)(same).std((2, 3)).max()
    assert spread > 1e-3
    assert ViTBlock(64)(same).std((2, 3)).max() < 1e-5


def test_every_weight_learns(x):
    for layer in (SelfAttention2d(16), ViTBlock(16)):
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.5)
        F.mse_loss(layer(x), torch.zeros_like(x)).backward()
        assert all(parameter.grad.abs().sum() > 0 for name, parameter in layer.named_parameters())


def test_compiled_it_gives_the_same_values_and_gradients(x):
    layers = nn.Sequential(vit_bottleneck(16, depth=1, heads=4), SelfAttention2d(16))
    nn.init.constant_(layers[1].gamma, 0.7)
    both = []
    for network in (layers, torch.compile(layers, backend="aot_eager")):  # the default one takes half a minute more
        given = x.clone().requires_grad_()
        values = network(given)
        both.append((values, *torch.autograd.grad(values.square().sum(), [given, *layers.parameters()])))
    torch.testing.assert_close(*both, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["residual", "identity", "attention", "vit"])
def test_every_bottleneck_is_saved_and_comes_back(kind, cfg, tmp_path):
    cfg = cfg.replace(bottleneck=kind, attention_at=8, positions="learned")
    generator = Generator(**cfg.generator()).eval()
    refuse_what_cannot_return(generator)
    save_generator(tmp_path / "g.safetensors", generator, cfg)
    L = torch.rand(1, 1, 64, 64) * 2 - 1
    assert torch.equal(load_generator(tmp_path / "g.safetensors")(L), generator(L))


def test_a_file_that_says_nothing_of_attention_still_loads(tmp_path):
    generator = Generator(weights=None, res_blocks=1)
    told = {"class": "Generator", "arguments": '{"encoder": "resnet18", "weights": null, "res_blocks": 1}'}
    save_file(generator.state_dict(), tmp_path / "old.safetensors", told)
    assert len(load_generator(tmp_path / "old.safetensors").bottleneck) == 1
