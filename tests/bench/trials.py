"""What `ablation.py` and `bottlenecks.py` share: trainings side by side, a thread each, each finished one a file.

A second call goes on with what is left. Everything is measured on the validation photos of the profile.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ.setdefault("COLORIZE_PROFILE", "laptop")

import numpy as np
import pandas as pd
import torch

from helpers import workspace
from helpers.evaluation import metrics
from helpers.evaluation.frontier import frontier, gain, over_slider


def kept(study, name, seed):
    """Return the file that a finished training's numbers are in."""
    return workspace.folder(study) / f"{name} {seed}.json"


def keep(study, name, seed, row, curve, seconds):
    """Write what a training came to."""
    told = {"row": row, "curve": curve.reset_index().to_dict("list"), "seconds": seconds}
    kept(study, name, seed).write_text(json.dumps(told))
    print(name, seed, {key: round(float(value), 3) for key, value in row.items()}, f"{seconds:.0f} s", flush=True)


def curve_of(study, name, seed):
    """Return the curve of a finished training."""
    return pd.DataFrame(json.loads(kept(study, name, seed).read_text())["curve"]).set_index("saturation")


def measured(generator, photos, slider=None):
    """Return a row of numbers of a generator on validation photos, and its curve; slider: the warmup's curve."""
    curve, colored = frontier(generator.eval(), photos), metrics.colorize_all(generator, photos)
    row = curve.loc[1.0, ["L1", "PSNR", "of truth"]].to_dict()
    row["SSIM"] = float(np.mean(metrics.ssim(colored.float() / 255, photos.float() / 255)))
    row |= {f"gain at {share:.0%}": gain(curve, share) for share in (0.65, 0.75)}
    row["checkerboard"] = metrics.checkerboard(colored)
    row |= metrics.edge_report(colored, photos).mean().to_dict()
    if slider is not None:
        row["over the slider"] = over_slider(curve, slider)
    return row, curve


def parse(about, names, epochs):
    """Return the command line of a study; `one` is the name and the seed that this process shall train, or None."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--names", nargs="*", default=names, metavar="NAME", help="of what is compared")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the report; without it, this one")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SEED"), help="train this one, in this process")
    options = parser.parse_args()
    if options.one:
        torch.set_num_threads(1)
        options.one[1] = int(options.one[1])
    return options


def run_all(script, study, names, options, seeds):
    """Run `script --one NAME SEED` for all that is not finished, two side by side: on two cores the fastest."""
    jobs = [(name, seed) for seed, name in product(range(seeds), names)]

    def _start(job):
        command = [sys.executable, script, "--one", *map(str, job), "--epochs", str(options.epochs)]
        with (workspace.folder(study) / "log.txt").open("a") as log:
            subprocess.run(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_start, [job for job in jobs if not kept(study, *job).exists()]))


def results(study):
    """Return the rows of all finished trainings as a table: name, seed, seconds, numbers."""
    rows = []
    for file in workspace.folder(study).glob("*.json"):
        name, _, seed = file.stem.rpartition(" ")
        told = json.loads(file.read_text())
        rows.append({"name": name, "seed": int(seed), "seconds": told["seconds"], **told["row"]})
    return pd.DataFrame(rows)


def markdown(table, about, columns):
    """Return a table of results as lines of Markdown: mean and spread of each name; about: a text for each name."""
    groups = table.reindex(columns=["name", *columns]).groupby("name")
    mean, spread, count = groups[columns].mean(), groups[columns].std(), groups.size()
    lines = [f"| | seeds | {' | '.join(columns)} | what it is |", "|---" * (len(columns) + 3) + "|"]
    for name in [name for name in about if name in count]:
        cells = [f"{mean.loc[name, c]:.3f}" + f" ± {spread.loc[name, c]:.3f}" * int(count[name] > 1) for c in columns]
        cells = ["–" if cell.startswith("nan") else cell for cell in cells]
        lines.append(f"| {name} | {count[name]} | {' | '.join(cells)} | {about[name]} |")
    return lines


def circumstances(command, table, photos):
    """Return a sentence on where, when and on what a table was measured."""
    return (
        f"`{command}`, {datetime.date.today()}, {os.cpu_count()} CPU cores ({platform.machine()}), "
        f"{table['seconds'].sum() / 7200:.1f} hours with two trainings side by side. {len(photos)} validation photos, "
        "profile `laptop`; mean ± standard deviation over seeds, which share the photos and differ in first weights, "
        f"order and augmentation. The truth's checkerboard: {metrics.checkerboard(photos):.2f}."
    )
