"""`make superres-bench`: how good enlarging is, for the networks that notebook 09 left; tiles, time and memory.

On Kodak24 where KODAK24 names its folder, else on the run's test photos. ST-LPIPS is a judge alone, and measured where
`stlpips_pytorch` is installed.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import kornia.augmentation as K
import numpy as np
import pandas as pd
import torch
from measures import detail
from torch import nn

from helpers.color import rgb_to_L_ab
from helpers.config import Config
from helpers.data import dataset
from helpers.data.photos import read_rgb
from helpers.evaluation import metrics
from helpers.evaluation.metrics import quality
from helpers.inference.enlarger import Enlarger
from helpers.models.srresnet import SRResNet, bicubic
from helpers.runs import Run, runs
from helpers.training.losses import Perceptual
from helpers.training.tasks import SuperResolution, compress, gray_photo


def judges():
    """Return perceptual distances of gray photos (1, 3, H, W) in [0, 1], by name."""
    untrained = Perceptual(None)
    found = {untrained.name: untrained}
    try:
        from stlpips_pytorch import stlpips
    except ImportError:
        return found
    judge = stlpips.LPIPS(net="alex", variant="shift_tolerant").eval()
    return found | {"ST-LPIPS": lambda a, b: judge(a * 2 - 1, b * 2 - 1)}


def load(run):
    """Return Kodak24 or the test photos of a run, a list of uint8 (3, H, W) with sides that 4 divides, and its name."""
    paths = sorted(Path(os.environ.get("KODAK24", "-")).glob("*.png"))
    if paths:
        return [torch.from_numpy(read_rgb(path)).permute(2, 0, 1) for path in paths], "Kodak24"
    cfg = run.agree(Config.from_profile())
    return list(dataset.originals(dataset.prepare(cfg), cfg.original_size).load("test")), "test photos"


@torch.no_grad()
def score(make, photos, known=()):
    """Return the mean scores of enlargements; `make(L)` gives the large L of a small L (1, 1, h, w)."""
    rows = []
    for photo in photos:
        L = rgb_to_L_ab(photo[None].float() / 255)[0]
        truth = gray_photo(L)
        reduced = (bicubic(truth, 1 / 4).clamp(0, 1) * 255).round() / 255
        large = make(rgb_to_L_ab(reduced)[0]).float().cpu()
        ours = metrics.as_photos(large, metrics.gray(large)).float() / 255
        row = quality(ours, truth).iloc[0].to_dict() | {"detail": detail(ours), "of truth": detail(truth)}
        rows.append(row | {name: judge(ours, truth).item() for name, judge in known.items()})
    table = pd.DataFrame(rows).mean()
    table["detail, % of truth's"] = 100 * table.pop("detail") / table.pop("of truth")
    return table


@torch.no_grad()
def damaged(network, photos):
    """Return the mean PSNR and SSIM on photos that were damaged as notebook 09 does it, the same for each network."""
    before = [K.RandomGaussianBlur((9, 9), (0.3, 2.0), p=0.7), compress]
    task, tables = SuperResolution("superres", before, [K.RandomGaussianNoise(std=0.03, p=1.0), compress]), []
    for shape in sorted({tuple(photo.shape) for photo in photos}):
        alike = torch.stack([photo for photo in photos if tuple(photo.shape) == shape])
        tables.append(task.measure(task.outputs(network.eval(), alike, "cpu"), alike, None, "cpu"))
    return pd.concat(tables)[["PSNR", "SSIM"]].mean()


def cost(path, megapixels):
    """Return seconds and peak memory (GB) of making so many megapixels, and how far tiles are off, of a new process."""
    command = [sys.executable, __file__, "cost", str(path), str(megapixels)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def peak_memory():
    """Return the most memory that this process ever held, in GB; what started it does not count."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def one_cost(path, megapixels):
    """Enlarge noise of a size, and print what `cost` returns."""
    side = round((megapixels * 1e6) ** 0.5 / 4)
    photo, enlarger = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8), Enlarger(path)
    began = time.perf_counter()
    large = enlarger(photo)
    seconds, peak = time.perf_counter() - began, peak_memory()
    off = np.abs(large.astype(int) - enlarger(photo, tile=side)).max() if side <= 512 else float("nan")
    print(json.dumps({"side": 4 * side, "seconds": seconds, "GB": peak, "off by": float(off)}))


def table_of(rows):
    """Print a dict of rows as Markdown."""
    table = pd.DataFrame(rows).T
    print(f"| | {' | '.join(table)} |\n{'|---' * (len(table.columns) + 1)}|")
    for title, row in table.iterrows():
        print(f"| {title} | {' | '.join(f'{value:.3f}' for value in row)} |")


def main():
    """Measure, and print tables as Markdown."""
    run = [run for run in runs() if run.file("superres").exists()][-1]
    photos, name = load(run)
    networks: dict[str, nn.Module] = {"bicubic": SRResNet(1)}
    for title, path in (("L1", run.file("superres")), ("GAN", run.file("superres_gan"))):
        if path.exists():
            networks[title] = Run(run.name).load(path.stem)
    print(f"{len(photos)} {name}, x4, luma Y\n")
    known = judges()
    table_of({title: score(network.eval(), photos, known) for title, network in networks.items()})
    repair = Run(f"{run.name} damaged")
    if repair.file("superres").exists():
        print("\nthe same photos, damaged\n")
        shown = {"bicubic": networks["bicubic"], "trained on clean photos": networks["L1"]}
        shown["trained on damaged ones"] = repair.load("superres")
        table_of({title: damaged(network, photos) for title, network in shown.items()})
    print(f"\ntiles, {torch.get_num_threads()} threads\n")
    table_of({f"{size} megapixels": cost(run.file("superres"), size) for size in (1, 4, 16)})


if __name__ == "__main__":
    if sys.argv[1:2] == ["cost"]:
        one_cost(sys.argv[2], float(sys.argv[3]))
    else:
        main()
