"""Going on where a training stopped: its whole state, and the checkpoints that hold it."""

import random
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pandas as pd
import torch
from accelerate.utils import gather_object

from helpers.runs.files import write_atomically
from helpers.runs.run import Run

FORMAT = 3  # of what `state_of` returns
PARTS = ("raw_generator", "g_optimizer", "g_schedule", "raw_discriminator", "d_optimizer", "d_schedule", "ema")


class Checkpoints:
    """The last two states of a phase of a run, in files that are verified before they are believed."""

    def __init__(self, run: Run, phase: str):
        self.folder = run.path / f"{phase}_checkpoints"

    def files(self) -> list[Path]:
        """Return the checkpoint files, the newest first."""
        return sorted((path for path in self.folder.glob("*.pt") if path.stem.isdigit()), reverse=True)

    def save(self, state: dict[str, Any]) -> Path:
        """Write a state, then remove all but the last two; raises OSError when the disk is full."""
        self.folder.mkdir(parents=True, exist_ok=True)
        newest = self.files()[:1]
        number = int(newest[0].stem) + 1 if newest else 1
        path = self.folder / f"{number:06d}.pt"
        write_atomically(path, lambda temporary: torch.save(state, temporary))
        for file in self.files()[1 if state["finished"] else 2 :]:
            file.unlink()
        return path

    def latest(self) -> dict[str, Any] | None:
        """Return the newest state that is whole, or None; a torn or foreign file is named and passed over.

        Nothing in the file can run code: only tensors, numbers, texts and containers are read. Raises ValueError when
        there are checkpoints and none can be used, OSError when the disk does not answer.
        """
        for path in self.files():
            try:
                with ZipFile(path) as file:  # what torch writes; it passes over the checksums of the parts
                    if damaged := file.testzip():
                        raise ValueError(f"{damaged} in it has changed")
                return torch.load(path, map_location="cpu", weights_only=True)
            except (OSError, MemoryError):
                raise  # that says nothing about the file
            except Exception as error:  # a foreign file can fail in any way
                print(f"passed over the checkpoint {path}: {str(error).splitlines()[0]}")
        if self.files():
            again = "To start over, and archive them: fit(restart=True)."
            raise ValueError(f"None of the checkpoints in {self.folder} can be used. {again}")
        return None


def refuse_another(name: str, state: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ValueError when a kept state of a run is of another version, or its fingerprint differs from that of now.

    The fields in which they differ are named.
    """
    again = 'Give this one a name of its own (run="..."), or start over with fit(restart=True), which archives the old.'
    if state.get("format") != FORMAT:
        raise ValueError(
            f"The checkpoint of run {name!r} was written by another version of this series: format "
            f"{state.get('format', 1)}, this version reads {FORMAT}. {again}"
        )
    then, absent = state["fingerprint"], "absent"
    pairs = [(field, then.get(field, absent), now.get(field, absent)) for field in {**then, **now}]
    differ = [f"{field}: {_short(old)} then, {_short(new)} now" for field, old, new in pairs if old != new]
    if differ:
        raise ValueError(f"Run {name!r} was begun with other settings ({'; '.join(differ)}). {again}")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def random_states() -> dict[str, Any]:
    """Return the state of every source of chance, as what a checkpoint can hold."""
    kind, keys, *rest = np.random.get_state()
    state = {"python": random.getstate(), "torch": torch.get_rng_state()}
    state["numpy"] = (kind, torch.from_numpy(keys.astype(np.int64)), *rest)
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_states(state: dict[str, Any]) -> None:
    """Set what `random_states` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def parts(trainer: Any) -> dict[str, Any]:
    """Return everything of a trainer that learns or counts and keeps a `state_dict`, by name."""
    found = {name: getattr(trainer, name, None) for name in PARTS} | {"scaler": trainer.accelerator.scaler}
    return {name: part for name, part in found.items() if part is not None}


def state_of(trainer: Any, finished: bool = False) -> dict[str, Any]:
    """Return all of a trainer's state. After the last epoch, the optimizers' part is left out: it is the largest."""
    kept = {name: part for name, part in parts(trainer).items() if not (finished and "optimizer" in name)}
    return {
        "format": FORMAT,
        "finished": finished,
        "fingerprint": trainer.fingerprint,
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


def restore(trainer: Any, state: dict[str, Any]) -> None:
    """Put a trainer into the state that `state_of` returned."""
    for name, part in parts(trainer).items():
        if name in state["parts"]:
            part.load_state_dict(state["parts"][name])
    trainer.epoch, trainer.seconds, trainer.columns = state["epoch"], state["seconds"], state["columns"]
    trainer.logs = [log.to(trainer.accelerator.device) for log in state["logs"]]
    trainer.batches.random.set_state(state["order"])
    trainer.batches.skip = len(trainer.logs) * trainer.n_critic
    trainer.history, trainer.steps = pd.DataFrame(state["history"]), pd.DataFrame(state["steps"])
    vars(trainer.stopper).update(state["stopper"])
    set_random_states(state["random"][trainer.accelerator.process_index])
