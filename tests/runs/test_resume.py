"""A training that was stopped is resumed as if it had not been; what does not belong is refused."""

import os
import pickle
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest
import torch
from malicious import MaliciousPickle
from notebook_tools import PROJECT
from safetensors.torch import load_file
from tiny import TinyGenerator

from helpers import workspace
from helpers.data.batches import augmentations
from helpers.models.discriminator import Discriminator
from helpers.training import checkpoint, losses, phases
from helpers.training.trainer import Trainer

L1 = losses.LossTerm("L1", 50.0, losses.l1_loss)
GAN = losses.LossTerm("GAN", 1.0, losses.gan_loss)


@pytest.fixture
def make(cfg, accelerator, sample_photos):
    """Make a trainer as a fresh kernel would, from the same seed; changes go to the configuration."""

    def make(adversarial=True, terms=(GAN, L1), **changes):
        changed = cfg.replace(**{"batch_size": 4, "ema_decay": 0.9, "run": "tiny"} | changes)
        workspace.seed_everything(changed.seed)
        generator, discriminator = TinyGenerator(), Discriminator() if adversarial else None
        terms = list(terms) if adversarial else [L1]
        return Trainer(
            changed, accelerator, generator, terms, sample_photos, augmentations(changed), None, discriminator
        )

    return make


class Crash(BaseException):
    """What no code catches: the machine has gone."""


def crash_after(trainer, steps):
    """Let the machine disappear after some steps, counted over all epochs."""
    step, left = trainer.training_step, [steps]

    def training_step(*batches):
        if left[0] == 0:
            raise Crash
        left[0] -= 1
        return step(*batches)

    trainer.training_step = training_step


def outcome(trainer):
    """All that a training leaves: weights, history, steps, the saved file, the next draw of chance."""
    history = trainer.history.drop(columns="seconds")
    weights = {
        f"{name}.{key}": t for name, part in checkpoint.parts(trainer).items() for key, t in part.state_dict().items()
    }
    return history, trainer.steps, weights, load_file(trainer.run.file(trainer.phase))


def assert_same(one, other):
    for a, b in zip(one[:2], other[:2], strict=True):
        pd.testing.assert_frame_equal(a, b, check_exact=True)
    for a, b in zip(one[2:], other[2:], strict=True):
        tensors = {name for name, value in a.items() if torch.is_tensor(value)}
        assert tensors and tensors <= b.keys()
        assert all(torch.equal(a[name], b[name]) for name in tensors)


UNDISTURBED = {}


def undisturbed(make, adversarial=True):
    """The outcome of a training that nobody stopped; trained once for all tests."""
    if adversarial not in UNDISTURBED:
        whole = make(adversarial)
        whole.fit()
        UNDISTURBED[adversarial] = outcome(whole)
        shutil.rmtree(whole.run.path)
    return UNDISTURBED[adversarial]


@pytest.mark.parametrize(
    ("adversarial", "steps", "minutes"),
    [(True, steps, 0.0) for steps in (0, 1, 3, 4, 6)] + [(True, 5, 1000.0), (False, 3, 0.0), (False, 5, 1000.0)],
)
def test_after_a_crash_the_result_is_the_same_bit_for_bit(make, steps, adversarial, minutes):
    whole = undisturbed(make, adversarial)
    broken = make(adversarial, checkpoint_minutes=minutes)
    crash_after(broken, steps)
    with pytest.raises(Crash):
        broken.fit()
    torch.rand(7)  # a new kernel has another state of chance
    again = make(adversarial, checkpoint_minutes=minutes)
    again.fit()
    assert_same(whole, outcome(again))


SMALL = {"size": 32, "res_blocks": 0, "batch_size": 2, "warmup_epochs": 1, "checkpoint_minutes": 0.0}


def trained(workspace, kill_at=None):
    """Train a small warmup in a process of its own; kill it (SIGKILL) when it has left a checkpoint of that number."""
    env = os.environ | {"COLORIZE_WORKSPACE": str(workspace), "PYTHONPATH": str(PROJECT)}
    fields = ["precision=fp32", *(f"{name}={value}" for name, value in SMALL.items())]
    command = [sys.executable, "-m", "helpers.training", "--phase", "warmup", "--set", *fields]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        if kill_at:
            while not list(workspace.glob(f"runs/smoke/warmup_checkpoints/*{kill_at}.pt")):
                assert process.poll() is None
            process.kill()
        return process.communicate()[0], process.returncode


def test_a_process_that_is_killed_goes_on_bit_for_bit(cfg, tmp_path):
    phases.train(cfg.replace(**SMALL), ["warmup"])
    broken = tmp_path / "broken"
    assert trained(broken, kill_at=3)[1] == -signal.SIGKILL
    printed, code = trained(broken)
    assert code == 0 and "going on with warmup epoch 1/1, after step" in printed
    weights = [load_file(folder / "runs/smoke/warmup.safetensors") for folder in (tmp_path / "workspace", broken)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_streamed_photos_are_resumed_in_the_same_order(make):
    whole = undisturbed(make)  # with photos in memory
    broken = make(memory_gb=0.0, checkpoint_minutes=0.0)
    crash_after(broken, 5)
    with pytest.raises(Crash):
        broken.fit()
    again = make(memory_gb=0.0)
    again.fit()
    assert_same(whole, outcome(again))


def test_early_stopping_goes_on_counting(make):
    whole = make(run="whole", adversarial_epochs=6, patience=1, adversarial_lr=0.5)
    epochs = len(whole.fit())
    assert epochs < 6
    broken = make(adversarial_epochs=6, patience=1, adversarial_lr=0.5)
    crash_after(broken, 4 * (epochs - 1) + 2)
    with pytest.raises(Crash):
        broken.fit()
    again = make(adversarial_epochs=6, patience=1, adversarial_lr=0.5)
    again.fit()
    assert_same(outcome(whole), outcome(again))


def test_a_finished_run_is_shown_and_not_trained_again(make, capsys):
    first = make()
    history = first.fit()
    again, shown = make(), []
    again.training_step = None  # cannot be called
    pd.testing.assert_frame_equal(again.fit(show=shown.append), history)
    assert shown == [again] and again.validated.shape == again.validation.shape
    assert "has finished its adversarial" in capsys.readouterr().out
    first_weights, again_weights = first.final_generator().state_dict(), again.final_generator().state_dict()
    assert all(torch.equal(first_weights[name], again_weights[name]) for name in first_weights)


def test_restart_starts_over_and_archives_the_old_run(make):
    first = make()
    first.fit()
    weights = first.run.file("adversarial").read_bytes()
    again = make(adversarial_epochs=1)
    assert len(again.fit(restart=True)) == 1
    (archived,) = first.run.path.glob("earlier-adversarial-*")
    assert (archived / "adversarial.safetensors").read_bytes() == weights


def test_other_settings_are_refused_by_name(make):
    make().fit()
    changed = make(lambda_l1=100.0, terms=(GAN, losses.LossTerm("L1", 100.0, losses.l1_loss)), adversarial_lr=3e-4)
    with pytest.raises(ValueError, match="restart=True") as caught:
        changed.fit()
    for told in (
        "lambda_l1: 50.0 then, 100.0 now",
        "weight of L1: 50.0 then",
        "adversarial_lr: 0.0001 then, 0.0003 now",
    ):
        assert told in str(caught.value)
    assert "batch_size" not in str(caught.value)


def test_what_only_the_adversarial_phase_uses_does_not_refuse_a_finished_warmup(make, capsys):
    make(adversarial=False).fit()
    make(adversarial=False, lambda_l1=100.0, adversarial_epochs=7, n_critic=2, keep="last").fit()
    assert "has finished its warmup" in capsys.readouterr().out
    with pytest.raises(ValueError, match="warmup_lr: 0.0002 then, 0.001 now"):
        make(adversarial=False, warmup_lr=1e-3).fit()


def test_a_loss_term_that_was_written_anew_is_noticed(make):
    def slope(factor):
        return losses.LossTerm(
            "slope", 1.0, {2: lambda p: 2 * p.ab_pred.mean(), 3: lambda p: 3 * p.ab_pred.mean()}[factor]
        )

    make(terms=(GAN, slope(2))).fit()
    make(terms=(GAN, slope(2))).fit()  # written anew, but the same
    with pytest.raises(ValueError, match="function of slope: <lambda>"):
        make(terms=(GAN, slope(3))).fit()


def checkpoint_files(trainer):
    return trainer.checkpoints.files()


def test_the_last_two_checkpoints_are_kept_and_at_the_end_one(make):
    broken = make(checkpoint_minutes=0.0)
    crash_after(broken, 5)
    with pytest.raises(Crash):
        broken.fit()
    assert len(checkpoint_files(broken)) == 2
    again = make(checkpoint_minutes=0.0)
    again.fit()
    (last,) = checkpoint_files(again)
    assert torch.load(last, weights_only=True)["finished"]


@pytest.mark.parametrize("tenth", [0, 5, 9])
def test_a_cut_checkpoint_is_named_and_the_one_before_it_used(make, tenth, capsys):
    whole = undisturbed(make)
    broken = make(checkpoint_minutes=0.0)
    crash_after(broken, 5)
    with pytest.raises(Crash):
        broken.fit()
    newest = checkpoint_files(broken)[0]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size * tenth // 10])
    again = make()
    again.fit()
    printed = capsys.readouterr().out
    assert f"passed over the checkpoint {newest}" in printed and "after step" in printed
    assert_same(whole, outcome(again))


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_a_malicious_checkpoint_leaves_no_trace(make, write, tmp_path, capsys):
    trace = tmp_path / "trace"
    trainer = make()
    path = trainer.checkpoints.folder / "000009.pt"
    path.parent.mkdir(parents=True)
    write(MaliciousPickle(trace), path)
    with pytest.raises(ValueError, match="restart=True"):  # to start over has to be asked for
        trainer.checkpoints.latest()
    assert "passed over" in capsys.readouterr().out and not trace.exists()
    torch.load(path, weights_only=False) if write is torch.save else pickle.loads(path.read_bytes())
    assert trace.exists()  # it does work where it is let


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_stop_button_leaves_a_checkpoint_and_says_how_to_go_on(make, number, capsys):
    whole = undisturbed(make)
    stopped = make()
    step = stopped.training_step

    def training_step(*batches):
        if len(stopped.steps) + len(stopped.logs) == 5:
            os.kill(os.getpid(), number)
        return step(*batches)

    stopped.training_step = training_step
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    assert signal.getsignal(number) is before
    assert "stopped in epoch 2 of 2, after step 2 of 4; all of it is kept." in capsys.readouterr().out
    again = make()
    again.fit()
    assert "going on with adversarial epoch 2/2, after step 2" in capsys.readouterr().out
    assert_same(whole, outcome(again))


def test_a_loss_that_is_no_number_stops_the_training_and_is_never_kept(make):
    poisoned = [2]

    def poison(prediction):
        poisoned[0] -= 1
        return prediction.ab_pred.mean() * (float("nan") if poisoned[0] < 0 else 1.0)

    trainer = make(terms=(GAN, L1, losses.LossTerm("poison", 1.0, poison)), checkpoint_minutes=0.0)
    with pytest.raises(
        FloatingPointError, match=r"At step 3, .*poison.*became nan.*Lower the learning rate.*last good"
    ) as e:
        trainer.fit()
    assert str(trainer.checkpoints.folder) in str(e.value)
    state = trainer.checkpoints.latest()
    assert len(state["logs"]) == 2
    assert all(torch.isfinite(t).all() for t in state["parts"]["raw_generator"].values())


def test_a_full_disk_stops_the_training_with_the_last_good_checkpoint(make, monkeypatch):
    trainer, save, room = make(checkpoint_minutes=0.0), torch.save, [3]

    def full(state, path):
        room[0] -= 1
        if room[0] < 0:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return save(state, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="disk full.*intact"):
        trainer.fit()
    assert len(trainer.checkpoints.latest()["logs"]) == 3


def test_out_of_gpu_memory_names_the_batch_size_to_try(make):
    trainer = make()

    def training_step(*batches):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    trainer.training_step = training_step
    with pytest.raises(RuntimeError, match=r"batch_size=4 at 64 px.*try batch_size=2"):
        trainer.fit()


def test_a_second_trainer_of_a_run_is_told_who_holds_it(make):
    first, second, told = make(), make(), []
    step = first.training_step

    def training_step(*batches):
        with pytest.raises(BlockingIOError, match=f"in use by process {os.getpid()}") as caught:
            second.fit()
        told.append(caught)
        return step(*batches)

    first.training_step = training_step
    first.fit()
    assert len(told) == 8
