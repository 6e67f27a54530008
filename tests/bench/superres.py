"""`make superres-bench`: how good enlarging is, by the networks of notebook 09 and of the box; tiles, time.

On Kodak24 where KODAK24 names its folder, else on the run's test photos. ST-LPIPS judges only, and is measured where
`stlpips_pytorch` is installed.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import kornia.augmentation as K
import numpy as np
import pandas as pd
import torch
from common import as_markdown, kodak, machine, peak_memory
from measures import detail
from tools.train_enlarger import compress
from torch import Tensor, nn

from helpers.color import gray_rgb, rgb_to_L_ab
from helpers.config import Config
from helpers.data import dataset
from helpers.evaluation import metrics
from helpers.inference.enlarger import Enlarger
from helpers.models.srresnet import SRResNet, bicubic
from helpers.runs import BOX, Run, load_network, runs
from helpers.training.losses import Perceptual

SIZES = (1, 4, 16)  # megapixels of the result


def judges() -> dict[str, Callable]:
    """Return perceptual distances of gray photos (1, 3, H, W) in [0, 1], by name."""
    untrained = Perceptual(None)
    found: dict[str, Callable] = {untrained.name: untrained}
    try:
        from stlpips_pytorch import stlpips
    except ImportError:
        return found
    judge = stlpips.LPIPS(net="alex", variant="shift_tolerant").eval()
    return found | {"ST-LPIPS": lambda a, b: judge(a * 2 - 1, b * 2 - 1)}


def photos_of(run: Run | None) -> tuple[list[Tensor], str]:
    """Return Kodak24 or the test photos of a run, uint8 (3, H, W) with sides that 4 divides, and their name."""
    if truths := kodak():
        return [torch.from_numpy(rgb).permute(2, 0, 1) for rgb in truths], "photos of Kodak24"
    cfg = run.agree(Config.from_profile()) if run else Config.from_profile()
    return list(dataset.originals(dataset.prepare(cfg), cfg.original_size).load("test")), "test photos"


@torch.no_grad()
def score(enlarge: Callable[[Tensor], Tensor], photos: list[Tensor], known: dict[str, Callable]) -> pd.Series:
    """Return the mean scores of enlargements; `enlarge(L)` returns the large L of a small L (1, 1, h, w)."""
    rows = []
    for photo in photos:
        truth = gray_rgb(rgb_to_L_ab(photo[None].float() / 255)[0])
        small = (bicubic(truth, 1 / 4).clamp(0, 1) * 255).round() / 255
        large = enlarge(rgb_to_L_ab(small)[0]).float().cpu()
        ours = (gray_rgb(large) * 255).round() / 255
        row = metrics.quality(ours, truth).iloc[0].to_dict() | {"detail": detail(ours), "of truth": detail(truth)}
        rows.append(row | {name: judge(ours, truth).item() for name, judge in known.items()})
    table = pd.DataFrame(rows).mean()
    table["detail, % of truth's"] = 100 * table.pop("detail") / table.pop("of truth")
    return table


@torch.no_grad()
def damaged(network: nn.Module, photos: list[Tensor]) -> pd.Series:
    """Return the mean PSNR and SSIM on photos damaged as in notebook 09, in the same way for each network."""

    def _jpeg(small):
        return compress(small, np.random.RandomState(0))

    before = [K.RandomGaussianBlur((9, 9), (0.3, 2.0), p=0.7), _jpeg]
    after, tables = [K.RandomGaussianNoise(std=0.03, p=1.0), _jpeg], []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for photo in photos:
            L = rgb_to_L_ab(photo[None].float() / 255)[0]
            gray = (L + 1) / 2
            for transform in (*before, partial(bicubic, scale=1 / 4), *after):
                gray = transform(gray)
            large = (gray_rgb(network.eval()(gray.clamp(0, 1) * 2 - 1)) * 255).round() / 255
            tables.append(metrics.quality(large, gray_rgb(L)))
    return pd.concat(tables).mean()


def cost(path: Path, megapixels: float) -> dict[str, float]:
    """Return seconds and peak memory of a process that enlarges so much, and by how much tiles differ."""
    command = [sys.executable, __file__, "cost", str(path), str(megapixels)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def one_cost(path: str, megapixels: float) -> None:
    """Enlarge random pixels, and print what `cost` returns."""
    side = round((megapixels * 1e6) ** 0.5 / 4)
    photo, enlarger = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8), Enlarger(path)
    began = time.perf_counter()
    large = enlarger(photo)
    seconds, peak = time.perf_counter() - began, peak_memory()
    off = np.abs(large.astype(int) - enlarger(photo, tile=side)).max() if side <= 512 else float("nan")
    print(json.dumps({"pixels on a side": 4 * side, "seconds": seconds, "GB": peak, "off by": float(off)}))


def main() -> None:
    """Measure, and print tables as Markdown."""
    trained = [run for run in runs() if run.file("superres").exists()]
    run = trained[-1] if trained else None
    files = {"L1": run.file("superres"), "GAN": run.file("superres_gan")} if run else {}
    files["the box"] = BOX / "superres.safetensors"
    weights = {name: path for name, path in files.items() if path.exists()}
    if not weights:
        sys.exit("no network for super-resolution: run notebook 09_super_resolution first")
    photos, name = photos_of(run)
    networks: dict[str, nn.Module] = {"bicubic": SRResNet(1)}
    networks |= {title: load_network(path) for title, path in weights.items()}
    known = judges()
    rows = {title: score(network.eval(), photos, known).to_dict() for title, network in networks.items()}
    print(f"{machine()}\n\n{len(photos)} {name}, x4, luma Y\n\n{as_markdown(rows)}")
    if run and (repair := Run(f"{run.name} damaged")).file("superres").exists():
        networks["trained on damaged ones"] = repair.load("superres")
    rows = {title: damaged(network, photos).to_dict() for title, network in networks.items()}
    print(f"\nthe same photos, damaged\n\n{as_markdown(rows)}\n\ntiles\n")
    path = next(iter(weights.values()))
    print(as_markdown({f"{size} megapixels": cost(path, size) for size in SIZES}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["cost"]:
        one_cost(sys.argv[2], float(sys.argv[3]))
    else:
        main()
