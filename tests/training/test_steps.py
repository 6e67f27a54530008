"""The steps of 03 and 04 against plain PyTorch loops, and what a step is made of."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from tiny import TinyDiscriminator, TinyGenerator, TinyPhotos

from helpers.color import L_ab_to_rgb
from helpers.data.batches import Batch, Batches
from helpers.training.steps import learner, make_adversarial_step, make_warmup_step
from helpers.training.trainer import frozen

LR = 0.01  # an element moves by so much a step


def plain_descend(loss, network, optimizer, clip_norm):
    optimizer.zero_grad()
    loss.backward()
    norm = torch.cat([weights.grad.flatten() for weights in network.parameters()]).norm()
    for weights in network.parameters():
        weights.grad *= min(1, clip_norm / norm)
    optimizer.step()
    return norm


def plain_step(cfg, batches, generator, discriminator, g_optimizer, d_optimizer, perceptual):
    """One adversarial step as in the paper, with the losses written out."""
    for batch in batches:
        ab = generator(batch.L)
        true, false = F.softplus(-discriminator(batch.L, batch.ab)), F.softplus(discriminator(batch.L, ab.detach()))
        plain_descend(0.5 * true.mean() + 0.5 * false.mean(), discriminator, d_optimizer, cfg.clip_norm)
    gan, color = F.softplus(-discriminator(batch.L, ab)).mean(), F.l1_loss(ab, batch.ab)
    lpips = perceptual(L_ab_to_rgb(batch.L, ab), batch.rgb).mean() if cfg.lambda_perc else 0
    total = gan + cfg.lambda_l1 * color + cfg.lambda_perc * lpips
    plain_descend(total, generator, g_optimizer, cfg.clip_norm)
    return total


@pytest.mark.parametrize(("n_critic", "lambda_perc", "clip_norm"), [(1, 0.0, 1e9), (2, 0.0, 0.1), (1, 10.0, 1.0)])
def test_the_steps_do_what_a_plain_loop_does(cfg, accelerator, perceptual, n_critic, lambda_perc, clip_norm):
    cfg = cfg.replace(n_critic=n_critic, lambda_perc=lambda_perc, clip_norm=clip_norm)
    networks, perceptual = [TinyGenerator().double(), TinyDiscriminator().double()], deepcopy(perceptual).double()
    mine = deepcopy(networks)
    adams = [torch.optim.Adam(network.parameters(), LR, betas=(0.5, 0.999)) for network in mine]
    learners = [learner(cfg, accelerator, network, LR) for network in networks]
    warmup = make_warmup_step(cfg, *learners[0])
    adversarial = make_adversarial_step(cfg, *learners, perceptual, accelerator.autocast)
    batches = [Batch(b.L.double(), b.ab.double(), b.rgb.double()) for b in Batches(TinyPhotos().load("train"), 4)]
    for batch in batches[:2]:  # in double precision: Adam would blow up what is zero but for rounding
        loss = F.l1_loss(mine[0](batch.L), batch.ab)
        norm, log = plain_descend(loss, mine[0], adams[0], clip_norm), warmup(batch)
        assert log["L1"].item() == pytest.approx(loss.item()) and log["G gradient"].item() == pytest.approx(norm.item())
    for i in range(0, 4, n_critic):
        total = plain_step(cfg, batches[i : i + n_critic], *mine, *adams, perceptual)
        assert adversarial(*batches[i : i + n_critic])["G total"].item() == pytest.approx(total.item(), rel=1e-3)
    for (ours, _), plain in zip(learners, mine, strict=True):
        pair = dict(ours.state_dict()), dict(plain.state_dict())
        torch.testing.assert_close(*pair, atol=2e-3, rtol=1e-3)  # of steps of 1e-2


@pytest.mark.parametrize("partly", [False, True])
def test_frozen_lets_gradients_through_and_leaves_frozen_what_was_frozen(partly):
    network, x = TinyDiscriminator(), torch.rand(2, 3, 48, 48, requires_grad=True)
    network.layers[1].requires_grad_(not partly)
    before = [weights.requires_grad for weights in network.parameters()]
    with pytest.raises(ZeroDivisionError), frozen(network) as judge:
        judge(x).mean().backward()
        assert all(weights.grad is None for weights in network.parameters()) and x.grad.abs().sum() > 0
        1 / 0  # noqa: B018
    assert [weights.requires_grad for weights in network.parameters()] == before and all(before) != partly
