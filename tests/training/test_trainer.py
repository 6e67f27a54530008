"""The trainer: what learns and what stays, which weights are saved, when it stops, what a cell may exchange."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from skimage.color import lab2rgb, rgb2lab
from tiny import GAN, L1
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from helpers.data.batches import Batches
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.runs import Run
from helpers.training.losses import LossTerm, Prediction
from helpers.training.monitoring import collapse_warnings

CONSTANT = {"schedule": "constant", "ema_decay": None}


def copied(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def changed(before, module):
    """The names of the parameters that are no longer what they were."""
    return {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}


def first_batch(trainer):
    return next(iter(trainer.batches))


def predicted(trainer, batch):
    networks = {"discriminator": trainer.raw_discriminator}
    return trainer.task.prediction(batch, trainer.generator(batch.L), **networks)


def follow(trainer, curve):
    """Let a trainer only pretend to train: epoch n sets all weights to n, and validation L1 is curve[n - 1]."""

    def _train_epoch():
        with torch.no_grad():
            for parameter in trainer.generator.parameters():
                parameter.fill_(trainer.epoch)
        return pd.DataFrame({"epoch": [trainer.epoch], "G total": [1.0]})

    trainer.train_epoch = _train_epoch
    trainer.validate = lambda: {"val L1": curve[trainer.epoch - 1], "val colorfulness": 3.0, "val truth": 40.0}
    return trainer.fit()


# one step


def test_the_warmup_needs_no_discriminator_and_refuses_a_gan_term(make):
    trainer = make(adversarial=False)
    weights = copied(trainer.generator)
    log = trainer.training_step(first_batch(trainer))
    assert trainer.phase == "warmup" and changed(weights, trainer.generator)
    assert {"L1", "G total"} <= set(log) and not [name for name in log if name.startswith("D ")]
    with pytest.raises(ValueError, match="discriminator"):
        make(adversarial=False, terms=[L1, GAN]).fit()


def test_an_adversarial_step_trains_both_real_networks(make):
    generator = Generator("test_efficientnet", None, res_blocks=1)
    trainer = make(generator=generator, discriminator=Discriminator(), changes=CONSTANT)
    g, d = copied(generator), copied(trainer.raw_discriminator)
    trainer.training_step(first_batch(trainer))
    assert trainer.phase == "adversarial"
    assert changed(g, generator) >= {"head.weight", "encoder.body.conv_stem.weight", "bottleneck.0.body.0.weight"}
    assert changed(d, trainer.raw_discriminator) >= {name for name in d if "weight" in name}


def test_each_networks_step_leaves_the_other_alone(make):
    trainer = make(terms=[GAN])
    batch, g, d = first_batch(trainer), copied(trainer.generator), copied(trainer.discriminator)
    trainer.discriminator_step(predicted(trainer, batch))
    assert not changed(g, trainer.generator) and changed(d, trainer.discriminator)
    assert all(parameter.grad is None for parameter in trainer.generator.parameters())
    d = copied(trainer.discriminator)
    gradients = {name: p.grad.clone() for name, p in trainer.discriminator.named_parameters()}
    trainer.generator_step(predicted(trainer, batch))
    assert changed(g, trainer.generator), "the GAN term must reach the generator through the discriminator"
    assert not changed(d, trainer.discriminator)
    for name, parameter in trainer.discriminator.named_parameters():
        assert torch.equal(parameter.grad, gradients[name]) and parameter.requires_grad


def test_the_discriminator_learns_to_tell_real_from_gray(make):
    trainer = make(discriminator=Discriminator(), changes=CONSTANT)
    batch = first_batch(trainer)
    gray = Prediction(batch.L, batch.ab, batch.rgb, torch.zeros_like(batch.ab))
    logs = [trainer.discriminator_step(gray) for _ in range(10)]
    first, last = ((log["D real"] + log["D fake"]).item() for log in (logs[0], logs[-1]))
    assert last < 0.7 * first
    assert logs[-1]["D accuracy (real)"] > 0.5 and logs[-1]["D accuracy (fake)"] > 0.5


@pytest.mark.parametrize("clip_norm", [1.0, 1e9], ids=["clipped", "as it is"])
def test_the_gradients_norm_is_limited(make, clip_norm):
    trainer = make(adversarial=False, changes={"clip_norm": clip_norm})
    batch, network = first_batch(trainer), trainer.generator
    loss = 1e6 * (network(batch.L) - batch.ab).square().mean()
    wanted = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)])
    norm = trainer._descend(loss, network, trainer.g_optimizer, trainer.g_schedule)
    found = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    torch.testing.assert_close(norm, wanted.norm())
    torch.testing.assert_close(found, wanted * min(1, clip_norm / wanted.norm()))


def test_the_generator_overfits_one_batch(make):
    trainer = make(adversarial=False, generator=Generator("test_efficientnet", None, res_blocks=1), changes=CONSTANT)
    batch = first_batch(trainer)
    trainer.generator.train()
    values = [trainer.training_step(batch)["L1"].item() for _ in range(14)]
    assert min(values[-3:]) < values[0] / 2, values


def test_a_step_predicts_once_and_looks_at_each_photo_once(make, perceptual, monkeypatch):
    trainer = make(terms=[GAN, L1, LossTerm("LPIPS", 10.0, perceptual.loss)])
    batch, calls = first_batch(trainer), []
    trainer.raw_generator.register_forward_hook(lambda *_: calls.append("generator"))
    hook = perceptual.model.net.register_forward_hook(lambda *_: calls.append("VGG"))
    trainer.raw_discriminator.register_forward_hook(lambda *_: calls.append("discriminator"))
    trainer.training_step(batch)
    hook.remove()
    assert sorted(calls) == ["VGG"] * 2 + ["discriminator"] * 3 + ["generator"]  # D: real, fake, fake for the generator


# an epoch


def test_every_term_is_logged_per_step_and_epoch_by_its_name(make):
    vividness = LossTerm("vividness", 0.1, lambda p: -p.ab_pred.abs().mean())
    trainer = make(terms=[L1, GAN, vividness])
    history = trainer.fit()
    for table in (history, trainer.steps, trainer.run.table("adversarial"), trainer.run.table("adversarial", "steps")):
        assert {"epoch", "L1", "GAN", "vividness", "G total", "D real", "D fake"} <= set(table)
    assert len(trainer.steps) == 8 and len(history) == 2
    total = 50 * trainer.steps["L1"] + trainer.steps["GAN"] + 0.1 * trainer.steps["vividness"]
    assert trainer.steps["G total"].tolist() == pytest.approx(total.tolist(), rel=1e-4)
    assert history["L1"][1] == pytest.approx(trainer.steps["L1"][4:].mean())


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_an_epoch_ends_with_its_validation_as_a_user_gets_the_photos(make, perceptual, sample_photos):
    trainer = make(adversarial=False, photos=sample_photos, perceptual=perceptual, epochs=1, changes=CONSTANT)
    row = trainer.fit().iloc[0]
    assert row[["val L1", "val PSNR", "val LPIPS", "val colorfulness", "val truth"]].notna().all()
    (batch,) = Batches(sample_photos.load("validation"), 100)
    with torch.no_grad():
        lab = torch.cat([(batch.L + 1) * 50, trainer.generator.eval()(batch.L) * 128], 1).permute(0, 2, 3, 1)
    as_file = (lab2rgb(lab.numpy()) * 255).round() / 255  # 8 bits, in gamut
    by_hand = np.abs(rgb2lab(as_file)[..., 1:] / 128 - batch.ab.permute(0, 2, 3, 1).numpy()).mean()
    assert row["val L1"] == pytest.approx(by_hand, abs=1e-3)


def test_after_every_epoch_it_is_shown_and_the_history_is_on_disk(make):
    rows = []
    make(epochs=3).fit(show=lambda t: rows.append((len(t.history), len(t.run.table("adversarial")))))
    assert rows == [(1, 1), (2, 2), (3, 3)]


CURVE = [0.5, 0.3, 0.4, 0.35, 0.31, 0.2]
WARMUP, BEST, LAST = (False, "best"), (True, "best"), (True, "last")


@pytest.mark.parametrize(
    ("kind", "patience", "length", "epochs", "saved"),
    [(BEST, 3, 6, 5, 2), (BEST, 9, 6, 6, 6), (LAST, 3, 6, 5, 5), (BEST, None, 4, 4, 2), (WARMUP, None, 4, 4, 4)],
)
def test_early_stopping_and_the_epoch_that_is_saved(make, kind, patience, length, epochs, saved):
    adversarial, keep = kind
    trainer = make(adversarial, {**CONSTANT, "keep": keep}, epochs=length, patience=patience)
    assert len(follow(trainer, CURVE)) == epochs
    assert load_file(trainer.run.file(trainer.phase))["0.weight"].unique().item() == saved


@pytest.mark.parametrize("decay", [None, 0.9])
def test_the_saved_weights_are_the_moving_average(make, decay):
    trainer = make(adversarial=False, epochs=1, lr=1e-2, changes={"ema_decay": decay})
    average = AveragedModel(trainer.raw_generator, multi_avg_fn=get_ema_multi_avg_fn(decay or 0.0))
    step = trainer.training_step

    def _training_step(*batches):
        log = step(*batches)
        average.update_parameters(trainer.raw_generator)
        return log

    trainer.training_step = _training_step
    history = trainer.fit()
    saved, raw = load_file(trainer.run.file("warmup")), trainer.raw_generator.state_dict()
    for name, weight in average.module.named_parameters():
        torch.testing.assert_close(saved[name], weight)
    assert torch.equal(saved["0.weight"], raw["0.weight"]) == (decay is None)
    assert ("val L1 raw" in history) == (decay is not None)


def test_batch_statistics_of_the_moving_average_are_measured_on_photos_without_augmentation(make):
    trainer = make(adversarial=False, epochs=1)
    trainer.fit()
    (batch,) = trainer.settling
    with torch.no_grad():
        features = trainer.ema.module[0](batch.L)
    norm = trainer.ema.module[1]
    assert torch.allclose(norm.running_mean, features.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, features.var((0, 2, 3)), atol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "rise", "wanted"),
    [
        ("constant", 0, [1] * 8),
        ("constant", 3, [0.25, 0.5, 0.75] + [1] * 5),
        ("cosine", 0, [0.5 + 0.5 * np.cos(np.pi * i / 8) for i in range(8)]),
    ],
)
def test_the_learning_rates_follow_their_schedule(make, schedule, rise, wanted):
    trainer, rates = make(changes={"schedule": schedule}, rise=rise, d_lr=4e-3), []
    step = trainer.training_step

    def _training_step(*batches):
        rates.append([o.param_groups[0]["lr"] for o in (trainer.g_optimizer, trainer.d_optimizer)])
        return step(*batches)

    trainer.training_step = _training_step
    trainer.fit()
    assert np.allclose(rates, np.outer(wanted, [1e-3, 4e-3]))


def test_the_same_seed_gives_the_same_history_and_another_one_another(make):
    one, same, other = (make(changes={"seed": seed}).fit(restart=True).drop(columns="seconds") for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same, check_exact=True)
    assert not one.equals(other)


def test_a_run_remembers_its_configuration_and_photos(make, sample_photos):
    trainer = make(adversarial=False, photos=sample_photos, epochs=1, start="mine")
    trainer.fit()
    run = Run("tiny")
    assert run.settings("warmup")["batch_size"] == 4 and run.begun_from("warmup").name == "mine"
    assert run.table("warmup", "manifest")["name"].tolist() == sample_photos.manifest["name"].tolist()


# what a cell may exchange


GAN_LOSSES = {
    "hinge": (
        lambda p: F.relu(1 - p.real_logits).mean(),
        lambda p: F.relu(1 + p.fake_logits).mean(),
        lambda p: -p.fake_logits.mean(),
    ),
    "LSGAN": (
        lambda p: (p.real_logits - 1).square().mean(),
        lambda p: p.fake_logits.square().mean(),
        lambda p: (p.fake_logits - 1).square().mean(),
    ),
}


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_another_gan_loss_of_both_networks(make, name):
    real, fake, gan = GAN_LOSSES[name]
    d_terms = [LossTerm("D real", 0.5, real), LossTerm("D fake", 0.5, fake)]
    trainer = make(terms=[LossTerm("GAN", 1.0, gan), L1], d_terms=d_terms)
    seen, step = [], trainer.discriminator_step

    def _discriminator_step(prediction):
        with torch.no_grad():
            seen.append(real(prediction.detached(trainer.raw_discriminator)).item())
        return step(prediction)

    trainer.discriminator_step = _discriminator_step
    trainer.fit()
    assert np.allclose(trainer.steps["D real"], seen, rtol=0.05)  # looking on moves the spectral norm a little


def test_another_optimizer(make):
    trainer = make(optimizer=lambda weights, lr: torch.optim.RMSprop(weights, lr, alpha=0.9), d_lr=3e-4)
    for optimizer, lr in ((trainer.g_optimizer, 1e-3), (trainer.d_optimizer, 3e-4)):
        assert type(optimizer.optimizer) is torch.optim.RMSprop and optimizer.param_groups[0]["lr"] == pytest.approx(lr)
    default = make().g_optimizer.param_groups[0]
    assert type(make().g_optimizer.optimizer) is torch.optim.Adam and tuple(default["betas"]) == (0.5, 0.999)


def test_n_critic_gives_the_discriminator_that_many_batches_per_step(make):
    trainer, seen = make(n_critic=2), {"D": [], "G": []}
    d_step, g_step = trainer.discriminator_step, trainer.generator_step
    trainer.discriminator_step = lambda p: (seen["D"].append(p.L), d_step(p))[1]
    trainer.generator_step = lambda p: (seen["G"].append(p.L), g_step(p))[1]
    trainer.fit()
    assert len(trainer.steps) == len(seen["G"]) == 4 and len(seen["D"]) == 8
    assert not torch.equal(seen["D"][0], seen["D"][1]) and torch.equal(seen["D"][1], seen["G"][0])
    assert trainer.d_optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)  # both schedules end together
    with pytest.raises(ValueError, match="n_critic=9"):
        make(n_critic=9)


def test_frozen_norms_and_a_frozen_encoder_stay_as_they_were(make):
    generator = Generator("test_efficientnet", None, res_blocks=1, freeze_encoder=True)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    trainer = make(adversarial=False, generator=generator, epochs=1, changes={"freeze_norms": True, "ema_decay": 0.5})
    trainer.fit()
    after = trainer.run.load("warmup").state_dict()
    different = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert "head.weight" in different and not [name for name in different if "norm" in name or "encoder" in name]


def test_compile_compiles_both_networks(make, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda network: compiled.append(network))
    trainer = make(changes={"compile": True})
    assert compiled == [trainer.raw_generator, trainer.raw_discriminator]


# watching


def test_out_of_gpu_memory_names_the_batch_size_to_try(make):
    trainer = make()

    def _training_step(*batches):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    trainer.training_step = _training_step
    with pytest.raises(RuntimeError, match="try batch_size=2"):
        trainer.fit()


WARNINGS = [("won", 1.0, 0.995, 30.0), ("one answer", 0.999, 0.02, 30.0), ("one answer", 0.0, 1.0, 30.0)]
WARNINGS += [("gray", 0.7, 0.6, 3.9), (None, 1.0, 0.6, 30.0), (None, 0.98, 0.98, 30.0), (None, 0.06, 0.94, 4.1)]


@pytest.mark.parametrize(("warning", "real", "fake", "colorfulness"), WARNINGS)
def test_each_collapse_has_its_one_warning(warning, real, fake, colorfulness):
    row = {"D accuracy (real)": real, "D accuracy (fake)": fake, "val colorfulness": colorfulness, "val truth": 40.0}
    found = collapse_warnings(row)
    assert (len(found) == 1 and warning in found[0]) if warning else not found


def test_a_warmup_may_be_gray_and_warnings_are_printed(make, capsys):
    assert not collapse_warnings({"val colorfulness": 0.0, "val truth": 40.0})
    trainer = make(epochs=1)
    trainer.validate = lambda: {"val L1": 0.1, "val colorfulness": 3.0, "val truth": 40.0}
    trainer.fit()
    assert "gray" in capsys.readouterr().out
