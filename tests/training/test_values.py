"""What a cell hands over to the trainer: losses of both networks, optimizers, rates, n_critic, another task."""

from dataclasses import dataclass

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from tiny import TinyGenerator
from torch import nn

from helpers import workspace
from helpers.color import L_ab_to_rgb
from helpers.models.discriminator import Discriminator
from helpers.runs.checkpoint import Checkpoints
from helpers.training.losses import LossTerm, gan_loss, l1_loss
from helpers.training.step import Colorization
from helpers.training.trainer import Trainer

L1 = LossTerm("L1", 50.0, l1_loss)
GAN = LossTerm("GAN", 1.0, gan_loss)


@pytest.fixture
def make(cfg, accelerator, sample_photos):
    """Make an adversarial trainer from the same seed; `changes` go to the configuration."""

    def make(terms=(GAN, L1), changes=None, generator=None, discriminator=True, **values):
        changed = cfg.replace(**{"batch_size": 4, "ema_decay": None} | (changes or {}))
        workspace.seed_everything(0)
        networks = generator or TinyGenerator(), Discriminator() if discriminator else None
        parts = (networks[0], list(terms), sample_photos, [lambda rgb: rgb], None, networks[1])
        return Trainer(changed, accelerator, *parts, **values)

    return make


LOSSES = {
    "hinge": (
        lambda p: torch.relu(1 - p.real_logits).mean(),
        lambda p: torch.relu(1 + p.fake_logits).mean(),
        lambda p: -p.fake_logits.mean(),
    ),
    "LSGAN": (
        lambda p: (p.real_logits - 1).square().mean(),
        lambda p: p.fake_logits.square().mean(),
        lambda p: (p.fake_logits - 1).square().mean(),
    ),
    "relativistic": (
        lambda p: F.softplus(-(p.real_logits - p.fake_logits.mean())).mean(),
        lambda p: F.softplus(p.fake_logits - p.real_logits.mean()).mean(),
        lambda p: F.softplus(-(p.fake_logits - p.real_logits.mean())).mean(),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_another_gan_loss_for_both_networks(make, name):
    real, fake, gan = LOSSES[name]
    d_terms = [LossTerm("D real", 0.5, real), LossTerm("D fake", 0.5, fake)]
    trainer = make([LossTerm("GAN", 1.0, gan), L1], d_terms=d_terms)
    batch = next(iter(trainer.batches))
    with torch.no_grad():
        prediction = trainer.task.predict(trainer.generator.train(), batch, discriminator=trainer.discriminator)
        first = real(prediction).item()
    history = trainer.fit()
    assert abs(trainer.steps["D real"][0] - first) < 0.5 and len(history) == 2
    totals = trainer.steps["GAN"] + 50 * trainer.steps["L1"]
    pd.testing.assert_series_equal(trainer.steps["G total"], totals, check_names=False, rtol=1e-3)


def test_the_discriminators_loss_is_the_weighted_sum_of_its_terms(make):
    """Of a term that pulls all weights to zero, ten times as strong, the discriminator feels ten times as much."""

    def size(p):
        return sum(w.square().sum() for w in p.discriminator.parameters())

    norms = []
    for weight in (1.0, 10.0):
        trainer = make(d_terms=[LossTerm("D size", weight, size)])
        norms.append(trainer.training_step(next(iter(trainer.batches)))["D gradient"].item())
    assert norms[1] == pytest.approx(10 * norms[0], rel=1e-3)


def test_another_optimizer_and_a_rate_of_the_discriminators_own(make):
    trainer = make(optimizer=lambda weights, lr: torch.optim.SGD(weights, lr), changes={"discriminator_lr": 3e-4})
    assert type(trainer.g_optimizer.optimizer) is type(trainer.d_optimizer.optimizer) is torch.optim.SGD
    rates = [optimizer.param_groups[0]["lr"] for optimizer in (trainer.g_optimizer, trainer.d_optimizer)]
    assert rates == pytest.approx([1e-4, 3e-4], rel=1e-6)


def stop_after(trainer, steps):
    """Let the machine disappear after some steps of a training."""
    step, left = trainer.training_step, [steps]

    def training_step(*batches):
        left[0] -= 1
        if left[0] < 0:
            raise KeyError
        return step(*batches)

    trainer.training_step = training_step
    with pytest.raises(KeyError):
        trainer.fit()


def same(one, other):
    """Two trainings left the same, bit for bit."""
    pd.testing.assert_frame_equal(one.steps, other.steps, check_exact=True)
    ours, theirs = (trainer.final_generator().state_dict() for trainer in (one, other))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    columns = [name for name in one.history if name != "seconds"]
    pd.testing.assert_frame_equal(one.history[columns], other.history[columns], check_exact=True)


def counted(trainer):
    """The photos that each network's steps were taken on."""
    seen, d_step, g_step = {"D": [], "G": []}, trainer.discriminator_step, trainer.generator_step
    trainer.discriminator_step = lambda p: (seen["D"].append(p.L), d_step(p))[1]
    trainer.generator_step = lambda p: (seen["G"].append(p.L), g_step(p))[1]
    return seen


def test_n_critic_gives_the_discriminator_that_many_batches_for_one_of_the_generator(make):
    trainer = make(changes={"n_critic": 2})
    seen = counted(trainer)
    trainer.fit()
    assert len(trainer.steps) == len(seen["G"]) == 4 and len(seen["D"]) == 8  # two epochs of 16 photos, batches of 4
    assert not torch.equal(seen["D"][0], seen["D"][1]) and torch.equal(seen["D"][1], seen["G"][0])


def test_n_critic_is_resumed_bit_for_bit(make):
    changes = {"n_critic": 2, "checkpoint_minutes": 0.0}
    whole = make(changes=changes | {"run": "whole"})
    whole.fit()
    stop_after(make(changes=changes), 3)
    again = make(changes=changes)
    again.fit()
    same(whole, again)


def test_both_learning_rates_end_at_zero_however_many_updates_each_takes(make):
    trainer = make(changes={"n_critic": 2, "schedule": "cosine", "discriminator_lr": 4e-4})
    trainer.fit()
    for optimizer in (trainer.g_optimizer, trainer.d_optimizer):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_more_updates_than_an_epoch_has_batches_are_refused(make):
    with pytest.raises(ValueError, match="n_critic=9 wants more batches than an epoch has: 4"):
        make(changes={"n_critic": 9})


def test_a_term_may_use_the_discriminators_layers(make):
    def features(p, ab):
        return p.discriminator.layers[:3](torch.cat([p.L, ab], dim=1))

    matching = LossTerm("features", 5.0, lambda p: (features(p, p.ab_pred) - features(p, p.ab).detach()).abs().mean())
    trainer = make([GAN, L1, matching])
    trainer.fit()
    assert (trainer.steps["features"] > 0).all()


@dataclass
class Halved:
    """A batch of lightness at half size and at full size."""

    L: torch.Tensor
    large: torch.Tensor


class Enlarging:
    """Another task for the same trainer: lightness at half its size in, at full size out."""

    monitor = "error"

    def batch(self, rgb):
        gray = rgb.mean(1, keepdim=True)
        return Halved(F.avg_pool2d(gray, 2), gray)

    def inputs(self, batch):
        return (batch.L,)

    def predict(self, generator, batch, **more):
        batch.predicted = generator(*self.inputs(batch))
        return batch

    def outputs(self, generator, photos, device):
        with torch.no_grad():
            return generator(self.batch(photos.to(device) / 255).L).float().cpu()

    def measure(self, outputs, photos, perceptual, device):
        errors = (outputs - self.batch(photos / 255).large).abs().mean((1, 2, 3))
        return pd.DataFrame({"error": errors.tolist()})


class Enlarger(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.PixelShuffle(2))


def test_another_task_is_trained_validated_averaged_and_resumed(make):
    terms = [LossTerm("error", 1.0, lambda p: (p.predicted.float() - p.large).abs().mean())]
    changes = {"ema_decay": 0.5, "warmup_lr": 1e-2, "warmup_epochs": 4}
    values = {"terms": terms, "changes": changes, "task": Enlarging(), "discriminator": False}
    trainer = make(generator=Enlarger(), **values)
    history = trainer.fit()
    assert history["val error"].iloc[-1] < history["val error"].iloc[0] and "val error raw" in history
    assert trainer.stopper.best == history["val error"].min()
    again = make(generator=Enlarger(), **values)
    again.training_step = None  # cannot be called
    pd.testing.assert_frame_equal(again.fit(), history)


def test_another_task_goes_on_in_the_middle_bit_for_bit(make):
    terms = [LossTerm("error", 1.0, lambda p: (p.predicted.float() - p.large).abs().mean())]
    changes = {"ema_decay": 0.5, "checkpoint_minutes": 0.0}
    values = {"terms": terms, "task": Enlarging(), "discriminator": False}
    whole = make(generator=Enlarger(), changes=changes | {"run": "whole"}, **values)
    whole.fit()
    broken = make(generator=Enlarger(), changes=changes, **values)
    stop_after(broken, 6)
    again = make(generator=Enlarger(), changes=changes, **values)
    again.fit()
    same(whole, again)


def test_another_task_is_another_training(make):
    terms = [LossTerm("error", 1.0, lambda p: (p.predicted.float() - p.large).abs().mean())]
    values = {"terms": terms, "discriminator": False}
    make(generator=Enlarger(), task=Enlarging(), **values).fit()
    smaller = type("Smaller", (Enlarging,), {})()
    with pytest.raises(ValueError, match="task: Enlarging.* then, Smaller.* now"):
        make(generator=Enlarger(), task=smaller, **values).fit()


class Hinted(Colorization):
    """Colorization with a second input: the mean color of the photo, as a hint."""

    def inputs(self, batch):
        return batch.L, batch.ab.mean((2, 3), keepdim=True).expand_as(batch.ab)

    def outputs(self, generator, photos, device):
        batch = self.batch(photos.to(device) / 255)
        with torch.no_grad():
            return (L_ab_to_rgb(batch.L, generator(*self.inputs(batch)).float()) * 255).round().byte().cpu()


class WithHint(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3, padding=1))

    def forward(self, L, hint):
        return self.layers(torch.cat([L, hint], dim=1)).tanh()


def test_a_generator_may_take_two_inputs(make):
    trainer = make(generator=WithHint(), task=Hinted(), changes={"ema_decay": 0.5, "batch_size": 8})
    batch = next(iter(trainer.batches))
    trainer.settling = [batch]
    history = trainer.fit()
    assert history[["val L1", "val L1 raw"]].notna().all(axis=None)
    with torch.no_grad():
        features = trainer.ema.module.layers[0](torch.cat(trainer.task.inputs(batch), dim=1))
    assert torch.allclose(trainer.ema.module.layers[1].running_mean, features.mean((0, 2, 3)), atol=1e-5)


def test_a_checkpoint_of_the_version_before_is_refused_by_what_it_is(make):
    trainer = make()
    checkpoints = Checkpoints(trainer.run, "adversarial")
    checkpoints.save({"finished": False, "fingerprint": {}})
    with pytest.raises(ValueError, match="written by another version of this series: format 1, this version reads 3"):
        trainer.fit()
