"""Loss terms of both networks: known answers, LPIPS against the lpips package, how terms are added up."""

import math
import warnings

import lpips
import pytest
import torch
from malicious import MaliciousPickle
from torch import nn
from torchvision.models import VGG16_Weights

from helpers.training import losses
from helpers.training.losses import LossTerm, Perceptual, Prediction, total_loss


class Constant(nn.Module):
    """A discriminator of one score for everything, which counts its calls."""

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


def scored(real, fake, dtype=torch.float32):
    """A prediction whose patch scores are known."""
    prediction = make_prediction()
    prediction.real_logits, prediction.fake_logits = (torch.full((2, 1, 5, 5), x, dtype=dtype) for x in (real, fake))
    return prediction


@pytest.mark.parametrize("error", [(0.3, 0.4), (0.5, 0.0), (-0.4, 0.3), (0.0, 0.0)])
def test_color_losses_of_a_known_error(error):
    prediction = make_prediction()
    prediction.ab_pred = (prediction.ab + torch.tensor(error).view(1, 2, 1, 1)).requires_grad_()
    assert losses.l1_loss(prediction).item() == pytest.approx((abs(error[0]) + abs(error[1])) / 2, abs=1e-6)
    distance = losses.ab_distance(prediction)  # does not depend on the direction of the error
    assert distance.item() == pytest.approx(math.hypot(*error), abs=1e-6)
    distance.backward()
    assert prediction.ab_pred.grad.isfinite().all()


@pytest.mark.parametrize(("real", "fake"), [(0.0, 0.0), (4.0, -4.0), (-1.0, 2.0)])
def test_gan_losses_are_cross_entropies(real, fake):
    prediction = scored(real, fake)
    assert losses.real_loss(prediction).item() == pytest.approx(math.log(1 + math.exp(-real)), rel=1e-5)
    assert losses.fake_loss(prediction).item() == pytest.approx(math.log(1 + math.exp(fake)), rel=1e-5)
    assert losses.gan_loss(prediction).item() == pytest.approx(math.log(1 + math.exp(-fake)), rel=1e-5)
    total, values = total_loss(losses.discriminator_terms(), prediction)
    assert list(values) == ["D real", "D fake"] and total.item() == pytest.approx(sum(values.values()).item() / 2)


def test_gan_losses_of_extreme_scores_in_half_precision_are_finite():
    extreme = scored(-1000.0, 1000.0, torch.bfloat16)
    assert [losses.real_loss(extreme).item(), losses.fake_loss(extreme).item()] == [1000, 1000]
    assert losses.gan_loss(scored(0.0, -1000.0, torch.bfloat16)).item() == 1000


@pytest.mark.parametrize("name", ["L1", "ab distance"])
def test_the_generators_terms_have_the_configurations_weights(cfg, perceptual, name):
    terms = losses.generator_terms(cfg.replace(lambda_l1=7, lambda_perc=3, color_loss=name), perceptual)
    assert [(term.name, term.weight) for term in terms] == [("GAN", 1.0), (name, 7), (perceptual.name, 3)]
    assert terms[1].function is {"L1": losses.l1_loss, "ab distance": losses.ab_distance}[name]


def test_the_total_is_the_weighted_sum_and_every_term_reaches_the_gradient(perceptual):
    prediction, terms = make_prediction(Constant(1.0)), [LossTerm("vividness", 2.0, lambda p: p.ab_pred.sum())]
    total_loss(terms, prediction)[0].backward()
    assert (prediction.ab_pred.grad == 2).all()
    terms += [LossTerm("GAN", 1.0, losses.gan_loss), LossTerm("L1", 50.0, losses.l1_loss)]
    terms += [LossTerm("LPIPS", 10.0, perceptual.loss), LossTerm("off", 0.0, lambda p: pytest.fail("weighs nothing"))]
    total, values = total_loss(terms, prediction)
    assert list(values) == ["vividness", "GAN", "L1", "LPIPS"]
    by_hand = 2 * values["vividness"] + values["GAN"] + 50 * values["L1"] + 10 * values["LPIPS"]
    assert total.item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_a_detached_prediction_passes_no_gradient_and_is_scored_again():
    discriminator = Constant()
    prediction = make_prediction(discriminator)
    assert prediction.fake_logits.requires_grad
    detached = prediction.detached(discriminator)
    assert torch.equal(detached.ab_pred, prediction.ab_pred) and not detached.fake_logits.requires_grad
    assert discriminator.calls == 2 and prediction.ab_pred.requires_grad


def test_photo_and_scores_are_computed_once_and_only_if_a_term_needs_them(monkeypatch):
    calls, convert, discriminator = [], losses.L_ab_to_rgb, Constant()
    monkeypatch.setattr(losses, "L_ab_to_rgb", lambda L, ab: (calls.append(1), convert(L, ab))[1])
    total_loss([LossTerm("L1", 1.0, losses.l1_loss)], make_prediction(discriminator))
    assert not calls and not discriminator.calls
    terms = [LossTerm(f"rgb {i}", 1.0, lambda p: p.rgb_pred.mean()) for i in range(3)]
    terms += [LossTerm(f"GAN {i}", 1.0, losses.gan_loss) for i in range(3)]
    total_loss(terms, make_prediction(discriminator))
    assert len(calls) == 1 and discriminator.calls == 1


def test_a_gan_term_without_discriminator_is_refused():
    with pytest.raises(ValueError, match="discriminator"):
        total_loss([LossTerm("GAN", 1.0, losses.gan_loss)], make_prediction())


# LPIPS


@pytest.fixture(scope="module")
def package(perceptual):
    """The lpips package's own network with the same weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    reference.load_state_dict(perceptual.model.state_dict())
    return lambda x, truth: reference(x, truth, normalize=True).flatten()


def test_lpips_and_its_gradient_are_the_packages(perceptual, package):
    rgb, truth, found = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64), []
    for distance in (perceptual, package):
        x = rgb.clone().requires_grad_()
        values = distance(x, truth)
        found.append((values.detach(), *torch.autograd.grad(values.sum(), x)))
    (ours, gradient), (theirs, wanted) = found
    assert theirs.min() > 1e-2 and torch.allclose(ours, theirs, atol=1e-5)
    assert torch.allclose(gradient, wanted, atol=1e-2 * wanted.abs().max())


def test_lpips_is_zero_for_identical_photos_and_its_gradient_finite_where_no_feature_fires(perceptual):
    rgb = torch.rand(2, 3, 64, 64)
    assert perceptual(rgb, rgb).abs().max() < 1e-6 < 1e-2 < perceptual(rgb, rgb.flip(0)).min()
    black = torch.zeros(1, 3, 64, 64, requires_grad=True)
    perceptual(black, rgb[:1]).sum().backward()
    assert black.grad.isfinite().all()


def test_lpips_is_frozen_and_its_loss_reaches_ab(perceptual):
    prediction = make_prediction()
    loss = perceptual.loss(prediction)
    loss.backward()
    each = [perceptual(prediction.rgb_pred[i : i + 1], prediction.rgb[i : i + 1]).item() for i in range(2)]
    assert loss.item() == pytest.approx(sum(each) / 2, rel=1e-4)
    assert not any(parameter.requires_grad for parameter in perceptual.parameters())
    assert prediction.ab_pred.grad.isfinite().all() and prediction.ab_pred.grad.abs().sum() > 0
    assert not any(module.training for module in nn.ModuleList([perceptual]).train()[0].modules())


def test_the_backbone_may_be_untrained_and_the_head_is_trained(perceptual):
    assert not perceptual.trained and "untrained" in perceptual.name
    for lin in perceptual.model.lins:  # no weight is negative, and they are not all alike
        assert lin.model[-1].weight.min() >= 0 and lin.model[-1].weight.std() > 0


def test_without_weights_there_is_an_error_or_an_untrained_backbone(offline, tmp_path, capsys):
    with pytest.raises(RuntimeError, match="lpips_weights=None"):
        Perceptual("imagenet")
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(MaliciousPickle(tmp_path / "trace"), folder / VGG16_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1])
    assert not Perceptual("auto").trained and "untrained" in capsys.readouterr().out
    assert not (tmp_path / "trace").exists()
