"""The trainer and its steps: what learns, what stays, when it stops, which weights are kept."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from skimage.color import lab2rgb, rgb2lab
from tiny import TinyGenerator

from helpers import workspace
from helpers.data.batches import Batches, augmentations
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.runs.run import Run
from helpers.training.losses import LossTerm, Prediction, gan_loss, l1_loss
from helpers.training.monitoring import EarlyStopping, collapse_warnings
from helpers.training.trainer import Trainer

L1 = LossTerm("L1", 50.0, l1_loss)
GAN = LossTerm("GAN", 1.0, gan_loss)


@pytest.fixture
def cfg(cfg):
    """The smoke profile with two batches an epoch."""
    return cfg.replace(batch_size=8, ema_decay=None, schedule="constant")


@pytest.fixture
def make(cfg, accelerator, sample_photos):
    """Make a trainer: of a tiny generator against nobody, unless told otherwise."""

    def make(generator=None, terms=(L1,), discriminator=None, perceptual=None, **changes):
        changed = cfg.replace(**changes)
        generator = generator or TinyGenerator()
        augment = augmentations(changed)
        return Trainer(changed, accelerator, generator, list(terms), sample_photos, augment, perceptual, discriminator)

    return make


def copied(module):
    """The parameters of a network as they are now, by name."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def differ(before, module):
    """The names of the parameters that are no longer what they were."""
    return {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}


def fixed_batch(trainer, count=4):
    (batch,) = Batches(trainer.photos.load("train", count), count, trainer.accelerator.device)
    return batch


def predicted(trainer, batch):
    """What the trainer's generator makes of a batch, for the loss terms to look at."""
    return trainer.task.predict(trainer.generator, batch, discriminator=trainer.raw_discriminator)


def follow(trainer, curve):
    """Let a trainer only seem to train: epoch n sets all weights to n, and validation L1 is curve[n - 1]."""

    def train_epoch(epoch):
        trainer.epoch = epoch
        with torch.no_grad():
            for parameter in trainer.generator.parameters():
                parameter.fill_(epoch)
        return pd.DataFrame({"epoch": [epoch], "G total": [1.0]})

    def validate():
        return {"val L1": curve[trainer.epoch - 1], "val PSNR": 20.0, "val colorfulness": 30.0, "val truth": 40.0}

    trainer.train_epoch, trainer.validate = train_epoch, validate
    return trainer.fit()


def saved_epoch(trainer):
    """The epoch whose weights were saved, by `follow`."""
    return load_file(trainer.run.file(trainer.phase))["0.weight"].unique().item()


def test_warmup_trains_the_generator_without_a_discriminator(make):
    bystander = Discriminator()
    before, trainer = copied(bystander), make()
    weights = copied(trainer.generator)
    trainer.training_step(next(iter(trainer.batches)))
    assert trainer.phase == "warmup" and trainer.discriminator is None
    assert differ(weights, trainer.generator) and not differ(before, bystander)
    assert all(parameter.grad is None for parameter in bystander.parameters())


def test_warmup_logs_nothing_of_a_discriminator(make):
    log = make().train_epoch(1)
    assert {"epoch", "L1", "G total"} <= set(log) and not [name for name in log if name.startswith("D ")]


def test_warmup_refuses_a_gan_term(make):
    with pytest.raises(ValueError, match="discriminator"):
        make(terms=[L1, GAN]).train_epoch(1)


def test_an_adversarial_step_changes_both_networks(make):
    trainer = make(Generator(weights=None, res_blocks=1), [L1, GAN], Discriminator())
    g, d = copied(trainer.generator), copied(trainer.discriminator)
    trainer.training_step(fixed_batch(trainer))
    assert trainer.phase == "adversarial"
    assert differ(g, trainer.generator) >= {"head.weight", "encoder.conv1.weight", "bottleneck.0.body.0.weight"}
    assert differ(d, trainer.discriminator) >= {name for name in d if "weight" in name}


def test_the_generators_step_leaves_the_discriminator_alone(make):
    trainer = make(terms=[GAN], discriminator=Discriminator())
    batch = fixed_batch(trainer)
    trainer.discriminator_step(predicted(trainer, batch))
    weights = copied(trainer.discriminator)
    gradients = {name: p.grad.clone() for name, p in trainer.discriminator.named_parameters()}
    g = copied(trainer.generator)
    trainer.generator_step(predicted(trainer, batch))
    assert differ(g, trainer.generator), "the GAN term must reach the generator through the discriminator"
    assert not differ(weights, trainer.discriminator)
    for name, parameter in trainer.discriminator.named_parameters():
        assert torch.equal(parameter.grad, gradients[name]) and parameter.requires_grad


def test_the_discriminators_step_leaves_the_generator_alone(make):
    trainer = make(terms=[GAN], discriminator=Discriminator())
    batch, g = fixed_batch(trainer), copied(trainer.generator)
    trainer.discriminator_step(predicted(trainer, batch))
    assert not differ(g, trainer.generator)
    assert all(parameter.grad is None for parameter in trainer.generator.parameters())


def test_the_discriminator_learns_to_tell_real_from_gray(make):
    trainer = make(terms=[GAN], discriminator=Discriminator(), adversarial_lr=1e-3)
    batch = fixed_batch(trainer)
    gray = Prediction(batch.L, batch.ab, batch.rgb, torch.zeros_like(batch.ab))
    logs = [trainer.discriminator_step(gray) for _ in range(10)]
    first, last = ((log["D real"] + log["D fake"]).item() for log in (logs[0], logs[-1]))
    assert last < 0.7 * first
    assert logs[-1]["D accuracy (real)"] > 0.5 and logs[-1]["D accuracy (fake)"] > 0.5


def test_gradients_are_clipped(make):
    trainer = make()
    batch = fixed_batch(trainer)
    huge = 1e6 * (trainer.generator(batch.L) - batch.ab).square().mean()
    norm = trainer._descend(huge, trainer.generator, trainer.g_optimizer, trainer.g_schedule)
    clipped = torch.cat([parameter.grad.flatten() for parameter in trainer.generator.parameters()]).norm()
    assert norm > 1000 * trainer.cfg.clip_norm
    assert clipped <= trainer.cfg.clip_norm + 1e-3 and clipped > 0.9 * trainer.cfg.clip_norm


def test_small_gradients_are_left_as_they_are(make):
    trainer = make(clip_norm=1e9)
    batch = fixed_batch(trainer)
    loss = (trainer.generator(batch.L) - batch.ab).square().mean()
    wanted = torch.autograd.grad(loss, list(trainer.generator.parameters()), retain_graph=True)
    trainer._descend(loss, trainer.generator, trainer.g_optimizer, trainer.g_schedule)
    for parameter, gradient in zip(trainer.generator.parameters(), wanted, strict=True):
        assert torch.allclose(parameter.grad, gradient)


def test_the_generator_overfits_one_batch(make):
    trainer = make(Generator(weights=None, res_blocks=1), warmup_lr=1e-3)
    batch = fixed_batch(trainer)
    trainer.generator.train()
    values = [trainer.training_step(batch)["L1"].item() for _ in range(14)]
    assert min(values[-3:]) < values[0] / 2, values


def test_every_term_is_logged_by_its_name_per_step_and_epoch(make):
    vividness = LossTerm("vividness", 0.1, lambda p: -p.ab_pred.abs().mean())
    trainer = make(terms=[L1, GAN, vividness], discriminator=Discriminator(), adversarial_epochs=1)
    history = trainer.fit()
    for table in (history, trainer.steps, trainer.run.table("adversarial"), trainer.run.table("adversarial", "steps")):
        assert {"L1", "GAN", "vividness", "G total", "D real", "D fake"} <= set(table)
    assert len(trainer.steps) == len(trainer.batches) and len(history) == 1
    total = 50 * trainer.steps["L1"] + trainer.steps["GAN"] + 0.1 * trainer.steps["vividness"]
    assert trainer.steps["G total"].tolist() == pytest.approx(total.tolist(), rel=1e-4)


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_an_epoch_ends_with_its_validation(make, perceptual, sample_photos):
    trainer = make(perceptual=perceptual, warmup_epochs=1)
    row = trainer.fit().iloc[0]
    assert row[["val L1", "val PSNR", "val LPIPS", "val colorfulness", "val truth"]].notna().all()
    (batch,) = Batches(sample_photos.load("validation"), 100)
    with torch.no_grad():
        lab = torch.cat([(batch.L + 1) * 50, trainer.generator.eval()(batch.L) * 128], 1).permute(0, 2, 3, 1)
    as_file = (lab2rgb(lab.numpy()) * 255).round() / 255  # 8 bits, in gamut
    by_hand = np.abs(rgb2lab(as_file)[..., 1:] / 128 - batch.ab.permute(0, 2, 3, 1).numpy()).mean()
    assert row["val L1"] == pytest.approx(by_hand, abs=1e-3)


def test_show_is_called_after_every_epoch(make):
    seen = []
    make(warmup_epochs=2).fit(show=lambda trainer: seen.append(len(trainer.history)))
    assert seen == [1, 2]


def test_early_stopping_on_a_made_curve():
    stopper = EarlyStopping(patience=2)
    best, stop = [], []
    for epoch, value in enumerate([0.9, 0.5, 0.6, 0.4, 0.4, 0.45], start=1):
        best.append(stopper.update(epoch, value))
        stop.append(stopper.should_stop)
    assert best == [True, True, False, True, False, False]
    assert stop == [False, False, False, False, False, True]
    assert (stopper.best, stopper.best_epoch) == (0.4, 4)


def test_early_stopping_takes_no_nan_for_the_best():
    stopper = EarlyStopping(patience=3)
    assert [stopper.update(e, v) for e, v in enumerate([0.5, float("nan"), 0.4], 1)] == [True, False, True]


def test_the_adversarial_phase_stops_early_and_keeps_its_best_epoch(make):
    trainer = make(discriminator=Discriminator(), adversarial_epochs=10, patience=3)
    history = follow(trainer, [0.5, 0.3, 0.4, 0.35, 0.31, 0.2, 0.1, 0.1, 0.1, 0.1])
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert saved_epoch(trainer) == 2


def test_without_stopping_the_adversarial_phase_keeps_its_best_epoch(make):
    trainer = make(discriminator=Discriminator(), adversarial_epochs=5, patience=30)
    assert len(follow(trainer, [0.5, 0.3, 0.4, 0.2, 0.25])) == 5
    assert saved_epoch(trainer) == 4


def test_the_adversarial_phase_keeps_its_last_epoch_if_told_so(make):
    trainer = make(discriminator=Discriminator(), adversarial_epochs=4, patience=30, keep="last")
    follow(trainer, [0.5, 0.2, 0.3, 0.4])
    assert saved_epoch(trainer) == 4 and trainer.stopper.best_epoch == 2


def test_the_warmups_learning_rate_rises_and_the_adversarial_one_does_not(make):
    rates = []
    for discriminator in (None, Discriminator()):
        trainer = make(discriminator=discriminator, warmup_rise=3, warmup_lr=1e-3, adversarial_lr=1e-3)
        for batch in [*trainer.batches] * 2:
            rates.append(trainer.g_optimizer.param_groups[0]["lr"])
            trainer.training_step(batch)
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3] + [1e-3] * 4)


def test_warmup_never_stops_early_and_keeps_its_last_epoch(make):
    trainer = make(warmup_epochs=6, patience=2)
    assert len(follow(trainer, [0.1, 0.5, 0.5, 0.5, 0.5, 0.5])) == 6
    assert saved_epoch(trainer) == 6


def test_the_history_is_on_disk_after_every_epoch(make):
    trainer, rows = make(warmup_epochs=3), []
    fit = trainer.fit
    trainer.fit = lambda: fit(show=lambda t: rows.append((len(t.run.table("warmup")), "warmup" in t.run.phases())))
    follow(trainer, [0.3, 0.2, 0.1])
    assert rows == [(1, True), (2, True), (3, True)]


def test_the_saved_weights_are_the_ema_weights(make):
    trainer = make(ema_decay=0.9, warmup_lr=1e-2)
    trainer.generator.train()
    raw = []
    for _ in range(4):
        trainer.training_step(fixed_batch(trainer))
        raw.append({name: t.clone() for name, t in trainer.generator.state_dict().items()})
    trainer.run.begin("warmup", trainer.cfg, trainer.photos)
    trainer.run.save("warmup", trainer.final_generator(), trainer.cfg)
    saved = load_file(trainer.run.file("warmup"))
    for name in ("0.weight", "2.bias", "1.weight"):
        by_hand = raw[0][name]
        for weights in raw[1:]:
            by_hand = 0.9 * by_hand + 0.1 * weights[name]
        assert torch.allclose(saved[name], by_hand, atol=1e-6), name
    assert not torch.allclose(saved["0.weight"], raw[-1]["0.weight"], atol=1e-4)


def test_the_ema_generator_gets_batch_statistics_of_its_own(make):
    trainer = make(ema_decay=0.9, warmup_lr=1e-2, warmup_epochs=2)
    batch = fixed_batch(trainer)
    trainer.settling = [batch]
    trainer.fit()
    convolution, norm, *_ = trainer.ema.module
    with torch.no_grad():
        features = convolution(batch.L)
    assert torch.allclose(norm.running_mean, features.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(norm.running_var, features.var((0, 2, 3)), atol=1e-5)
    assert not torch.allclose(norm.running_mean, trainer.generator[1].running_mean, atol=1e-4)


def test_what_is_frozen_keeps_its_statistics_and_what_learns_beside_it_gets_new_ones(make):
    generator = Generator(weights=None, res_blocks=1, bottleneck="identity")
    generator.encoder.requires_grad_(False)
    frozen = {name: value.clone() for name, value in generator.encoder.state_dict().items()}
    trainer = make(generator, ema_decay=0.9, warmup_lr=1e-2, warmup_epochs=2)
    batch = fixed_batch(trainer)
    trainer.settling = [batch]
    trainer.fit()
    after = trainer.ema.module.eval()
    assert all(torch.equal(after.encoder.state_dict()[name], value) for name, value in frozen.items())
    with torch.no_grad():
        features = after.decoder[0].up(after.bottleneck(after.encoder(batch.L)[-1]))
    assert torch.allclose(after.decoder[0].norm.running_mean, features.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(after.decoder[0].norm.running_var, features.var((0, 2, 3)), rtol=1e-3, atol=1e-4)


def test_fit_saves_the_ema_weights_if_there_are_any_and_else_the_raw_weights(make):
    for decay in (0.9, None):
        trainer = make(ema_decay=decay, warmup_epochs=1, warmup_lr=1e-2)
        history = trainer.fit(restart=True)
        saved, raw = load_file(trainer.run.file("warmup")), trainer.generator.state_dict()
        assert all(torch.equal(saved[name], t) for name, t in trainer.final_generator().state_dict().items())
        assert torch.equal(saved["0.weight"], raw["0.weight"]) == (decay is None)
        assert ("val L1 raw" in history) == (decay is not None)


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 0.0), ("constant", 1.0)])
def test_the_learning_rate_follows_its_schedule(make, schedule, last):
    trainer = make(schedule=schedule, warmup_epochs=3, warmup_lr=1e-3)
    rates = []
    for epoch in (1, 2, 3):
        rates.append(trainer.g_optimizer.param_groups[0]["lr"] / 1e-3)
        trainer.train_epoch(epoch)
    rates.append(trainer.g_optimizer.param_groups[0]["lr"] / 1e-3)
    assert rates[0] == pytest.approx(1) and rates[-1] == pytest.approx(last, abs=1e-6)
    if schedule == "cosine":
        assert rates == pytest.approx([1, 0.75, 0.25, 0], abs=1e-6)  # half a cosine in thirds


def test_each_phase_has_its_own_learning_rate_and_the_reports_betas(make):
    trainer = make(discriminator=Discriminator(), adversarial_lr=3e-4, warmup_lr=1e-3)
    for optimizer in (trainer.g_optimizer, trainer.d_optimizer):
        assert optimizer.param_groups[0]["lr"] == 3e-4 and tuple(optimizer.param_groups[0]["betas"]) == (0.5, 0.999)
    assert make(warmup_lr=1e-3).g_optimizer.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("adversarial", [False, True], ids=["warmup", "adversarial"])
def test_the_same_seed_gives_the_same_history(make, adversarial):
    def train(seed):
        workspace.seed_everything(seed)
        discriminator = Discriminator() if adversarial else None
        trainer = make(terms=[L1, GAN] if adversarial else [L1], discriminator=discriminator, ema_decay=0.9)
        return trainer.fit(restart=True).drop(columns="seconds")

    first = train(1)
    pd.testing.assert_frame_equal(first, train(1), check_exact=True)
    assert not first.equals(train(2))


def test_a_run_remembers_its_configuration_and_photos(make, sample_photos):
    trainer = make(warmup_epochs=1, run="mine")
    trainer.fit()
    run = Run("mine")
    assert run.settings("warmup")["warmup_epochs"] == 1 and run.settings("warmup")["encoder"] == "resnet18"
    assert pd.read_csv(run.file("warmup", "_manifest.csv"))["name"].tolist() == sample_photos.manifest["name"].tolist()


HEALTHY = {
    **{"G total": 5.0, "D real": 0.6, "D fake": 0.6, "D accuracy (real)": 0.7, "D accuracy (fake)": 0.6},
    **{"val L1": 0.07, "val colorfulness": 30.0, "val truth": 40.0},
}
WARNINGS = {
    "not a number": {"G total": float("nan")},
    "has won": {"D accuracy (real)": 1.0, "D accuracy (fake)": 0.995},
    "collapsed to one answer": {"D accuracy (real)": 0.999, "D accuracy (fake)": 0.02},
    "collapsed to one answer (fake)": {"D accuracy (real)": 0.0, "D accuracy (fake)": 1.0},
    "gray": {"val colorfulness": 3.9},
}


@pytest.mark.parametrize("warning", WARNINGS)
def test_each_collapse_has_its_one_warning(warning):
    (sentence,) = collapse_warnings({**HEALTHY, **WARNINGS[warning]})
    assert warning.removesuffix(" (fake)") in sentence


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"D accuracy (real)": 1.0},
        {"D accuracy (fake)": 1.0},
        {"D accuracy (real)": 0.98, "D accuracy (fake)": 0.98},
        {"D accuracy (real)": 0.06, "D accuracy (fake)": 0.94},
        {"val colorfulness": 4.1},
    ],
)
def test_a_healthy_epoch_has_no_warning(change):
    assert collapse_warnings({**HEALTHY, **change}) == []


def test_a_warmup_epoch_has_no_warning_about_a_discriminator():
    row = {name: value for name, value in HEALTHY.items() if not name.startswith("D ")}
    assert collapse_warnings(row) == []
    (sentence,) = collapse_warnings({**row, "val L1": float("nan")})
    assert "val L1" in sentence


def test_warnings_are_printed_while_training(make, capsys):
    trainer = make(warmup_epochs=1)
    follow(trainer, [float("nan")])
    assert "not a number: val L1" in capsys.readouterr().out
