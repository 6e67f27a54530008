"""The loss terms of both networks: known answers, LPIPS against the lpips package, how terms are put together."""

import math
import warnings

import lpips
import pytest
import torch
from torch import nn

from helpers.training import losses
from helpers.training.losses import (
    LossTerm,
    Perceptual,
    Prediction,
    ab_distance,
    discriminator_terms,
    fake_loss,
    gan_loss,
    generator_terms,
    l1_loss,
    real_loss,
    total_loss,
)


class Constant(nn.Module):
    """A discriminator that always answers the same, and counts how often it is asked."""

    def __init__(self, logit=0.0):
        super().__init__()
        self.logit, self.calls = logit, 0

    def forward(self, L, ab):
        self.calls += 1
        return torch.full((len(L), 1, 3, 3), self.logit) + 0 * ab.mean()


def make_prediction(discriminator=None, size=64):
    L, ab, rgb = torch.rand(2, 1, size, size) - 0.5, torch.rand(2, 2, size, size) - 0.5, torch.rand(2, 3, size, size)
    ab_pred = (torch.rand(2, 2, size, size) * 0.4 - 0.2).requires_grad_()
    return Prediction(L, ab, rgb, ab_pred, discriminator)


def test_l1_of_a_known_error():
    prediction = make_prediction()
    prediction.ab_pred = prediction.ab.clone()
    assert l1_loss(prediction).item() == 0
    prediction.ab_pred[:, 0] += 0.3  # a is wrong by 0.3, b is right
    assert l1_loss(prediction).item() == pytest.approx(0.15, rel=1e-5)


def test_ab_distance_is_a_length_of_the_plane():
    prediction = make_prediction()
    prediction.ab_pred = prediction.ab.clone().requires_grad_()
    loss = ab_distance(prediction)
    loss.backward()
    assert loss.item() == 0 and torch.equal(prediction.ab_pred.grad, torch.zeros_like(prediction.ab))
    for error in ((0.3, 0.4), (0.5, 0.0), (-0.4, 0.3)):  # turned about: for L1 these differ
        prediction.ab_pred = prediction.ab + torch.tensor(error).view(1, 2, 1, 1)
        assert ab_distance(prediction).item() == pytest.approx(0.5, rel=1e-5)


def test_a_term_of_weight_0_is_not_computed():
    def refuse(prediction):
        raise AssertionError

    total, values = total_loss([LossTerm("L1", 2.0, l1_loss), LossTerm("unused", 0.0, refuse)], make_prediction())
    assert list(values) == ["L1"] and total.item() == pytest.approx(2 * values["L1"].item())


@pytest.mark.parametrize("logit", [0.0, 3.0, -2.0])
def test_gan_loss_is_the_cross_entropy_of_being_called_real(logit):
    wanted = -math.log(1 / (1 + math.exp(-logit)))
    assert gan_loss(make_prediction(Constant(logit))).item() == pytest.approx(wanted, rel=1e-5)


def test_gan_loss_of_an_undecided_discriminator_is_ln_2():
    assert gan_loss(make_prediction(Constant(0.0))).item() == pytest.approx(math.log(2), rel=1e-6)


def scored(real, fake):
    """A prediction whose patch scores are known."""
    prediction = make_prediction()
    prediction.real_logits, prediction.fake_logits = real, fake
    return prediction


@pytest.mark.parametrize(("real", "fake"), [(0.0, 0.0), (4.0, -4.0), (-1.0, 2.0)])
def test_the_discriminators_losses_follow_the_cross_entropy(real, fake):
    prediction = scored(torch.full((2, 1, 5, 5), real), torch.full((2, 1, 5, 5), fake))
    assert real_loss(prediction).item() == pytest.approx(math.log(1 + math.exp(-real)), rel=1e-5)
    assert fake_loss(prediction).item() == pytest.approx(math.log(1 + math.exp(fake)), rel=1e-5)


def test_gan_losses_of_extreme_logits_in_half_precision_are_finite():
    extreme = scored(torch.full((1, 1, 2, 2), -1000.0).bfloat16(), torch.full((1, 1, 2, 2), 1000.0).bfloat16())
    assert [real_loss(extreme).item(), fake_loss(extreme).item()] == [1000, 1000]
    extreme.fake_logits = -extreme.fake_logits
    assert gan_loss(extreme).item() == 1000


def test_the_discriminators_terms_are_the_mean_of_real_and_fake():
    total, values = total_loss(discriminator_terms(), scored(torch.full((1, 1, 2, 2), 2.0), torch.zeros(1, 1, 2, 2)))
    assert list(values) == ["D real", "D fake"]
    assert total.item() == pytest.approx((math.log(1 + math.exp(-2)) + math.log(2)) / 2, rel=1e-5)


def test_the_generators_terms_have_the_configurations_weights(cfg, perceptual):
    terms = generator_terms(cfg.replace(lambda_l1=7, lambda_perc=3), perceptual)
    assert [(term.name, term.weight) for term in terms] == [("GAN", 1.0), ("L1", 7), (perceptual.name, 3)]


def test_a_detached_prediction_passes_no_gradient_and_is_scored_anew():
    discriminator = Constant()
    prediction = make_prediction(discriminator)
    assert prediction.fake_logits.requires_grad
    detached = prediction.detached(discriminator)
    assert torch.equal(detached.ab_pred, prediction.ab_pred) and not detached.fake_logits.requires_grad
    assert discriminator.calls == 2 and prediction.ab_pred.requires_grad


def test_total_is_the_weighted_sum_and_a_fourth_term_flows_through(perceptual):
    prediction = make_prediction(Constant(1.0))
    terms = [
        LossTerm("GAN", 1.0, gan_loss),
        LossTerm("L1", 50.0, l1_loss),
        LossTerm("LPIPS", 10.0, perceptual.loss),
        LossTerm("vividness", 0.5, lambda p: -p.ab_pred.abs().mean()),
    ]
    total, values = total_loss(terms, prediction)
    assert list(values) == ["GAN", "L1", "LPIPS", "vividness"]
    by_hand = values["GAN"] + 50 * values["L1"] + 10 * values["LPIPS"] + 0.5 * values["vividness"]
    assert total.item() == pytest.approx(by_hand.item(), rel=1e-6)
    assert values["vividness"].item() == pytest.approx(-prediction.ab_pred.abs().mean().item())
    total.backward()
    assert prediction.ab_pred.grad.abs().sum() > 0


def test_the_fourth_term_alone_reaches_the_gradient():
    prediction = make_prediction()
    total_loss([LossTerm("vividness", 2.0, lambda p: p.ab_pred.sum())], prediction)[0].backward()
    assert (prediction.ab_pred.grad == 2).all()


def test_photo_and_logits_are_computed_once_a_batch(monkeypatch):
    calls, convert = [], losses.L_ab_to_rgb
    monkeypatch.setattr(losses, "L_ab_to_rgb", lambda L, ab: (calls.append(1), convert(L, ab))[1])
    discriminator = Constant()
    looks_at_rgb = [LossTerm(f"rgb {i}", 1.0, lambda p: p.rgb_pred.mean()) for i in range(3)]
    total_loss(
        [*looks_at_rgb, LossTerm("GAN", 1, gan_loss), LossTerm("GAN again", 1, gan_loss)],
        make_prediction(discriminator),
    )
    assert len(calls) == 1 and discriminator.calls == 1


def test_photo_and_logits_are_not_computed_when_no_term_asks(monkeypatch):
    monkeypatch.setattr(losses, "L_ab_to_rgb", lambda L, ab: pytest.fail("nobody asked for the photo"))
    discriminator = Constant()
    total_loss([LossTerm("L1", 1.0, l1_loss)], make_prediction(discriminator))
    assert discriminator.calls == 0


def test_gan_term_without_discriminator_is_refused():
    with pytest.raises(ValueError, match="discriminator"):
        total_loss([LossTerm("GAN", 1.0, gan_loss)], make_prediction())


def package_of(perceptual):
    """The lpips package's own network with the same weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    reference.load_state_dict(perceptual.model.state_dict())
    return reference


def test_perceptual_equals_the_lpips_package(perceptual):
    reference = package_of(perceptual)
    rgb, truth = torch.rand(3, 3, 64, 64), torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        theirs = reference(rgb, truth, normalize=True).flatten()
        ours = perceptual(rgb, truth)
    assert ours.shape == (3,) and theirs.min() > 1e-2
    assert torch.allclose(ours, theirs, atol=1e-5)


@torch.no_grad()
def test_perceptual_head_is_the_packages_trained_one(perceptual):
    """Only the backbone is untrained: the head's weights are LPIPS's own, none negative, not all alike."""
    for lin in perceptual.model.lins:
        weight = lin.model[-1].weight
        assert weight.min() >= 0 and weight.std() > 0


@torch.no_grad()
def test_perceptual_is_zero_for_identical_photos_and_positive_for_others(perceptual):
    rgb = torch.rand(2, 3, 64, 64)
    assert perceptual(rgb, rgb).abs().max() < 1e-6
    assert perceptual(rgb, rgb.flip(0)).min() > 1e-2


def test_perceptual_is_frozen_but_passes_the_gradient_to_the_photo(perceptual):
    prediction = make_prediction()
    perceptual.loss(prediction).backward()
    parameters = list(perceptual.parameters())
    assert len(parameters) > 10
    assert all(not p.requires_grad and p.grad is None for p in parameters)
    assert prediction.ab_pred.grad.isfinite().all() and prediction.ab_pred.grad.abs().sum() > 0


def test_perceptual_loss_is_the_mean_over_the_batch(perceptual):
    prediction = make_prediction()
    each = [perceptual(prediction.rgb_pred[i : i + 1], prediction.rgb[i : i + 1]).item() for i in range(2)]
    assert perceptual.loss(prediction).item() == pytest.approx(sum(each) / 2, rel=1e-4)


def test_perceptual_stays_in_evaluation_mode(perceptual):
    holder = nn.ModuleList([perceptual]).train()
    assert holder.training and not any(module.training for module in perceptual.modules())


def test_without_network_the_perceptual_loss_says_what_to_do(offline):
    with pytest.raises(RuntimeError, match="lpips_weights=None"):
        Perceptual("IMAGENET1K_V1")


def test_the_gradient_is_that_of_the_lpips_package_and_finite_where_no_feature_fires(perceptual):
    rgb, truth = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    gradients = []
    for distance in (lambda x: perceptual(x, truth), lambda x: package_of(perceptual)(x, truth, normalize=True)):
        x = rgb.clone().requires_grad_()
        gradients += torch.autograd.grad(distance(x).sum(), x)
    assert torch.allclose(*gradients, atol=1e-2 * gradients[1].abs().max())
    black = torch.zeros(1, 3, 64, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(perceptual(black, truth).sum(), black)
    assert gradient.isfinite().all()
