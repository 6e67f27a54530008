"""`make stress`: kill, cut, fill and damage, at random, for some minutes; RESULTS.md is the table of what came of it.

A smoke training of both phases runs in a child process; it is killed at random moments (SIGKILL, as when a machine
disappears) and started again until it is done, over and over. Its weights and history must be those of a training that
nobody disturbed, bit for bit.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch comes: children are forked, and its threads would not survive that

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
from pathlib import Path

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
from helpers.training import phases  # noqa: E402

PHASES = ("warmup", "adversarial")
SMALL = {"precision": "fp32", "batch_size": 4, "size": 32, "res_blocks": 0}  # of the smoke profile
LOG = Path(tempfile.gettempdir()) / "stress.log"


def train(workspace):
    """Train both phases, with a checkpoint after every step."""
    os.environ.update(COLORIZE_WORKSPACE=str(workspace), COLORIZE_PROFILE="smoke")
    phases.train(Config.from_profile(**SMALL, checkpoint_minutes=0.0))


def child(task, *arguments):
    """Run a function in a forked process of its own, silently; return its number."""
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


def killed_after(seconds, task, *arguments):
    """Run a task and kill it after some seconds; return True if it was killed, False if it was done before.

    Raises RuntimeError when it failed by itself, or was not done after ten minutes.
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


def same(one, other):
    """Say whether two workspaces hold the same weights and histories, bit for bit; what was lost is not the same."""
    if not all((other / f"runs/smoke/{phase}.safetensors").exists() for phase in PHASES):
        return False
    for phase in PHASES:
        a, b = (load_file(path / f"runs/smoke/{phase}.safetensors") for path in (one, other))
        if a.keys() != b.keys() or not all(torch.equal(a[name], b[name]) for name in a):
            return False
        for table in ("history", "steps"):
            a, b = (pd.read_csv(path / f"runs/smoke/{phase}_{table}.csv") for path in (one, other))
            if not a.drop(columns="seconds", errors="ignore").equals(b.drop(columns="seconds", errors="ignore")):
                return False
    return True


def kills(reference, folder, wanted):
    """Kill trainings until `wanted` kills are done; return a row of the table."""
    count, trainings, lost, different = 0, 0, 0, 0
    while count < wanted:
        workspace = folder / f"killed{trainings}"
        shutil.copytree(reference.parent / "prepared", workspace)
        try:
            while killed_after(random.expovariate(1 / 2.5), train, workspace):
                count += 1
                print(f"\r{count} kills, {trainings} trainings done", end="", flush=True)
        except RuntimeError as error:
            print(error)
            lost += 1
        trainings += 1
        different += not same(reference, workspace)
        shutil.rmtree(workspace)
    print()
    return {"done": f"{count} kills in {trainings} trainings", "lost": lost, "different": different}


def cuts(reference, folder):
    """Cut the newest checkpoint of a killed training at every tenth of its length; the one before it must do."""
    lost, different = 0, 0
    for tenth in range(10):
        workspace = folder / f"cut{tenth}"
        shutil.copytree(reference.parent / "prepared", workspace)
        checkpoints = workspace / "runs/smoke/warmup_checkpoints"
        number = child(train, workspace)
        while len(list(checkpoints.glob("*.pt"))) < 2:  # a file is there only when it is whole
            time.sleep(0.01)
            assert not os.waitpid(number, os.WNOHANG)[0], LOG.read_text()
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
        newest = max(checkpoints.glob("*.pt"))
        os.truncate(newest, newest.stat().st_size * tenth // 10)
        try:
            killed_after(600, train, workspace)
        except RuntimeError:
            lost += 1
        different += not same(reference, workspace)
        shutil.rmtree(workspace)
    return {"done": "10 cuts", "lost": lost, "different": different}


def full_disk(reference, folder):
    """Let the disk run full at many points of a training, then give it room."""
    workspace, lost, stopped = folder / "full", 0, 0
    workspace.mkdir()
    sizes = [*range(150, 1600, 150)]
    mount = ["mount", "-t", "tmpfs", "-o", f"size={sizes[0]}m", "tmpfs", str(workspace)]
    if subprocess.run(mount, capture_output=True).returncode:
        return {"done": "not done: a file system of its own needs root", "lost": "", "different": ""}
    try:
        shutil.copytree(reference.parent / "prepared", workspace, dirs_exist_ok=True)
        for size in sizes:
            subprocess.run(["mount", "-o", f"remount,size={size}m", str(workspace)], check=True)
            try:
                killed_after(600, train, workspace)
            except RuntimeError as error:
                stopped += 1
                assert "Is the disk full" in str(error) or "No space left" in str(error), error
        subprocess.run(["mount", "-o", "remount,size=4g", str(workspace)], check=True)
        try:
            killed_after(600, train, workspace)
        except RuntimeError:
            lost += 1
        different = int(not same(reference, workspace))
    finally:
        subprocess.run(["umount", str(workspace)], check=True)
    return {"done": f"{len(sizes)} sizes, full {stopped} times", "lost": lost, "different": different}


def damaged_photos(folder, count):
    """Read photos damaged at random."""
    counts = fuzz(folder / "photo.jpg", count, seed=random.randrange(2**32))
    return {"done": f"{count} photos, {counts['refused']} refused", "lost": 0, "different": 0}


def main():
    """Do all of it, and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md", help="where the table goes")
    parser.add_argument("--prepare", help="only prepare photos in this workspace: in a process that is not forked")
    options, started = parser.parse_args(), time.monotonic()
    if options.prepare:
        return prepare_photos(options.prepare)
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    random.seed(seed)
    with tempfile.TemporaryDirectory() as name:
        folder, reference = Path(name), Path(name) / "undisturbed"
        subprocess.run([sys.executable, __file__, "--prepare", str(folder / "prepared")], check=True)
        shutil.copytree(folder / "prepared", reference)
        killed_after(600, train, reference)
        rows = {
            "killed at random moments (SIGKILL), started again": kills(reference, folder, options.kills),
            "the newest checkpoint cut at every tenth": cuts(reference, folder),
            "the disk full, then room again": full_disk(reference, folder),
            "photos damaged at random": damaged_photos(folder, options.photos),
        }
    table = pd.DataFrame(rows).T
    minutes = (time.monotonic() - started) / 60
    lines = ["| what was done to a smoke training of both phases | how often | lost | different |", "|---|---|---|---|"]
    lines += [f"| {name} | {row['done']} | {row['lost']} | {row['different']} |" for name, row in table.iterrows()]
    asked = f"tests/stress/run.py --kills {options.kills}, {datetime.date.today()}"
    note = f"{asked}, {os.cpu_count()} CPU cores, {minutes:.0f} minutes, seed {seed}."
    options.out.write_text("\n".join(["# Stress test", "", note, "", *lines]) + "\n")
    print("\n".join(lines))
    bad = table[["lost", "different"]].apply(pd.to_numeric, errors="coerce").fillna(0).to_numpy().sum()
    sys.exit(int(bad > 0))


def prepare_photos(workspace):
    """Prepare the photos once, for all trainings."""
    os.environ.update(COLORIZE_WORKSPACE=str(workspace), COLORIZE_PROFILE="smoke")
    dataset.prepare(Config.from_profile(**SMALL))


if __name__ == "__main__":
    main()
