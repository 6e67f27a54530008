"""`make bench`: how fast the series is, beside the report's way, and beside an earlier version in the folder BEFORE.

The versions take turns, each measurement is a process of its own (`speed.py JSON`), and medians are reported. It needs
the machine to itself. The report goes to artifacts/bench/speed.md; copy to RESULTS.md by hand what is worth it.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]  # this version, whichever one has started it

from common import as_markdown, in_process, machine, peak_memory, photos_of_skimage, write_photos
from ways import our_way, reports_way, seconds_per_step, settings

from helpers.apps.folder import colorize_folder
from helpers.apps.photo_files import colorize_file
from helpers.inference.colorizer import Colorizer
from helpers.models.generator import Generator
from helpers.runs import save_network

PROJECT = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("ROUNDS", 3))
TASKS = {
    f"{phase}, {size} px, a photo": {"what": "train", "adversarial": phase == "adversarial", "size": size}
    for size in (255, 128)
    for phase in ("warmup", "adversarial")
}
TASKS |= {"a photo of 24 megapixels": {"what": "full_size"}, "a folder of 200 photos, a photo": {"what": "album"}}


def train(folder: Path, way: str = "ours", adversarial: bool = False, size: int = 255, steps: int = 6) -> float:
    """Return the seconds that a phase needs for a photo; way: "ours", or "the report's"."""
    cfg = settings(size=size)
    paths = write_photos(folder, cfg.batch_size * (steps + 2), size)
    return (
        seconds_per_step(*(our_way if way == "ours" else reports_way)(cfg, adversarial, paths), steps) / cfg.batch_size
    )


def full_size(folder: Path, megapixels: float = 24) -> float:
    """Return the seconds to colorize a large photo from file to file, once the weights are loaded."""
    source, height = folder / "large.png", round((megapixels * 1e6 / 1.5) ** 0.5)
    cv2.imwrite(str(source), cv2.resize(photos_of_skimage()[0], (round(height * 1.5), height)))
    generator = Generator(weights=None)
    with torch.no_grad():
        generator.head.weight.mul_(30)  # strong colors, many of them out of gamut: the hard case
    colorizer = Colorizer(generator)
    colorizer(np.zeros((255, 255, 3), np.uint8))  # a network's first call takes longer
    started = time.perf_counter()
    colorize_file(source, source.with_stem("color"), colorizer, colorizer.options(input_size=255))
    return time.perf_counter() - started


def album(folder: Path, count: int = 200) -> float:
    """Return the seconds for each photo of a folder of JPEG files of 255 px, loading the weights included."""
    (source := folder / "in").mkdir()
    write_photos(source, count, 255, "jpg")
    save_network(folder / "generator.safetensors", Generator(weights=None), settings())
    started = time.perf_counter()
    colorize_folder(source, folder / "out", Colorizer(folder / "generator.safetensors"))
    return (time.perf_counter() - started) / count


def one(what: str, **task: bool | int | str) -> dict[str, float]:
    """Return the seconds and the peak memory of one measurement, taken in this process."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        seconds = {"train": train, "full_size": full_size, "album": album}[what](Path(folder), **task)
    return {"seconds": seconds, "GB": peak_memory()}


def row(task: dict) -> dict[str, float]:
    """Return medians for this version, the one before and the report's way, and how many times as fast this one is."""
    ways = {"now": (PROJECT, task)}
    if before := os.environ.get("BEFORE"):
        ways["before"] = Path(before), task
    if task["what"] == "train":
        ways["the report's way"] = PROJECT, task | {"way": "the report's"}
    taken = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (project, each) in ways.items():
            taken[name].append(in_process(project / "tests/bench/speed.py", json.dumps(each)))
    found = {name: pd.DataFrame(each).median() for name, each in taken.items()}
    cells = {f"{name}, {unit}": value for name, each in found.items() for unit, value in each.items()}
    return cells | {f"times {name}": found[name]["seconds"] / found["now"]["seconds"] for name in list(found)[1:]}


def main() -> None:
    """Measure everything, and write the table."""
    out, rows = PROJECT / "artifacts" / "bench" / "speed.md", {}
    out.parent.mkdir(parents=True, exist_ok=True)
    for name, task in TASKS.items():
        rows[name] = row(task)
        out.write_text(f"# Speed\n\n{machine()}; medians of {ROUNDS}, in turns\n\n{as_markdown(rows)}\n")
    print(out.read_text())


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(one(**json.loads(sys.argv[1]))))
    else:
        main()
