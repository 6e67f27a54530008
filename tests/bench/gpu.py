"""`make bench-gpu`: how well training uses a GPU, in a few minutes and without a network. Writes GPU.md.

Times steps beside the report's way, with the memory that they take and the places where they wait for the GPU; and
trains the first epochs of profile `paper`, on the photos of the folder PHOTOS if it is set, else on made ones. Without
a GPU it only says so; `--small` tries this file out.
"""

import os
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from common import as_markdown, machine, write_photos
from ways import UNMEASURED, Way, our_way, reports_way, run, seconds_per_step, settings

from helpers.runs import Run
from helpers.training.__main__ import train

GPU, SMALL = torch.cuda.is_available(), "--small" in sys.argv
PHASES = ("warmup", "adversarial")
TINY = {"encoder": "test_efficientnet", "res_blocks": 1} if SMALL else {}
SIZE, BATCHES, STEPS, PHOTOS = (64, (2, 3), 2, 24) if SMALL else (255, (8, 16, 32), 20, 1500)


def waits(way: Way) -> list[str]:
    """Return the places (file:line) where a step, or making its batch, waits for the GPU; empty on a CPU."""
    run(*way, UNMEASURED)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        set_mode = torch.cuda.set_sync_debug_mode if GPU else print
        set_mode("warn")
        run(*way, 1)
        set_mode("default")
    return [f"{each.filename}:{each.lineno}" for each in caught if "synchroniz" in str(each.message)]


def steps_of(phase: str, folder: Path) -> dict[str, float]:
    """Return milliseconds a step by batch size, beside the report's way, for a phase; print where it waits."""
    adversarial, row = phase == "adversarial", {}
    for batch in reversed(BATCHES):  # the report's batch size comes last
        cfg = settings(size=SIZE, **TINY, batch_size=batch)
        paths = write_photos(folder, 4 * batch, SIZE)
        row[f"ms, batch {batch}"] = milliseconds = 1000 * seconds_per_step(*our_way(cfg, adversarial, paths), STEPS)
    theirs = reports_way(cfg, adversarial, paths * STEPS)  # its workers start anew in each epoch
    places = waits(our_way(cfg, adversarial, paths))
    print(f"{phase} waits at", places)
    row |= {"times the report's way": 1000 * seconds_per_step(*theirs, STEPS // 2) / milliseconds, "waits": len(places)}
    return row | ({"peak GB": torch.cuda.max_memory_allocated() / 1e9} if GPU else {})


def first_epochs(folder: Path) -> dict[str, dict[str, float]]:
    """Train the first epochs of `paper`; return seconds an epoch, and minutes for all of them, a row per phase."""
    photos = os.environ.get("PHOTOS") or str(folder)
    cfg = settings(size=SIZE, **TINY, run="gpu", data_source="folder", photos_folder=photos)
    rows, epochs = {}, {"warmup": cfg.warmup_epochs, "adversarial": cfg.adversarial_epochs}
    for phase in PHASES:
        train(phase, cfg.replace(warmup_epochs=2, adversarial_epochs=3))
        seconds = Run("gpu").table(phase)["seconds"].iloc[1:].median()  # the first one is slower
        rows[phase] = {"s an epoch": seconds, "minutes": epochs[phase] * seconds / 60}
    return rows


def main() -> None:
    """Measure everything, and write the report."""
    if not GPU and not SMALL:
        sys.exit("no GPU here: nothing to measure.")
    with tempfile.TemporaryDirectory() as name:
        os.environ["COLORIZE_WORKSPACE"] = f"{name}/workspace"
        (folder := Path(name) / "photos").mkdir()
        steps = as_markdown({phase: steps_of(phase, folder) for phase in PHASES}, 1)
        write_photos(folder, PHOTOS, SIZE)
        epochs = as_markdown(first_epochs(folder), 1)
    text = f"# Training on a GPU\n\n`make bench-gpu`: {machine()}\n\n{steps}\n\n"
    text += f"Profile `paper`, its first epochs on {PHOTOS} photos\n\n{epochs}\n"
    Path(__file__).with_name("GPU.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
