"""Going on where a training stopped: its whole state, the checkpoints that hold it, and stopping in good order."""

import hashlib
import random
import signal
import threading
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from accelerate.utils import gather_object

from helpers import storage

NO_MATTER = {"show_folder", "photos_folder", "memory_gb", "compile", "checkpoint_minutes", "profile", "run", "n_photos"}


class Checkpoints:
    """The last two states of a phase of a run, in files that are verified before they are believed."""

    def __init__(self, run, phase):
        self.folder = run.path / f"{phase}_checkpoints"

    def files(self):
        """Return the checkpoint files, the newest first."""
        return sorted((path for path in self.folder.glob("*.pt") if path.stem.isdigit()), reverse=True)

    def save(self, state):
        """Write a state, then remove all but the last two; raises OSError when the disk is full."""
        self.folder.mkdir(parents=True, exist_ok=True)
        newest = self.files()[:1]
        number = int(newest[0].stem) + 1 if newest else 1
        path = self.folder / f"{number:06d}.pt"
        storage.write_verified(path, lambda temporary: torch.save(state, temporary))
        complete = [file for file in self.files() if storage.has_checksum(file)]
        for file in set(self.files()) - set(complete[: 1 if state["finished"] else 2]):
            storage.remove(file)
        return path

    def latest(self):
        """Return the newest state that is whole, or None; a torn or foreign file is named and passed over.

        Nothing in the file can run code: only tensors, numbers, texts and containers are read. Raises ValueError when
        there are finished checkpoints and none can be used, OSError when the disk does not answer.
        """
        for path in self.files():
            try:
                if not storage.is_whole(path):
                    raise ValueError("it is cut off, changed, or not from here: its checksum does not fit")
                return torch.load(path, map_location="cpu", weights_only=True)
            except (OSError, MemoryError):
                raise  # that says nothing about the file
            except Exception as error:  # a foreign file can fail in any way
                print(f"passed over the checkpoint {path}: {str(error).splitlines()[0]}")
        if any(storage.has_checksum(path) for path in self.files()):
            raise ValueError(
                f"None of the checkpoints in {self.folder} can be used. To start over, and keep them aside: "
                "fit(restart=True)."
            )
        return None


def fingerprint(trainer):
    """Return all that must be the same for a training to go on: configuration, loss terms, augmentation, photos."""
    cfg = trainer.cfg
    told = {name: value for name, value in asdict(cfg).items() if name not in NO_MATTER}
    told |= {f"weight of {term.name}": float(term.weight) for term in trainer.terms}
    told |= {f"function of {term.name}": _meaning(term.function) for term in trainer.terms}
    told["augmentation"] = str(trainer.batches.augment)
    told["photos"] = hashlib.sha256(trainer.photos.manifest.to_csv().encode()).hexdigest()
    told["architecture"] = str(getattr(trainer.raw_generator, "architecture", type(trainer.raw_generator).__name__))
    told["processes"], told["start"] = trainer.accelerator.num_processes, trainer.start
    return told


def _meaning(function):
    """Return a short text that changes when a function is written anew in another way."""
    code = getattr(function, "__code__", None)
    if code is None:
        return type(function).__name__
    values = [
        sorted(v, key=repr) if isinstance(v, frozenset) else v for v in code.co_consts if not hasattr(v, "co_code")
    ]
    told = f"{code.co_code.hex()} {code.co_names} {values}"
    return f"{function.__name__} {hashlib.sha256(told.encode()).hexdigest()[:8]}"


def refuse_another(trainer, state):
    """Raise ValueError that names the fields in which a kept state and a trainer differ, if they do."""
    then, now = state["fingerprint"], fingerprint(trainer)
    absent = "absent"
    differ = [name for name in {**then, **now} if then.get(name, absent) != now.get(name, absent)]
    if differ:
        pairs = [(name, _short(then.get(name, absent)), _short(now.get(name, absent))) for name in differ]
        values = "; ".join(f"{name}: {old} then, {new} now" for name, old, new in pairs)
        raise ValueError(
            f"Run {trainer.run.name!r} was begun with other settings ({values}). Give this one a name of its own "
            '(run="..."), or start over with fit(restart=True), which keeps the old run aside.'
        )


def _short(value):
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def random_states():
    """Return the state of every source of chance, as what a checkpoint can hold."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    state = {"python": random.getstate(), "torch": torch.get_rng_state()}
    state["numpy"] = (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss)
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_states(state):
    """Set what `random_states` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def parts(trainer):
    """Return everything of a trainer that learns or counts and keeps a `state_dict`, by name."""
    names = ("raw_generator", "g_optimizer", "g_schedule", "raw_discriminator", "d_optimizer", "d_schedule", "average")
    found = {name: getattr(trainer, name, None) for name in names}
    found["scaler"] = trainer.accelerator.scaler
    return {name: part for name, part in found.items() if part is not None}


def state_of(trainer, finished=False):
    """Return all of a trainer's state. After the last epoch, the optimisers' part is left out: it is the largest."""
    kept = parts(trainer)
    if finished:
        kept = {name: part for name, part in kept.items() if "optimizer" not in name}
    return {
        "finished": finished,
        "fingerprint": fingerprint(trainer),
        "parts": {name: part.state_dict() for name, part in kept.items()},
        "epoch": trainer.epoch,  # the one that is under way
        "logs": trainer.logs,  # of its steps so far
        "columns": trainer.columns,
        "seconds": trainer.seconds,
        "order": trainer.batches.order_of_epoch if trainer.logs else trainer.batches.random.get_state(),
        "random": gather_object([random_states()]),  # of each process
        "history": trainer.history.to_dict("list"),
        "steps": trainer.steps.to_dict("list"),
        "stopper": vars(trainer.stopper),
    }


def restore(trainer, state):
    """Put a trainer into the state that `state_of` returned."""
    for name, part in parts(trainer).items():
        if name in state["parts"]:
            part.load_state_dict(state["parts"][name])
    trainer.epoch, trainer.seconds, trainer.columns = state["epoch"], state["seconds"], state["columns"]
    trainer.logs = [log.to(trainer.accelerator.device) for log in state["logs"]]
    trainer.batches.random.set_state(state["order"])
    trainer.batches.skip = len(trainer.logs)
    trainer.history, trainer.steps = pd.DataFrame(state["history"]), pd.DataFrame(state["steps"])
    vars(trainer.stopper).update(state["stopper"])
    set_random_states(state["random"][trainer.accelerator.process_index])


class StopRequest:
    """Catch the stop button and SIGTERM for the time of a `with` block: `asked` says whether one came.

    A second one stops at once. Outside the main thread, where signals cannot be caught, it does nothing.
    """

    def __enter__(self):
        self.asked, self.before = False, {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("stopping after this step ...", flush=True)

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)
