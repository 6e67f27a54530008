"""`make bench-gpu`: how well training uses a GPU; at most 6 minutes, no network. Writes GPU.md.

Counts the operations of a step that make the host wait for the GPU; times steps (eager, without LPIPS, compiled) beside
the report's way in the same run; asks the profiler for launches and idle time; times a checkpoint; and trains the first
epochs of profile `paper`, on the photos of the folder PHOTOS if it is set, else on squares cut from scikit-image's.
Without a GPU it only says so; `--small` tries this file out, on a CPU too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from common import Photos, as_markdown, machine, squares, write_photos
from ours import UNMEASURED, endless, new_trainer, settings, timed, wait
from plain import PlainTraining
from torch.profiler import ProfilerActivity, profile

from helpers.config import Config
from helpers.data import dataset
from helpers.models.generator import Generator
from helpers.training.trainer import Trainer

GPU = torch.cuda.is_available()
PHASES = ("warmup", "adversarial")
SECONDS = 350  # in all
SIZES = {"size": 255, "batches": (8, 16, 32), "steps": 20, "photos": 1200, "epochs": (2, 3)}
SMALL = {"size": 64, "batches": (2, 3), "steps": 2, "photos": 16, "epochs": (2, 2)}
GOALS = {
    "operations in a step that wait for the GPU": lambda found: found["waits"] == 0,
    "adversarial phase at least 4 times as fast as the report's way": lambda found: found["ratio"] >= 4,
    "GPU idle less than 15% of a step": lambda found: found["idle"] < 0.15,
    "`paper` in less than 12 minutes": lambda found: found["minutes"] < 12,
}


def steps_of(trainer: Trainer, count: int) -> Callable[[], None]:
    """Return a function that takes so many steps, after a few that nobody measures."""
    batches = endless(trainer.batches)

    def _run(count=count):
        for batch in islice(batches, count):
            trainer.step(*batch)
        wait()

    _run(UNMEASURED)
    return _run


def waits(trainer: Trainer) -> list[str]:
    """Return the places (file:line) where a step, or making its batch, waits for the GPU; empty on a CPU."""
    run = steps_of(trainer, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if GPU:
            torch.cuda.set_sync_debug_mode("warn")
        run()
        if GPU:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{each.filename}:{each.lineno}" for each in caught if "synchroniz" in str(each.message)]


def profiled(trainer: Trainer, steps: int = 5) -> dict[str, float]:
    """Return kernel launches and the GPU's busy milliseconds per step, and the peak memory in GB."""
    run = steps_of(trainer, steps)
    if GPU:
        torch.cuda.reset_peak_memory_stats()
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * GPU) as watched:
        run()
    launches = sum("LaunchKernel" in event.name for event in watched.events())
    kernels = [event for event in watched.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    busy, end = 0.0, 0.0  # microseconds of the union of all kernels, which may overlap on several streams
    for event in sorted(kernels, key=lambda event: event.time_range.start):
        busy += max(0.0, event.time_range.end - max(end, event.time_range.start))
        end = max(end, event.time_range.end)
    memory = torch.cuda.max_memory_allocated() / 1e9 if GPU else float("nan")
    return {"launches": launches / steps, "busy ms": busy / 1000 / steps, "peak GB": memory}


def report_way(folder: Path, cfg: Config, adversarial: bool, steps: int) -> float:
    """Return the photos per second of the report's way: fp32, NCHW, photos from disk through a DataLoader."""
    plain = PlainTraining(cfg, Generator(**cfg.generator()), adversarial, "cuda" if GPU else "cpu")
    paths = write_photos(folder, squares(4 * cfg.batch_size, cfg.size), "png")
    return timed(plain.step, islice(plain.loader(paths * (steps + 8)), steps + UNMEASURED), cfg.batch_size)


def step_times(cfg: Config, steps: int) -> dict[str, float]:
    """Return the milliseconds of a step of each phase, and of the adversarial one without LPIPS."""
    times, photos = {}, Photos(squares(4 * cfg.batch_size, cfg.size))
    for phase, lpips in (("warmup", True), ("adversarial", True), ("adversarial", False)):
        trainer = new_trainer(cfg, photos, phase == "adversarial", with_lpips=lpips)
        batches = islice(endless(trainer.batches), steps + UNMEASURED)
        rate = timed(trainer.step, batches, cfg.batch_size)
        times[phase if lpips else "without LPIPS"] = 1000 * cfg.batch_size / rate
    return times


def compiled(batch: int, seconds: float) -> dict[str, float]:
    """Return `step_times` with torch.compile, measured in a process of its own that ends after some seconds."""
    command = [sys.executable, __file__, "--compiled", str(batch), *sys.argv[1:]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1), check=True)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return dict.fromkeys(PHASES, "no time left")
    except subprocess.CalledProcessError as error:
        print(error.stderr[-500:])
        return dict.fromkeys(PHASES, "failed")


def checkpoint(trainer: Trainer) -> dict[str, float]:
    """Write a checkpoint; return its seconds and its size."""
    began = time.perf_counter()
    trainer.save()
    wait()
    size = trainer.file.stat().st_size
    return {"s a checkpoint": time.perf_counter() - began, "GB a checkpoint": size / 1e9}


def first_epochs(cfg: Config, photos: Any, counts: tuple[int, int]) -> dict[str, dict[str, float]]:
    """Train the first epochs of both phases; return a row per phase: seconds, validation metrics, a checkpoint."""
    rows = {}
    for phase, epochs in zip(PHASES, counts, strict=True):
        trainer, saved = new_trainer(cfg, photos, phase == "adversarial", epochs=epochs), []
        history = trainer.fit(show=lambda trainer, saved=saved: saved.append(checkpoint(trainer)))
        rows[phase] = {"epochs": epochs, "s an epoch": history["seconds"].iloc[1:].median()}  # the first one is slower
        rows[phase] |= history.iloc[-1][["val L1", "val PSNR"]].to_dict() | saved[0]  # the last one is smaller
    return rows


class Report:
    """GPU.md, written again after every section, so that nothing is lost if a later one fails."""

    def __init__(self, path: Path):
        self.path, self.text, self.began = (
            path,
            f"# Training on a GPU\n\n`make bench-gpu`: {machine()}",
            time.monotonic(),
        )

    def add(self, title: str, text: str) -> None:
        """Add a section, print it, and write the file."""
        self.text += f"\n\n## {title}\n\n{text}"
        self.path.write_text(f"{self.text}\n")
        print(f"[{time.monotonic() - self.began:.0f} s] {title}\n\n{text}\n", flush=True)

    def left(self) -> float:
        """Return the seconds that are left."""
        return SECONDS - (time.monotonic() - self.began)


def measure_steps(report: Report, sizes: dict, folder: Path) -> dict[str, float]:
    """Measure waits, step times, the report's way and the profile; return the numbers of the goals."""
    batch, found, beside, seen = sizes["batches"][0], {}, {}, {}
    cfg, photos = settings(size=sizes["size"], batch_size=batch), Photos(squares(4 * batch, sizes["size"]))
    places = {phase: waits(new_trainer(cfg, photos, phase == "adversarial")) for phase in PHASES}
    found["waits"] = sum(map(len, places.values()))
    report.add(
        "Operations in a step that wait for the GPU", "\n".join(f"- {name}: {at}" for name, at in places.items())
    )
    rows = {each: step_times(cfg.replace(batch_size=each), sizes["steps"]) for each in sizes["batches"]}
    report.add("Milliseconds a step", as_markdown({f"batch {each}": row for each, row in rows.items()}, 1))
    for phase in PHASES:
        theirs = report_way(folder, cfg, phase == "adversarial", sizes["steps"] // 2)
        ours = 1000 * batch / rows[batch][phase]
        beside[phase] = {"ours, photos/s": ours, "the report's way": theirs, "ratio": ours / theirs}
        seen[phase] = profiled(new_trainer(cfg, photos, phase == "adversarial"))
        seen[phase]["idle share"] = 1 - seen[phase]["busy ms"] / rows[batch][phase]
    report.add(f"Beside the report's way, batch {batch}", as_markdown(beside, 1))
    report.add(f"What the profiler sees in a step, batch {batch}", as_markdown(seen, 2))
    return found | {"ratio": beside["adversarial"]["ratio"], "idle": seen["adversarial"]["idle share"]}


def measure_paper(report: Report, sizes: dict) -> float:
    """Train the first epochs of `paper`; return the minutes that all of it would take."""
    cfg, folder = settings(size=sizes["size"], run="gpu", checkpoint_minutes=60.0), os.environ.get("PHOTOS")
    if folder:
        cfg = cfg.replace(data_source="folder", photos_folder=folder)
    photos = dataset.prepare(cfg) if folder else Photos(squares(sizes["photos"], cfg.size))
    rows = first_epochs(cfg, photos, sizes["epochs"])
    epochs = {"warmup": cfg.warmup_epochs, "adversarial": cfg.adversarial_epochs}
    minutes = sum(count * rows[phase]["s an epoch"] for phase, count in epochs.items()) / 60
    about = f"{len(photos.load('train', None))} photos; all {sum(epochs.values())} epochs: **{minutes:.1f} minutes**."
    report.add("Profile `paper`, its first epochs", f"{as_markdown(rows)}\n\n{about}")
    return minutes


def main() -> None:
    """Measure everything, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("GPU.md"), help="the report's file")
    parser.add_argument("--small", action="store_true", help="tiny photos and few steps")
    parser.add_argument("--compiled", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = SMALL if options.small else SIZES
    torch.manual_seed(0)
    if not GPU and not options.small:
        print("no GPU here: nothing to measure. `make bench` measures training on a CPU.")
    elif options.compiled:
        cfg = settings(size=sizes["size"], batch_size=options.compiled, compile=True)
        print(json.dumps(step_times(cfg, sizes["steps"])))
    else:
        report = Report(options.out)
        with tempfile.TemporaryDirectory() as folder:
            os.environ["COLORIZE_WORKSPACE"] = str(Path(folder) / "workspace")
            found = measure_steps(report, sizes, Path(folder))
            found["minutes"] = measure_paper(report, sizes)
        rows = {f"batch {each}": compiled(each, report.left()) for each in sizes["batches"] if report.left() > 60}
        report.add("Milliseconds a step with torch.compile", as_markdown(rows, 1) if rows else "No time was left.")
        reached = {name: {"reached": "yes" if test(found) else "**no**"} for name, test in GOALS.items()}
        report.add("Goals", as_markdown(reached))


if __name__ == "__main__":
    main()
