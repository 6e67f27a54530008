"""`make stress`: nothing is lost, and nothing is different, however a training is interrupted. Writes RESULTS.md.

A small training of both phases runs in a child process; it is killed at random moments (SIGKILL, as when a machine
disappears) and started again until it is done, over and over. Its weights and history must equal those of a training
that nobody disturbed, bit for bit.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: its threads would not survive the forks below

import argparse
import datetime
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

torch.set_num_threads(1)

from bench.common import as_markdown  # noqa: E402
from data.test_photos import fuzz  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from tiny import assert_same  # noqa: E402

from helpers.config import Config  # noqa: E402
from helpers.data import dataset  # noqa: E402
from helpers.training import __main__ as training  # noqa: E402

PHASES = ("warmup", "adversarial")
SMALL = {"precision": "fp32", "batch_size": 4, "size": 32, "res_blocks": 0}  # of the smoke profile
LOG = Path(tempfile.gettempdir()) / f"stress-{os.getpid()}.log"
PHOTOS = 2000  # damaged ones
FORK = multiprocessing.get_context("fork")


def begin(workspace: Path) -> None:
    """Be a process of its own, which has a workspace and a log."""
    os.environ.update(COLORIZE_WORKSPACE=str(workspace), COLORIZE_PROFILE="smoke")
    sys.stdout = sys.stderr = LOG.open("w")


def prepare(workspace: Path) -> None:
    """Prepare the photos once, for all trainings."""
    begin(workspace)
    dataset.prepare(Config.from_profile(**SMALL))


def train(workspace: Path) -> None:
    """Train both phases, with a checkpoint after every step."""
    begin(workspace)
    for phase in PHASES:
        training.train(phase, Config.from_profile(**SMALL, checkpoint_minutes=0.0))


def killed_after(seconds: float, workspace: Path, task=train) -> bool:
    """Run a task in a forked process and kill it after some seconds; return False if it was done before.

    Raises RuntimeError if it fails by itself, or is not done after ten minutes.
    """
    process = FORK.Process(target=task, args=(workspace,))
    process.start()
    process.join(seconds)
    if killed := process.is_alive():
        process.kill()
        process.join()
    if process.exitcode > 0:
        raise RuntimeError(f"the training failed by itself: {LOG.read_text().strip().splitlines()[-3:]}")
    if killed and seconds >= 600:
        raise RuntimeError("the training hangs")
    return killed


def outcome(workspace: Path, phase: str) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """Return both tables of a phase, and its weights."""
    files = workspace / f"runs/smoke/{phase}"
    tables = [
        pd.read_csv(f"{files}_{kind}.csv").drop(columns="seconds", errors="ignore") for kind in ("history", "steps")
    ]
    return *tables, load_file(f"{files}.safetensors")


def same(one: Path, other: Path) -> bool:
    """Return whether two workspaces hold the same weights and histories, bit for bit; False if any are missing."""
    try:
        for phase in PHASES:
            assert_same(outcome(one, phase), outcome(other, phase))
    except (AssertionError, FileNotFoundError) as error:
        print(error)
        return False
    return True


def kills(reference: Path, folder: Path, wanted: int, life: float) -> dict[str, Any]:
    """Kill trainings after `life` seconds on average until `wanted` kills are done; return a row of the table."""
    count, trainings, lost, different = 0, 0, 0, 0
    while count < wanted:
        workspace = shutil.copytree(folder / "prepared", folder / f"killed{trainings}")
        try:
            while killed_after(random.expovariate(1 / life), workspace):
                count += 1
                print(f"\r{count} kills, {trainings} trainings done", end="", flush=True)
        except RuntimeError as error:
            print(error)
            lost += 1
        trainings += 1
        different += not same(reference, workspace)
        shutil.rmtree(workspace)
    print()
    return {"how often": f"{count} kills in {trainings} trainings", "lost": lost, "different": different}


def damaged_photos(folder: Path) -> dict[str, Any]:
    """Read photos damaged at random."""
    counts = fuzz(folder / "photo.jpg", PHOTOS, seed=random.randrange(2**32))
    return {"how often": f"{PHOTOS} photos, {counts['refused']} refused", "lost": 0, "different": 0}


def main() -> None:
    """Do all of it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    wanted, started = parser.parse_args().kills, time.monotonic()
    random.seed(seed := int(np.random.SeedSequence().generate_state(1)[0]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        killed_after(600, folder / "prepared", prepare)
        reference = shutil.copytree(folder / "prepared", folder / "undisturbed")
        begun = time.monotonic()
        killed_after(600, reference)
        life = max(4.0, (time.monotonic() - begun) / 2)  # long enough for a step after the start, on a busy machine too
        rows = {
            "killed at random moments (SIGKILL), started again": kills(reference, folder, wanted, life),
            "photos damaged at random": damaged_photos(folder),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("a smoke training of both phases,")
    note = f"`tests/stress/run.py --kills {wanted}`, {datetime.date.today()}, {os.cpu_count()} CPU cores, "
    note += f"{(time.monotonic() - started) / 60:.0f} minutes, seed {seed}."
    Path(__file__).with_name("RESULTS.md").write_text(f"# Stress test\n\n{note}\n\n{as_markdown(table)}\n")
    print(as_markdown(table))
    sys.exit(int(table[["lost", "different"]].to_numpy().any()))


if __name__ == "__main__":
    main()
