"""What `ablation.py` and `bottlenecks.py` share: many trainings, two side by side, each finished one a JSON file.

A second call continues with those that are left. Everything is measured on the validation photos of the profile.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

os.environ.setdefault("COLORIZE_PROFILE", "laptop")

import numpy as np
import pandas as pd
import torch
from common import as_markdown
from measures import checkerboard
from torch import Tensor, nn

from helpers import workspace
from helpers.evaluation import metrics
from helpers.evaluation.frontier import frontier, gain, over_slider

HERE = Path(__file__).resolve().parent


def file_of(study: str, name: str, seed: int) -> Path:
    """Return the file with the numbers of a finished training."""
    return workspace.folder(study) / f"{name} {seed}.json"


def write(study: str, name: str, seed: int, row: dict, curve: pd.DataFrame, seconds: float) -> None:
    """Write the numbers of a finished training."""
    result = {"row": row, "curve": curve.reset_index().to_dict("list"), "seconds": seconds}
    file_of(study, name, seed).write_text(json.dumps(result))
    print(name, seed, {key: round(float(value), 3) for key, value in row.items()}, f"{seconds:.0f} s", flush=True)


def curve_of(study: str, name: str, seed: int) -> pd.DataFrame:
    """Return the frontier of a finished training."""
    return pd.DataFrame(json.loads(file_of(study, name, seed).read_text())["curve"]).set_index("saturation")


def measured(generator: nn.Module, photos: Tensor, slider: pd.DataFrame | None = None) -> tuple[dict, pd.DataFrame]:
    """Return a row of numbers of a generator on validation photos, and its frontier; slider: the warmup's frontier."""
    curve, colored = frontier(generator.eval(), photos), metrics.colorize_all(generator, photos)
    row = curve.loc[1.0, ["L1", "PSNR", "of truth"]].to_dict()
    row["SSIM"] = float(np.mean(metrics.ssim(colored.float() / 255, photos.float() / 255)))
    row |= {f"gain at {share:.0%}": gain(curve, share) for share in (0.65, 0.75)}
    row["checkerboard"] = checkerboard(colored)
    row |= metrics.edge_report(colored, photos).mean().to_dict()
    if slider is not None:
        row["over the slider"] = over_slider(curve, slider)
    return row, curve


def parse(about: str | None, names: list[str], epochs: int) -> argparse.Namespace:
    """Return the command line of a study; `one`: the name and the seed that this process trains, or None."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--names", nargs="*", default=names, metavar="NAME", help="compare only these")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the report")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        torch.set_num_threads(1)
        options.one[1] = int(options.one[1])
    return options


def run_all(script: str, study: str, names: Sequence[str], options: argparse.Namespace, seeds: int) -> None:
    """Run `script --one NAME SEED` for each training that is not finished, two side by side, a thread each."""
    jobs = [(name, seed) for seed, name in product(range(seeds), names) if not file_of(study, name, seed).exists()]

    def _start(job):
        command = [sys.executable, script, "--one", *map(str, job), "--epochs", str(options.epochs)]
        with (workspace.folder(study) / "log.txt").open("a") as log:
            return subprocess.run(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode

    with ThreadPoolExecutor(2) as pool:
        if any(failed := [*pool.map(_start, jobs)]):
            print(f"{sum(map(bool, failed))} trainings failed, see {workspace.folder(study) / 'log.txt'}")


def results(study: str) -> pd.DataFrame:
    """Return the rows of all finished trainings: name, seed, seconds, numbers."""
    rows = []
    for file in workspace.folder(study).glob("*.json"):
        name, _, seed = file.stem.rpartition(" ")
        result = json.loads(file.read_text())
        rows.append({"name": name, "seed": int(seed), "seconds": result["seconds"], **result["row"]})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, about: dict[str, str], columns: Iterable[str]) -> str:
    """Return the mean and the spread of each name as Markdown; about: a text for each name."""
    rows = {}
    for name in [name for name in about if name in set(table["name"])]:
        values = table[table["name"] == name].reindex(columns=columns)
        mean, spread = values.mean(), values.std()
        cells = {c: f"{mean[c]:.3f}" + f" ± {spread[c]:.3f}" * (len(values) > 1) for c in columns}
        cells = {c: "–" if cell.startswith("nan") else cell for c, cell in cells.items()}
        rows[name] = {"seeds": str(len(values)), **cells, "what it is": about[name]}
    return as_markdown(rows)


def circumstances(command: str, table: pd.DataFrame, photos: Tensor) -> str:
    """Return a sentence on where, when and on what a table was measured."""
    return (
        f"`{command}`, {datetime.date.today()}, {os.cpu_count()} CPU cores ({platform.machine()}), "
        f"{table['seconds'].sum() / 7200:.1f} hours with two trainings side by side. {len(photos)} validation photos, "
        f"profile `{os.environ['COLORIZE_PROFILE']}`; mean ± standard deviation over seeds (the same photos, other "
        f"weights, order and augmentation). The truth's checkerboard: {checkerboard(photos):.2f}."
    )
