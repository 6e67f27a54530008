"""`make bench-gpu`: how well training uses a GPU; at most 6 minutes, no network. Writes GPU.md.

Counts the operations of a step that make the host wait for the GPU; times steps (eager, compiled, without LPIPS) beside
the report's way in the same run; asks the profiler for launches and idle time; times a checkpoint; and trains the first
epochs of profile `paper`, on the photos of the folder PHOTOS if it is set, else on squares cut from scikit-image's.
Without a GPU it only says so.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from common import Photos, as_markdown, machine, squares, write_photos
from ours import endless, new_trainer, settings, wait
from plain import PlainTraining
from torch.profiler import ProfilerActivity, profile

from helpers import workspace
from helpers.config import Config
from helpers.data import dataset
from helpers.models.generator import Generator
from helpers.training.trainer import Trainer

PHASES = ("warmup", "adversarial")
SECONDS = 350  # in all
WARM = 3  # steps before anything is measured
GOALS = {
    "operations in a step that wait for the GPU": lambda found: found["waits"] == 0,
    "adversarial phase at least 4 times as fast as the report's way": lambda found: found["ratio"] >= 4,
    "GPU idle less than 15% of a step": lambda found: found["idle"] < 0.15,
    "`paper` in less than 12 minutes": lambda found: found["minutes"] < 12,
}


def milliseconds(step: Callable, batches: Iterator[tuple], steps: int) -> float:
    """Return the mean time of `step(*batch)`, the batches' own time included."""
    for batch in islice(batches, WARM):
        step(*batch)
    wait()
    started = time.perf_counter()
    for batch in islice(batches, steps):
        step(*batch)
    wait()
    return 1000 * (time.perf_counter() - started) / steps


def waits(trainer: Trainer) -> list[str]:
    """Return the places (file:line) where a step, or making its batch, waits for the GPU; empty on a CPU."""
    batches = endless(trainer.batches)
    for batch in islice(batches, WARM):
        trainer.step(*batch)
    wait()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")
        trainer.step(*next(batches))
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")
    project = f"{workspace.PROJECT}/"
    return [
        f"{warning.filename.removeprefix(project)}:{warning.lineno}"
        for warning in caught
        if "synchroniz" in str(warning.message)
    ]


def profiled(trainer: Trainer, steps: int) -> dict[str, float]:
    """Return kernel launches and the GPU's busy milliseconds per step, and the peak memory in GB."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    batches = endless(trainer.batches)
    for batch in islice(batches, WARM):
        trainer.step(*batch)
    wait()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with profile(activities=activities) as watched:
        for batch in islice(batches, steps):
            trainer.step(*batch)
        wait()
    launches = sum("LaunchKernel" in event.name for event in watched.events())
    kernels = [event for event in watched.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    busy, end = 0.0, 0.0  # microseconds of the union of all kernels, which may overlap on several streams
    for event in sorted(kernels, key=lambda event: event.time_range.start):
        busy += max(0.0, event.time_range.end - max(end, event.time_range.start))
        end = max(end, event.time_range.end)
    memory = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else float("nan")
    return {"launches": launches / steps, "busy ms": busy / 1000 / steps, "peak GB": memory}


def report_way(folder: Path, cfg: Config, adversarial: bool, steps: int) -> float:
    """Return the milliseconds of a step of the report's way: fp32, NCHW, photos from disk through a DataLoader."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain = PlainTraining(cfg, Generator(**cfg.generator()), adversarial, device)
    paths = write_photos(folder, squares(4 * cfg.batch_size, cfg.size), "png")
    loader = plain.loader(paths * (steps + WARM + 8))  # the workers' lead at the start is within the warm steps
    return milliseconds(plain.step, iter(loader), steps)


def step_times(cfg: Config, photos: Any, steps: int, **options: bool) -> dict[str, float]:
    """Return the milliseconds of a step of each phase."""
    times = {}
    for phase in PHASES if options.get("with_lpips", True) else PHASES[1:]:
        trainer = new_trainer(cfg, photos, phase == "adversarial", **options)
        times[phase] = milliseconds(trainer.step, endless(trainer.batches), steps)
    return times


def compiled(options: argparse.Namespace, batch: int, seconds: float) -> dict[str, float]:
    """Return `step_times` with torch.compile, measured in a process of its own that ends after some seconds."""
    command = [sys.executable, __file__, "--compiled", str(batch), "--device", options.device]
    command += ["--size", str(options.size), "--steps", str(options.steps)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1), check=True)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return dict.fromkeys(PHASES, "no time left")
    except subprocess.CalledProcessError as error:
        print(*error.stderr.strip().splitlines()[-5:], sep="\n")
        return dict.fromkeys(PHASES, "failed")


def checkpoint(trainer: Trainer) -> dict[str, float]:
    """Write a checkpoint; return its seconds and its size."""
    started = time.perf_counter()
    trainer.save()
    wait()
    seconds = time.perf_counter() - started
    size = trainer.file.stat().st_size
    return {"s a checkpoint": seconds, "GB a checkpoint": size / 1e9}


def first_epochs(cfg: Config, photos: Any, counts: tuple[int, int]) -> dict[str, dict[str, float]]:
    """Train the first epochs of both phases of a profile; return a row per phase: seconds and validation metrics."""
    workspace.seed_everything(cfg.seed)
    generator, rows = Generator(**cfg.generator()), {}
    for phase, epochs in zip(PHASES, counts, strict=True):
        saved = []  # after each epoch
        trainer = new_trainer(cfg, photos, phase == "adversarial", generator=generator, epochs=epochs)
        history = trainer.fit(show=lambda trainer, saved=saved: saved.append(checkpoint(trainer)))
        rows[phase] = {"epochs": epochs, "s an epoch": history["seconds"].iloc[1:].median()}  # the first one is slower
        rows[phase] |= history.iloc[-1][["val L1", "val PSNR"]].to_dict() | saved[0]  # the last one is smaller
    return rows


class Report:
    """GPU.md, written again after every section, so that nothing is lost if a later one fails."""

    def __init__(self, path: Path, title: str):
        self.path, self.parts, self.started = path, [f"# Training on a GPU\n\n{title}"], time.monotonic()

    def add(self, title: str, text: str) -> None:
        """Add a section, print it, and write the file."""
        self.parts.append(f"## {title}\n\n{text}")
        self.path.write_text("\n\n".join(self.parts) + "\n")
        print(f"[{time.monotonic() - self.started:.0f} s] {title}\n\n{text}\n", flush=True)

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return SECONDS - (time.monotonic() - self.started)


def measure_steps(report: Report, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Measure waits, step times, the report's way and the profile; return the numbers of the goals."""
    cfg, found = settings(size=options.size, batch_size=options.batches[0]), {}
    photos = Photos(squares(4 * max(options.batches), options.size))
    places = {phase: waits(new_trainer(cfg, photos, phase == "adversarial")) for phase in PHASES}
    found["waits"] = sum(map(len, places.values()))
    listed = [f"- {phase}: {len(at)}" + "".join(f"\n  - {place}" for place in at) for phase, at in places.items()]
    report.add("Operations in a step that wait for the GPU", "\n".join(listed))
    rows = {}
    for batch in options.batches:
        each = cfg.replace(batch_size=batch)
        rows[f"batch {batch}"] = step_times(each, photos, options.steps)
        without = step_times(each, photos, options.steps, with_lpips=False)
        rows[f"batch {batch}"]["adversarial without LPIPS"] = without["adversarial"]
    report.add(f"Milliseconds a step, {options.size} px", as_markdown(rows, 1))
    ours, beside = rows[f"batch {options.batches[0]}"], {}
    for phase in PHASES:
        theirs = report_way(folder, cfg, phase == "adversarial", max(options.steps // 2, 1))
        rates = [1000 * cfg.batch_size / ms for ms in (ours[phase], theirs)]
        beside[phase] = {"ours, photos/s": rates[0], "the report's way": rates[1], "ratio": rates[0] / rates[1]}
    found["ratio"] = beside["adversarial"]["ratio"]
    report.add(f"Beside the report's way, batch {cfg.batch_size}", as_markdown(beside, 1))
    seen = {phase: profiled(new_trainer(cfg, photos, phase == "adversarial"), 5) for phase in PHASES}
    for phase, row in seen.items():
        row["idle share"] = 1 - row["busy ms"] / ours[phase]
    found["idle"] = seen["adversarial"]["idle share"]
    report.add(f"What the profiler sees in a step, batch {cfg.batch_size}", as_markdown(seen, 2))
    return found


def measure_paper(report: Report, options: argparse.Namespace) -> float:
    """Train the first epochs of `paper`; return the minutes that all of it would take."""
    cfg = settings(size=options.size, run="gpu", checkpoint_minutes=60.0)
    if folder := os.environ.get("PHOTOS"):
        cfg = cfg.replace(data_source="folder", photos_folder=folder)
    photos = dataset.prepare(cfg) if folder else Photos(squares(options.photos, cfg.size))
    rows = first_epochs(cfg, photos, options.epochs)
    epochs = {"warmup": cfg.warmup_epochs, "adversarial": cfg.adversarial_epochs}
    minutes = sum(count * rows[phase]["s an epoch"] for phase, count in epochs.items()) / 60
    text = (
        f"{len(photos.load('train', None))} training photos; extrapolated to {' + '.join(map(str, epochs.values()))} "
    )
    report.add("Profile `paper`, its first epochs", f"{as_markdown(rows)}\n\n{text}epochs: **{minutes:.1f} minutes**.")
    return minutes


def parse() -> argparse.Namespace:
    """Return the command line; all options but --out are for testing this file on a CPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("GPU.md"), help="the report's file")
    for name, kind, default in (("size", int, 255), ("steps", int, 20), ("photos", int, 1200), ("compiled", int, 0)):
        parser.add_argument(f"--{name}", type=kind, default=default, help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--batches", type=int, nargs="+", default=(8, 16, 32), help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, nargs=2, default=(2, 3), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure everything, and write the report."""
    options = parse()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing to measure. `make bench` measures training on a CPU.")
        return
    torch.manual_seed(0)
    if options.compiled:
        cfg = settings(size=options.size, batch_size=options.compiled, compile=True)
        print(json.dumps(step_times(cfg, Photos(squares(4 * cfg.batch_size, cfg.size)), options.steps)))
        return
    report = Report(options.out, f"`make bench-gpu`: {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COLORIZE_WORKSPACE"] = str(Path(folder) / "workspace")
        found = measure_steps(report, options, Path(folder))
        found["minutes"] = measure_paper(report, options)
    rows = {f"batch {batch}": compiled(options, batch, report.left) for batch in options.batches if report.left > 60}
    report.add("Milliseconds a step with torch.compile", as_markdown(rows, 1) if rows else "No time was left.")
    reached = {name: {"reached": "yes" if test(found) else "**no**"} for name, test in GOALS.items()}
    report.add("Goals", as_markdown(reached))


if __name__ == "__main__":
    main()
