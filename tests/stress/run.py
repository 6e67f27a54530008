"""`make stress`: nothing is lost, and nothing is different, however a training is interrupted. Writes RESULTS.md.

A small training of both phases runs in a child process; it is killed at random moments (SIGKILL, as when a machine
disappears) and started again until it is done, over and over. Its weights and history must equal those of a training
that nobody disturbed, bit for bit.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: its threads would not survive the forks below

import argparse
import datetime
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE.parent / "data")]
torch.set_num_threads(1)

from safetensors.torch import load_file  # noqa: E402
from test_photos import fuzz  # noqa: E402

from helpers.config import Config  # noqa: E402
from helpers.data import dataset  # noqa: E402
from helpers.training import __main__ as training  # noqa: E402

PHASES = ("warmup", "adversarial")
SMALL = {"precision": "fp32", "batch_size": 4, "size": 32, "res_blocks": 0}  # of the smoke profile
LOG = Path(tempfile.gettempdir()) / f"stress-{os.getpid()}.log"


def train(workspace: Path) -> None:
    """Train both phases, with a checkpoint after every step."""
    os.environ.update(COLORIZE_WORKSPACE=str(workspace), COLORIZE_PROFILE="smoke")
    for phase in PHASES:
        training.train(phase, Config.from_profile(**SMALL, checkpoint_minutes=0.0))


def child(task: Callable, *arguments: Any) -> int:
    """Run a function in a forked process, silently; return the process's number."""
    number = os.fork()
    if number == 0:
        log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            task(*arguments)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    return number


def killed_after(seconds: float, task: Callable, *arguments: Any) -> bool:
    """Run a task and kill it after some seconds; return True if it was killed, False if it was done before.

    Raises RuntimeError if it fails by itself, or is not done after ten minutes.
    """
    number, end = child(task, *arguments), time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            if status:
                raise RuntimeError(f"the training failed by itself: {LOG.read_text().strip().splitlines()[-3:]}")
            return False
        time.sleep(0.01)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    if seconds >= 600:
        raise RuntimeError("the training hangs")
    return True


def same(one: Path, other: Path) -> bool:
    """Return whether two workspaces hold the same weights and histories, bit for bit; False if any are missing."""
    for phase in PHASES:
        a, b = (path / f"runs/smoke/{phase}.safetensors" for path in (one, other))
        if not b.exists():
            return False
        a, b = load_file(a), load_file(b)
        if a.keys() != b.keys() or not all(torch.equal(a[name], b[name]) for name in a):
            return False
        for table in ("history", "steps"):
            a, b = (pd.read_csv(path / f"runs/smoke/{phase}_{table}.csv") for path in (one, other))
            if not a.drop(columns="seconds", errors="ignore").equals(b.drop(columns="seconds", errors="ignore")):
                return False
    return True


def kills(reference: Path, folder: Path, wanted: int, life: float) -> dict[str, Any]:
    """Kill trainings after `life` seconds on average until `wanted` kills are done; return a row of the table."""
    count, trainings, lost, different = 0, 0, 0, 0
    while count < wanted:
        workspace = folder / f"killed{trainings}"
        shutil.copytree(reference.parent / "prepared", workspace)
        try:
            while killed_after(random.expovariate(1 / life), train, workspace):
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


def cuts(reference: Path, folder: Path, count: int = 40) -> dict[str, Any]:
    """Cut the checkpoint of a killed training at many places; it must be refused, never trained on."""
    lost, refused, workspace = 0, 0, folder / "cut"
    shutil.copytree(reference.parent / "prepared", workspace)
    checkpoint = workspace / "runs/smoke/warmup_checkpoint"
    new, number = checkpoint.with_name("warmup_checkpoint.new"), child(train, workspace)
    while not checkpoint.exists():
        time.sleep(0.01)
        assert not os.waitpid(number, os.WNOHANG)[0], LOG.read_text()
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    if new.exists():  # the kill came while the two were exchanged
        new.replace(checkpoint)
    whole = checkpoint.read_bytes()
    for i in range(count):
        os.truncate(checkpoint, len(whole) * i // count)
        try:
            killed_after(600, train, workspace)
            lost += 1  # it went on with a torn file
        except RuntimeError as error:
            refused += "cannot be read" in str(error)
            lost += "cannot be read" not in str(error)
        checkpoint.write_bytes(whole)
    killed_after(600, train, workspace)
    different = not same(reference, workspace)
    shutil.rmtree(workspace)
    return {"how often": f"{count} cuts, {refused} refused", "lost": lost, "different": int(different)}


def full_disk(reference: Path, folder: Path) -> dict[str, Any]:
    """Let the disk run full at many points of a training, then give it room."""
    workspace, lost, stopped = folder / "full", 0, 0
    workspace.mkdir()
    sizes = [*range(150, 1800, 150)]
    mount = ["mount", "-t", "tmpfs", "-o", f"size={sizes[0]}m", "tmpfs", str(workspace)]
    if subprocess.run(mount, capture_output=True).returncode:
        return {"how often": "not done: a file system of its own needs root", "lost": "", "different": ""}
    try:
        shutil.copytree(reference.parent / "prepared", workspace, dirs_exist_ok=True)
        for size in sizes:
            subprocess.run(["mount", "-o", f"remount,size={size}m", str(workspace)], check=True)
            try:
                killed_after(600, train, workspace)
            except RuntimeError as error:
                stopped += 1
                assert "disk" in str(error) or "No space left" in str(error), error
        subprocess.run(["mount", "-o", "remount,size=4g", str(workspace)], check=True)
        try:
            killed_after(600, train, workspace)
        except RuntimeError as error:
            print(error)
            lost += 1
        different = int(not same(reference, workspace))
    finally:
        subprocess.run(["umount", str(workspace)], check=True)
    return {"how often": f"{len(sizes)} sizes, full {stopped} times", "lost": lost, "different": different}


def damaged_photos(folder: Path, count: int) -> dict[str, Any]:
    """Read photos damaged at random."""
    counts = fuzz(folder / "photo.jpg", count, seed=random.randrange(2**32))
    return {"how often": f"{count} photos, {counts['refused']} refused", "lost": 0, "different": 0}


def prepare_photos(workspace: str) -> None:
    """Prepare the photos once, for all trainings."""
    os.environ.update(COLORIZE_WORKSPACE=workspace, COLORIZE_PROFILE="smoke")
    dataset.prepare(Config.from_profile(**SMALL))


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md", help="the report's file")
    parser.add_argument("--prepare", help=argparse.SUPPRESS)  # a workspace: only prepare photos there
    return parser.parse_args()


def main() -> None:
    """Do all of it, and write the table."""
    options, started = parse(), time.monotonic()
    if options.prepare:
        prepare_photos(options.prepare)
        return
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    random.seed(seed)
    with tempfile.TemporaryDirectory() as name:
        folder, reference = Path(name), Path(name) / "undisturbed"
        subprocess.run([sys.executable, __file__, "--prepare", str(folder / "prepared")], check=True)
        shutil.copytree(folder / "prepared", reference)
        killed_after(600, train, reference)
        life = max(2.5, (time.monotonic() - started) / 6)
        rows = {
            "killed at random moments (SIGKILL), started again": kills(reference, folder, options.kills, life),
            "a checkpoint cut at many places": cuts(reference, folder),
            "the disk full, then room again": full_disk(reference, folder),
            "photos damaged at random": damaged_photos(folder, options.photos),
        }
    table = pd.DataFrame(rows).T
    minutes = (time.monotonic() - started) / 60
    lines = ["| a smoke training of both phases, | how often | lost | different |", "|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(map(str, row))} |" for name, row in zip(table.index, table.values, strict=True)]
    command = f"`tests/stress/run.py --kills {options.kills}`, {datetime.date.today()}"
    note = f"{command}, {os.cpu_count()} CPU cores, {minutes:.0f} minutes, seed {seed}."
    options.out.write_text("\n".join(["# Stress test", "", note, "", *lines]) + "\n", encoding="utf-8")
    print("\n".join(lines))
    bad = table[["lost", "different"]].apply(pd.to_numeric, errors="coerce").fillna(0).to_numpy().sum()
    sys.exit(int(bad > 0))


if __name__ == "__main__":
    main()
