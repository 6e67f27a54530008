"""A training that was stopped anywhere ends as if it had not been; a damaged checkpoint is never used."""

import os
import pickle
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from malicious import MaliciousPickle
from tiny import assert_same, before_each_batch, crash, outcome

from helpers import files
from helpers.training import checkpoint, trainer

EACH_STEP, NEVER = {"checkpoint_minutes": 0.0}, {"checkpoint_minutes": 1000.0}
FIRST_IS_BEST = [("return colored, metrics.measure_all(", "return colored, (-1) * metrics.measure_all(")]
TRAININGS = {
    "warmup": {"adversarial": False, "lr_warmup_steps": 3, "changes": {"ema_decay": None, "schedule": "cosine"}},
    "adversarial": {"changes": {"schedule": "cosine"}},
    "early stopping": {"batches_per_step": 2, "epochs": 6, "patience": 2, "rates": (0.01, 0.01)},
}
TRAININGS["early stopping"]["edits"] = FIRST_IS_BEST
REFUSED = r"(?s)adversarial_checkpoint.*restart=True"
UNDISTURBED = {}


def options(name="adversarial", minutes=EACH_STEP):
    """The arguments of `make` for a training, and how often it writes checkpoints."""
    return TRAININGS[name] | {"changes": TRAININGS[name].get("changes", {}) | minutes}


def done(training):
    """The steps that a trainer has taken."""
    return len(training.steps) + len(training.logs)


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


CRASHES = [("warmup", 1, 7), ("adversarial", 1, 7), ("adversarial", 3, 2)]
CRASHES += [("early stopping", 2, 5), ("early stopping", 3, 5)]  # two batches a step


@pytest.mark.parametrize(("name", "batches", "crashes"), CRASHES)
def test_after_a_crash_every_few_batches_the_result_is_the_same_bit_for_bit(make, undisturbed, name, batches, crashes):
    whole, count = undisturbed(name), 0
    while crash(again := make(**options(name)), batches):
        count += 1
    assert count == crashes
    assert_same(whole, outcome(again))


KILLS = {
    "elsewhere": lambda file, new: None,
    "emptied": lambda file, new: (shutil.copy(file, new), file.write_bytes(b"")),
    "not yet emptied": lambda file, new: shutil.copy(file, new),
    "not yet renamed": lambda file, new: file.rename(new),
    "half written": lambda file, new: new.with_name(new.name + ".part").write_bytes(b"half"),
}


def full(state, path):
    path.write_bytes(b"half")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("kill", KILLS)
def test_a_kill_while_the_checkpoint_is_exchanged_and_then_a_full_disk_cost_nothing(
    make, undisturbed, broken, kill, monkeypatch
):
    KILLS[kill](broken.file, broken.file.with_name(broken.file.name + ".new"))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        again = make(**options())
        with pytest.raises(OSError, match="checkpoint.*disk"):
            again.fit()
        assert done(again) == 6
    again = make(**options())
    again.fit()
    assert_same(undisturbed(), outcome(again))
    assert not again.file.with_name(again.file.name + ".new").exists()


def cut(share):
    return lambda file, trace: file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])


OLD = "a folder of an older version"
SPOILED = {f"cut at {share}": cut(share) for share in (0, 0.1, 0.5, 0.9, 0.999)}
SPOILED |= {OLD: lambda file, trace: (file.unlink(), file.mkdir(), (file / "settings.json").touch())}
SPOILED |= {"of another program": lambda file, trace: torch.save({"epoch": 3}, file)}
SPOILED |= {"malicious, by torch": lambda file, trace: torch.save(MaliciousPickle(trace), file)}
SPOILED |= {"malicious, a pickle": lambda file, trace: file.write_bytes(pickle.dumps(MaliciousPickle(trace)))}


def test_a_spoiled_checkpoint_is_refused_by_its_name_and_archived_by_a_restart(make, undisturbed, broken, tmp_path):
    trace, whole = tmp_path / "trace", broken.file.read_bytes()
    for name, spoil in SPOILED.items():
        broken.file.write_bytes(whole)
        spoil(broken.file, trace)
        with pytest.raises(ValueError, match=REFUSED):
            make(**options()).fit()
        if name == OLD:
            again = make(**options())
            again.fit(restart=True)
            assert_same(undisturbed(), outcome(again))
            (archive,) = broken.run.path.glob("earlier-adversarial-*")
            assert (archive / broken.file.name / "settings.json").exists()
    assert not trace.exists()
    pickle.loads(broken.file.read_bytes())
    assert trace.exists()  # it does work where code is run


@pytest.mark.parametrize(("number", "same"), [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGINT, True)])
def test_the_stop_button_saves_and_fit_goes_on_in_this_kernel_or_another(make, undisturbed, number, same):
    whole, stopped, before = undisturbed(), make(**options(minutes=NEVER)), signal.getsignal(number)
    calls, fatal = [], iter([5])

    def _press():
        if done(stopped) == 5 and next(fatal, None):
            os.kill(os.getpid(), number)

    before_each_batch(stopped, _press)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    assert signal.getsignal(number) is before
    torch.rand(3)  # other cells
    again = stopped if same else make(**options())
    before_each_batch(again, lambda: calls.append(1))
    again.fit()
    assert len(calls) == 2  # of 8 steps, 6 were done
    assert_same(whole, outcome(again))


@pytest.mark.parametrize("minutes", [EACH_STEP, NEVER], ids=["checkpoints", "no checkpoint"])
def test_a_loss_that_is_no_number_stops_the_training_and_is_never_saved(make, minutes):
    poison = {"left": iter([1.0, 1.0, float("nan")])}
    trainer = make(**options(minutes=minutes), edits=[("weight * color", "color * next(left, 1.0)")], names=poison)
    with pytest.raises(FloatingPointError, match=r"step 3.*G total.*nan"):
        trainer.fit()
    assert trainer.file.exists() == (minutes == EACH_STEP) and not trainer.run.phases()
    if trainer.file.exists():
        state = torch.load(trainer.file, weights_only=True)
        assert len(state["logs"]) == 2 and all(value.isfinite().all() for value in state["generator"].values())


def test_a_file_is_emptied_before_it_is_replaced(make, monkeypatch):
    """What is replaced on Google Drive fills its trash, and counts as used."""
    sizes, replace = [], Path.replace

    def _replace(path, target):
        if target.name.endswith("_checkpoint") and target.exists():
            sizes.append(target.stat().st_size)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", _replace)
    make(**options()).fit()
    assert sizes == [0] * 8


def test_checkpoints_are_written_by_time_alone(make, monkeypatch):
    clock, written, phases, write = SimpleNamespace(now=0.0), [], [], checkpoint.write
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: clock.now, perf_counter=time.perf_counter))
    slow = make(**options(minutes={"checkpoint_minutes": 2.5}))
    before_each_batch(slow, lambda: setattr(clock, "now", clock.now + 60))

    def _write(*args):
        write(*args)
        written.append((clock.now / 60, slow.run.file("adversarial").exists()))

    monkeypatch.setattr(checkpoint, "write", _write)
    slow.fit(show=lambda trainer: phases.append(trainer.run.phases()))
    assert written == [(3, False), (6, True), (8, True)]  # with the weights, from the first epoch's end
    assert phases == [[], ["adversarial"]]


def test_a_finished_run_is_shown_and_not_trained_again_and_only_the_main_process_shows(make, monkeypatch):
    first, again, shown = make(), make(), []
    history = first.fit()
    before_each_batch(again, lambda: pytest.fail("trained"))
    pd.testing.assert_frame_equal(again.fit(show=shown.append), history)
    assert shown == [again] and torch.equal(again.validated, first.validated)
    assert_same(outcome(first), outcome(again))
    monkeypatch.setattr(Accelerator, "is_main_process", False)
    assert len(make().fit(show=lambda trainer: pytest.fail("shown"))) == 2


def test_a_restart_needs_new_networks_and_archives_the_old_run(make):
    first, shown = make(), make()
    first.fit()
    shown.fit()
    for used in (first, shown):
        with pytest.raises(RuntimeError, match="have been trained"):
            used.fit(restart=True)
    new = make(epochs=1)
    assert len(new.fit(restart=True)) == 1
    (archive,) = new.run.path.glob("earlier-adversarial-*")
    assert {"adversarial.safetensors", "adversarial_history.csv", new.file.name} <= {p.name for p in archive.iterdir()}


def test_a_second_program_cannot_train_the_same_run(make, monkeypatch):
    monkeypatch.setattr(files, "GRACE", 0)
    first = make()
    with files.locked(first.run.path), pytest.raises(BlockingIOError, match=str(os.getpid())):
        first.fit()
