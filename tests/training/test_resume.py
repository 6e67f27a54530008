"""A training that was stopped anywhere ends as if it had not been; a damaged checkpoint is never used."""

import json
import os
import pickle
import shutil
import signal
import time
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from helpers.training.tasks import Colorization
from malicious import MaliciousPickle
from safetensors.torch import load_file
from tiny import GAN, L1, assert_same, crash, outcome

from helpers import files
from helpers.training import checkpoint, trainer
from helpers.training.losses import LossTerm


class Contrary(Colorization):
    """A task whose first epoch is the best one: L1 is replaced by the PSNR, which rises."""

    def measure(self, *args):
        table = super().measure(*args)
        return table.assign(L1=table["PSNR"])


EACH_STEP, NEVER = {"checkpoint_minutes": 0.0}, {"checkpoint_minutes": 1000.0}
TRAININGS = {
    "warmup": {"adversarial": False, "rise": 3, "changes": {"ema_decay": None, "schedule": "cosine"}},
    "adversarial": {"changes": {"schedule": "cosine"}},
    "early stopping": {"n_critic": 2, "epochs": 6, "patience": 2, "lr": 0.01, "task": Contrary()},
}
UNDISTURBED = {}


def options(name="adversarial", minutes=EACH_STEP):
    """The arguments of `make` for a training, and how often it writes checkpoints."""
    return TRAININGS[name] | {"changes": TRAININGS[name].get("changes", {}) | minutes}


@pytest.fixture
def undisturbed(make):
    """Return a function that returns the outcome of a training that nobody stopped; trained once for all tests."""

    def _undisturbed(name="adversarial"):
        if name not in UNDISTURBED:
            whole = make(**options(name, NEVER))
            whole.fit()
            UNDISTURBED[name] = outcome(whole)
            shutil.rmtree(whole.run.path)
        return UNDISTURBED[name]

    return _undisturbed


@pytest.fixture
def broken(make, undisturbed):
    """An adversarial training whose machine has disappeared in its second epoch."""
    undisturbed()
    broken = make(**options())
    assert crash(broken, 5)
    return broken


@pytest.mark.parametrize(
    ("name", "steps"),
    [("warmup", 3), ("adversarial", 1), ("adversarial", 4), ("early stopping", 1), ("early stopping", 2)],
)
def test_after_a_crash_every_few_steps_the_result_is_the_same_bit_for_bit(make, undisturbed, name, steps):
    whole, crashes = undisturbed(name), 0
    while crash(again := make(**options(name)), steps):
        crashes += 1
    assert crashes == (len(whole[1]) - 1) // steps
    assert_same(whole, outcome(again))


def test_early_stopping_saves_the_best_epoch_and_not_the_last(undisturbed):
    history, _, tensors = undisturbed("early stopping")
    assert len(history) == 3 and history["val L1"].idxmin() == 0
    assert not torch.equal(tensors["saved.0.weight"], tensors["final.0.weight"])


def test_a_crash_before_the_first_checkpoint_loses_no_more_than_the_time(make, undisturbed):
    whole = undisturbed()
    assert crash(make(**options(minutes=NEVER)), 5)
    again = make(**options(minutes=NEVER))
    again.fit()
    assert_same(whole, outcome(again))


def before_the_old_one_is_deleted(folder, new):
    shutil.copytree(folder, new)
    (folder / "settings.json").unlink()


def while_the_old_one_is_deleted(folder, new):
    shutil.copytree(folder, new)
    (folder / "settings.json").unlink()
    for path in folder.iterdir():
        path.write_bytes(b"")


def before_the_new_one_is_renamed(folder, new):
    folder.rename(new)


def while_it_is_written(folder, new):
    shutil.copytree(folder, new)
    (new / "settings.json").unlink()
    (new / "optimizer.bin").write_bytes(b"half")


KILLS = [before_the_old_one_is_deleted, while_the_old_one_is_deleted, before_the_new_one_is_renamed]


@pytest.mark.parametrize("kill", [*KILLS, while_it_is_written])
def test_a_kill_while_folders_are_exchanged_costs_nothing(make, undisturbed, broken, kill, monkeypatch):
    kill(broken.folder, checkpoint.beside(broken.folder))
    with monkeypatch.context() as patch:  # nor does a second one, in the next checkpoint
        patch.setattr(broken.accelerator, "save_state", lambda folder: 1 / 0)
        again = make(**options())
        with pytest.raises(OSError, match="cannot be written"):
            again.fit()
        assert len(again.steps) + len(again.logs) == 6 and (broken.folder / "settings.json").exists()
    again = make(**options())
    again.fit()
    assert_same(undisturbed(), outcome(again))
    assert sorted(path.name for path in again.run.path.glob("*checkpoint*")) == [broken.folder.name]


def test_every_torn_file_of_a_checkpoint_is_noticed(make, broken):
    names = [path.name for path in broken.folder.iterdir()]
    assert len(names) >= 8 and {"random_states_0.pkl", "settings.json", "model_1.safetensors"} <= set(names)
    for name in names:
        path = broken.folder / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=r"(?s)_checkpoint.*restart=True"):
            make(**options()).fit()
        path.write_bytes(whole)
    (broken.folder / "random_states_0.pkl").unlink()
    with pytest.raises(ValueError, match=r"(?s)_checkpoint.*random.*restart=True"):
        make(**options()).fit()


def test_restart_archives_a_checkpoint_that_cannot_be_read(make, undisturbed, broken):
    (broken.folder / "optimizer.bin").write_bytes(b"half")
    again = make(**options())
    again.fit(restart=True)
    assert_same(undisturbed(), outcome(again))
    (archive,) = broken.run.path.glob("earlier-adversarial-*")
    assert (archive / broken.folder.name / "optimizer.bin").read_bytes() == b"half"


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_a_malicious_checkpoint_runs_nothing(make, broken, write, tmp_path):
    trace = tmp_path / "trace"
    for path in [path for path in broken.folder.iterdir() if path.suffix in (".pkl", ".bin")]:
        whole = path.read_bytes()
        write(MaliciousPickle(trace), path)
        with pytest.raises(ValueError, match=r"(?s)_checkpoint.*restart=True"):
            make(**options()).fit()
        assert not trace.exists(), path.name
        path.write_bytes(whole)
    write(MaliciousPickle(trace), path)
    torch.load(path, weights_only=False) if write is torch.save else pickle.loads(path.read_bytes())
    assert trace.exists()  # it does work where code is run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_stop_button_saves_and_resumes(make, undisturbed, number):
    whole, stopped = undisturbed(), make(**options(minutes=NEVER))
    step, before = stopped.training_step, signal.getsignal(number)

    def _training_step(*batches):
        if len(stopped.steps) + len(stopped.logs) == 5:
            os.kill(os.getpid(), number)
        return step(*batches)

    stopped.training_step = _training_step
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    assert signal.getsignal(number) is before
    again, seen = make(**options()), []
    again.training_step = lambda *batches: seen.append(1) or type(again).training_step(again, *batches)
    again.fit()
    assert len(seen) == 2  # of 8 steps, 6 were done
    assert_same(whole, outcome(again))


@pytest.mark.parametrize("minutes", [EACH_STEP, NEVER], ids=["checkpoints", "no checkpoint"])
def test_a_loss_that_is_no_number_stops_the_training_and_is_never_saved(make, minutes):
    left = iter([1.0, 1.0, float("nan")])
    poison = LossTerm("poison", 1.0, lambda p: p.ab_pred.mean() * next(left, 1.0))
    trainer = make(**options(minutes=minutes), terms=[GAN, L1, poison])
    with pytest.raises(FloatingPointError, match=r"step 3.*poison.*nan"):
        trainer.fit()
    assert trainer.folder.exists() == (minutes == EACH_STEP) and not trainer.run.phases()
    for path in trainer.folder.glob("model*.safetensors"):
        assert all(value.isfinite().all() for value in load_file(path).values())


def test_a_full_disk_leaves_the_last_checkpoint(make, undisturbed, monkeypatch):
    whole, broken, save, room = undisturbed(), make(**options()), torch.save, iter(range(30))

    def full(state, path, *args, **kwargs):
        if next(room, None) is None:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return save(state, path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match=r"disk.*make room"):
            broken.fit()
    assert 2 < len(broken.logs) + len(broken.steps) < 8
    again = make(**options())
    again.fit()
    assert_same(whole, outcome(again))


def test_files_are_emptied_before_they_are_deleted(make, monkeypatch):
    """What is deleted on Google Drive fills its trash, and counts as used."""
    sizes, rmtree = [], shutil.rmtree

    def _rmtree(path, *args, **kwargs):
        sizes.extend(file.stat().st_size for file in path.rglob("*") if file.is_file())
        rmtree(path, *args, **kwargs)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", _rmtree)
    make(**options()).fit()
    assert len(sizes) > 50 and not any(sizes)


def test_checkpoints_are_written_by_time_alone(make, monkeypatch):
    clock, written, write = SimpleNamespace(now=0.0), [], checkpoint.write
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: clock.now, perf_counter=time.perf_counter))
    slow = make(**options(minutes={"checkpoint_minutes": 2.5}))
    step = slow.training_step

    def _training_step(*batches):
        clock.now += 60
        return step(*batches)

    def _write(folder, *args):
        write(folder, *args)
        written.append((clock.now / 60, slow.run.file("adversarial").exists()))

    monkeypatch.setattr(checkpoint, "write", _write)
    slow.training_step = _training_step
    phases = []
    slow.fit(show=lambda trainer: phases.append(trainer.run.phases()))
    assert written == [(3, False), (6, True), (8, True)]  # with the weights, from the first epoch's end
    assert phases == [[], ["adversarial"]]


def test_a_finished_run_is_shown_and_not_trained_again(make):
    first = make()
    history = first.fit()
    again, shown = make(), []
    again.training_step = None  # cannot be called
    pd.testing.assert_frame_equal(again.fit(show=shown.append), history)
    assert shown == [again] and torch.equal(again.validated, first.validated)
    assert_same(outcome(first), outcome(again))


def test_only_the_main_process_shows_and_prints(make, monkeypatch, capsys):
    make().fit()
    monkeypatch.setattr(Accelerator, "is_main_process", False)
    again = make()
    monkeypatch.setattr(again.accelerator, "print", lambda text: None)  # prints in the main process alone
    capsys.readouterr()
    assert len(again.fit(show=lambda trainer: pytest.fail("shown"))) == 2 and not capsys.readouterr().out


def test_a_checkpoint_of_an_earlier_version_is_refused_by_name(make, broken):
    path = broken.folder / "settings.json"
    earlier = json.loads(path.read_text()) | {"function of L1": "def l1_loss(prediction):\n    return 1\n" * 50}
    path.write_text(json.dumps({name: value for name, value in earlier.items() if name != "version"}))
    with pytest.raises(ValueError, match=r"(?s)\(version: absent then, 2 now.*restart=True") as caught:
        make(**options()).fit()
    assert len(str(caught.value)) < 500


def test_a_source_file_that_is_edited_during_a_training_does_not_spoil_its_checkpoints(make, monkeypatch):
    trainer, read = make(**options()), []
    monkeypatch.setattr(checkpoint, "settings_of", lambda trainer: read.append(1) or {"version": "2"})
    trainer.fit()
    assert len(read) == 1


def test_a_second_program_cannot_train_the_same_run(make, monkeypatch):
    monkeypatch.setattr(files, "GRACE", 0)
    first = make()
    with files.locked(first.run.path), pytest.raises(BlockingIOError, match=str(os.getpid())):
        first.fit()


def test_a_trainer_is_not_confused_by_a_later_one(make):
    """Both would write what accelerate knows, and it knows the last one."""
    first = make(changes={"run": "first"})
    make(changes={"run": "second"})
    with pytest.raises(RuntimeError, match="Trainer"):
        first.fit()
