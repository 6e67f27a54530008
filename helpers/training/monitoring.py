"""Watching a training: when to stop, the means of an epoch, what has collapsed, and the stop button."""

import math
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd


class EarlyStopping:
    """Remember the lowest value of an epoch, and say when `patience` epochs have passed without a lower one."""

    def __init__(self, patience: int):
        self.patience, self.best, self.best_epoch, self.should_stop = patience, float("inf"), 0, False

    def update(self, epoch: int, value: float) -> bool:
        """Take an epoch's value; return whether it is the lowest so far."""
        if value < self.best:
            self.best, self.best_epoch = float(value), epoch
        self.should_stop = bool(epoch - self.best_epoch >= self.patience)
        return self.best_epoch == epoch


def epoch_means(steps: pd.DataFrame) -> dict[str, float]:
    """Return the means of a table of steps; a gradient may overflow now and then (fp16 scales its loss by trial)."""
    norms = [name for name in steps if name.endswith("gradient")]
    finite = steps[norms].where(steps[norms].abs() < float("inf"))
    return {**steps.drop(columns=["epoch", *norms]).mean(skipna=False), **finite.mean()}


def refuse_bad_numbers(steps: pd.DataFrame, before: int, folder: Path) -> None:
    """Raise FloatingPointError that says where the last good state is, if a loss of a table of steps is no number.

    before: how many steps came before the table's. A gradient's norm may overflow: fp16 scales its loss by trial.
    """
    losses = steps[[name for name in steps if not name.endswith("gradient")]]
    bad = losses[~losses.abs().lt(float("inf")).all(axis=1)]
    if len(bad):
        names = [name for name, value in bad.iloc[0].items() if not math.isfinite(value)]
        raise FloatingPointError(
            f"At step {before + bad.index[0] + 1}, {', '.join(names)} became {bad.iloc[0][names[0]]}. Lower the "
            f'learning rate, or try precision="fp32", under a new run name. The last good state is in {folder}.'
        )


def collapse_warnings(row: Mapping[str, float]) -> list[str]:
    """Name what has collapsed in an epoch, if anything: a list of sentences.

    row: an epoch of the history. Looks at the discriminator's accuracy, at the colorfulness of the photos and for
    losses that are no numbers.
    """
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    real, fake = row.get("D accuracy (real)", 0.5), row.get("D accuracy (fake)", 0.5)
    gray = "D accuracy (real)" in row and row.get("val colorfulness", 1) < 0.1 * row.get("val truth", 1)
    checks = {
        f"not a number: {', '.join(bad)}. Lower the learning rate.": bad,
        "the discriminator has won (over 99% right): the generator learns little from it. Lower discriminator_lr, or "
        "raise the weight of the loss beside it.": min(real, fake) > 0.99,
        "the discriminator has collapsed to one answer: it calls everything real, or everything fake. Lower "
        "discriminator_lr, and start over (restart=True).": min(real, fake) < 0.05,
        "the photos are gray: under 10% of the truth's colorfulness. Lower the weight of L1.": gray,
    }
    return [sentence for sentence, found in checks.items() if found]


def report(phase: str, epochs: int, row: Mapping[str, float]) -> None:
    """Print an epoch in a line, and what went wrong in it in another."""
    told = [f"{name} {row[f'val {name}']:.4g}" for name in ("L1", "PSNR") if f"val {name}" in row]
    if "val truth" in row:
        told.append(f"colorfulness {row['val colorfulness'] / row['val truth']:.0%} of truth")
    print(f"{phase} {row['epoch']}/{epochs}: {', '.join(told)}, {row['seconds']:.0f} s", flush=True)
    for warning in collapse_warnings(row):
        print("  warning:", warning)


class StopRequest:
    """Catch the stop button and SIGTERM for the time of a `with` block: `asked` says whether one came.

    A second one stops at once. Outside the main thread, where signals cannot be caught, it does nothing.
    """

    def __enter__(self) -> "StopRequest":
        self.asked, self.before = False, {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("stopping after this step ...", flush=True)

    def __exit__(self, *error: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
