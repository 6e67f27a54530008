"""The trainer: rates, moving averages, which weights are saved, when it stops, what it logs and says."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import TinyGenerator
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from helpers.data.batches import Batches
from helpers.models.blocks import freeze_norms
from helpers.models.generator import Generator
from helpers.training.monitoring import collapse_warnings

ACCURACIES = ("D accuracy (real)", "D accuracy (fake)")
CONSTANT = {"schedule": "constant", "ema_decay": None}


def after_each_step(trainer, action):
    """Call `action()` after each step."""
    step = trainer.step
    trainer.step = lambda *batches: (step(*batches), action())[0]


# rates and averages


COSINE = 0.5 + 0.5 * np.cos(np.pi * np.arange(8) / 8)
RATES = [("constant", 0, 1, [1] * 8), ("constant", 3, 1, [0.25, 0.5, 0.75] + [1] * 5), ("cosine", 0, 1, COSINE)]
RATES += [("cosine", 1, 2, COSINE[::2] * [0.5, 1, 1, 1])]


@pytest.mark.parametrize(("schedule", "warmup", "n", "wanted"), RATES)
def test_all_learning_rates_follow_their_schedule(make, schedule, warmup, n, wanted):
    how = {"rates": (1e-3, 4e-3), "lr_warmup_steps": warmup, "batches_per_step": n}
    trainer, found = make(changes={"schedule": schedule}, **how), []
    after_each_step(trainer, lambda: found.append([each.param_groups[0]["lr"] for each in trainer.optimizers]))
    trainer.fit()
    assert np.allclose(found, np.outer(wanted, [1e-3, 4e-3]))


@pytest.mark.parametrize("decay", [None, 0.9])
def test_the_saved_weights_are_the_moving_average_and_stand_beside_the_raw_ones(make, decay):
    trainer = make(adversarial=False, rates=(1e-2,), changes={"ema_decay": decay})
    average = AveragedModel(trainer.generator, multi_avg_fn=get_ema_multi_avg_fn(decay or 0.0))
    after_each_step(trainer, lambda: average.update_parameters(trainer.generator))
    history, raw = trainer.fit(), trainer.generator.state_dict()
    saved = trainer.run.load("warmup", into=TinyGenerator()).state_dict()
    for name, weight in average.module.named_parameters():
        torch.testing.assert_close(saved[name], weight)
    assert torch.equal(saved["0.weight"], raw["0.weight"]) == (decay is None)
    assert ("val L1 raw" in history) == (decay is not None)


@pytest.mark.parametrize("fixed", [False, True])
def test_batch_statistics_of_the_average_are_measured_anew_only_where_they_learn(make, fixed):
    network = Generator("test_efficientnet", None, res_blocks=1) if fixed else TinyGenerator()
    if fixed:
        freeze_norms(network)
    trainer, modes = make(adversarial=False, epochs=1, networks=[network]), set()
    trainer.ema.register_forward_hook(lambda ema, *_: modes.add(ema.training))
    trainer.fit()
    assert modes == ({False} if fixed else {True, False})
    if not fixed:
        (batch,) = Batches(trainer.photos.load("train"), 32)  # without augmentation
        features, norm = trainer.ema[0](batch.L), trainer.ema[1]
        assert torch.allclose(norm.running_mean, features.mean((0, 2, 3)), atol=1e-5)
        assert torch.allclose(norm.running_var, features.var((0, 2, 3)), atol=1e-5)


def test_what_is_frozen_stays_as_it_was_in_both_networks(make):
    generator = Generator("test_efficientnet", None, res_blocks=1, freeze_encoder=True)
    freeze_norms(generator)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    trainer = make(networks=[generator], epochs=1)
    judge = trainer.unwrapped["discriminator"].layers
    judge[1].requires_grad_(False)
    trainer.fit()
    after = trainer.run.load("adversarial").state_dict()
    different = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert "head.weight" in different and not [name for name in different if "norm" in name or "encoder" in name]
    assert (judge[1].weight == 1).all() and not judge[1].weight.requires_grad and judge[3].weight.requires_grad


# which epoch is saved, and when it stops


def follow(trainer, curve):
    """Let a trainer only pretend to train: epoch n sets all weights to n, and validation L1 is curve[n - 1]."""

    def _train_epoch():
        with torch.no_grad():
            for parameter in trainer.generator.parameters():
                parameter.fill_(trainer.epoch)
        return pd.DataFrame({"epoch": [trainer.epoch], "G total": [1.0]})

    trainer.train_epoch = _train_epoch
    trainer.validate = lambda network: (None, pd.DataFrame({"L1": [curve[trainer.epoch - 1]]}))
    return trainer.fit()


FALLS, RISES = [0.5, 0.3, 0.4, 0.35, 0.31, 0.2], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
EPOCHS = [
    # keep, patience, burn-in, curve, epochs that it trains, the saved one, the best one
    ("best", 3, 0, FALLS, 5, 2, 2),
    ("best", None, 0, FALLS[:4], 4, 2, 2),
    ("last", 3, 0, FALLS, 5, 5, 2),
    ("best", 2, 0, RISES, 3, 1, 1),
    ("best", 2, 3, RISES, 6, 4, 4),  # the first three count for nothing
    ("best", 9, 20, RISES[:4], 4, 4, 4),  # a burn-in longer than the training: the last one
]


@pytest.mark.parametrize(("keep", "patience", "burn_in", "curve", "epochs", "saved", "best"), EPOCHS)
def test_early_stopping_and_the_epoch_that_is_saved(make, keep, patience, burn_in, curve, epochs, saved, best):
    trainer = make(changes=CONSTANT, epochs=len(curve), keep=keep, patience=patience, burn_in=burn_in)
    assert len(follow(trainer, curve)) == epochs and trainer.best == best
    network = trainer.run.load("adversarial", into=TinyGenerator())
    assert network[0].weight.unique().item() == trainer.final_generator()[0].weight.unique().item() == saved


# what is logged, saved and said


def test_what_the_step_returns_is_logged_by_its_names_per_step_and_epoch(make):
    trainer = make(edits=[('"GAN": gan,', '"GAN": gan, "a number": 0.5, "vividness": ab.abs().mean(),')])
    rows = []
    history = trainer.fit(show=lambda t: rows.append((len(t.history), len(t.run.table("adversarial")))))
    assert rows == [(1, 1), (2, 2)]
    for table in (history, trainer.steps, trainer.run.table("adversarial"), trainer.run.table("adversarial", "steps")):
        assert {"epoch", "L1", "GAN", "vividness", "G total", "D loss"} <= set(table)
        assert (table["a number"] == 0.5).all()
    total = 50 * trainer.steps["L1"] + trainer.steps["GAN"]
    assert len(trainer.steps) == 8 and trainer.steps["G total"].tolist() == pytest.approx(total.tolist(), rel=1e-4)
    assert history["L1"][1] == pytest.approx(trainer.steps["L1"][4:].mean())


def test_the_same_seed_is_the_same_training_even_on_batches_that_were_looked_at(make):
    def _history(seed, look):
        trainer = make(changes={"seed": seed})
        assert not look or [*trainer.batches]
        torch.manual_seed(0)
        return trainer.fit(restart=True).drop(columns="seconds")

    one, same, other = _history(1, False), _history(1, True), _history(2, False)
    pd.testing.assert_frame_equal(one, same, check_exact=True)
    assert not one.equals(other)


def test_compile_compiles_both_networks(make, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda network: compiled.append(network))
    trainer = make(changes={"compile": True})
    assert compiled == [*trainer.unwrapped.values()]


MEMORY = ("ab = generator(batch.L)", 'raise torch.OutOfMemoryError("2 GiB")')
WRONG = [(RuntimeError, "batch_size=2", MEMORY), (TypeError, "dict", ('    return {"G total"', '    log = {"G total"'))]


@pytest.mark.parametrize(("error", "said", "edit"), WRONG, ids=["memory", "nothing returned"])
def test_an_error_says_what_to_do(make, error, said, edit):
    with pytest.raises(error, match=said):
        make(edits=[edit]).fit()
    with pytest.raises(ValueError, match="batches_per_step=9"):
        make(batches_per_step=9)


WARNINGS = [("over 99%", 1.0, 0.995, 30.0), ("one answer", 0.999, 0.02, 30.0), ("one answer", 0.0, 1.0, 30.0)]
WARNINGS += [("gray", 0.7, 0.6, 3.9), (None, 1.0, 0.6, 30.0), (None, 0.98, 0.98, 30.0), (None, 0.06, 0.94, 4.1)]


def test_each_collapse_has_its_one_warning_and_a_warmup_may_be_gray(make, capsys):
    for said, *values, colorfulness in WARNINGS:
        row = dict(zip(ACCURACIES, values, strict=True)) | {"val colorfulness": colorfulness, "val truth": 40.0}
        found = collapse_warnings(row)
        assert (len(found) == 1 and said in found[0]) if said else not found
    assert not collapse_warnings({"val colorfulness": 0.0, "val truth": 40.0})
    gray = lambda network: (None, pd.DataFrame({"L1": [0.1], "colorfulness": [3.0], "truth": [40.0]}))  # noqa: E731
    logged = ", ".join(f'"{name}": 0.7' for name in ACCURACIES)
    make(epochs=1, edits=[('"D loss": d_loss', logged)], validate=gray).fit()
    assert "gray" in capsys.readouterr().out
