"""Watching a training: means of an epoch, losses that are no numbers, collapsed networks, the stop button."""

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import pandas as pd


def epoch_means(steps: pd.DataFrame) -> dict[str, float]:
    """Return the means of an epoch's steps; of gradient norms, which may overflow in fp16, only the finite ones."""
    norms = [name for name in steps if name.endswith("gradient")]
    finite = steps[norms].where(steps[norms].abs() < math.inf)
    return {**steps.drop(columns=["epoch", *norms]).mean(skipna=False), **finite.mean()}


def collapse_warnings(row: dict[str, float]) -> list[str]:
    """Return a sentence for each thing that went wrong in an epoch; row: an epoch of the history."""
    real, fake = row.get("D accuracy (real)", 0.5), row.get("D accuracy (fake)", 0.5)
    gray = "D accuracy (real)" in row and row.get("val colorfulness", 1) < 0.1 * row.get("val truth", 1)
    won = "the discriminator is right in over 99%, so the generator learns little from it. Lower discriminator_lr."
    stuck = "the discriminator gives one answer for everything. Lower discriminator_lr, and start over (restart=True)."
    pale = "the photos are gray: under 10% of the truth's colorfulness. Lower the weight of the color loss."
    found = {won: min(real, fake) > 0.99, stuck: min(real, fake) < 0.05, pale: gray}
    return [sentence for sentence, is_so in found.items() if is_so]


def report(phase: str, epochs: int, row: dict[str, float]) -> None:
    """Print an epoch in a line, and each thing that went wrong in another."""
    values = [f"{name} {row[f'val {name}']:.4g}" for name in ("L1", "PSNR") if f"val {name}" in row]
    if "val truth" in row:
        values.append(f"colorfulness {row['val colorfulness'] / row['val truth']:.0%} of truth")
    print(f"{phase} {row['epoch']}/{epochs}: {', '.join(values)}, {row['seconds']:.0f} s", flush=True)
    for warning in collapse_warnings(row):
        print("  warning:", warning)


def refuse_bad_numbers(table: pd.DataFrame, before: int) -> None:
    """Raise FloatingPointError if a loss in a table of steps is not finite; before: the number of earlier steps."""
    losses = table[[name for name in table if not name.endswith("gradient")]]  # fp16 gradients overflow now and then
    bad = losses[~losses.abs().lt(math.inf).all(axis=1)]
    if len(bad):
        names = [name for name, value in bad.iloc[0].items() if not math.isfinite(value)]
        raise FloatingPointError(
            f"At step {before + bad.index[0] + 1}, {', '.join(names)} became {bad.iloc[0][names[0]]}. Lower the "
            'learning rate, or try precision="fp32", in a new run. The last checkpoint holds a sound state.'
        )


@contextmanager
def stop_button() -> Iterator[Event]:
    """Catch the stop button and SIGTERM: yield an event that the first one sets; a second one stops at once."""
    asked = Event()

    def _ask(*signal: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        print("stopping after this step ...", flush=True)

    before = {number: signal.signal(number, _ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
