"""Self-attention: the fast kernel is the formula, and it starts by changing nothing."""

import torch
from torch import nn

from helpers.models.attention import SelfAttention2d, tokens


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


def test_it_is_the_formula_and_so_are_its_gradients_and_its_maps():
    layer, x = SelfAttention2d(16), torch.randn(2, 16, 3, 5, requires_grad=True)
    assert torch.equal(layer(x), x)  # at first it changes nothing
    nn.init.constant_(layer.gamma, 0.7)
    results = layer(x), written_out(layer, x)
    inputs = [x, *layer.parameters()]
    fast, slow = (torch.autograd.grad(result.square().sum(), inputs) for result in results)
    for ours, theirs in [results, *zip(fast, slow, strict=True)]:
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert all(gradient.abs().sum() > 0 for gradient in fast)  # every weight learns
    seen = layer.maps(x)[:, 0] @ tokens(layer.value(x))
    torch.testing.assert_close(results[0], x + 0.7 * layer.out(seen.mT.unflatten(2, (3, 5))))
