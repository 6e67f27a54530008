"""`make compare-bottlenecks`: does attention help? Each bottleneck at equal steps over 3 seeds, and its costs.

The table is `BOTTLENECKS.md`; see `studies.py`. `--seeds 1 --epochs 1` is the short form; `--memory NAME SIZE` prints
the peak memory in GB of one training step of one photo.
"""

import shutil
import statistics
import subprocess
import sys
import time

import pandas as pd
import torch
from common import as_markdown, peak_memory
from ours import new_trainer
from studies import circumstances, measured, parse, results, run_all, summary, write
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from helpers import workspace
from helpers.color import ab_of
from helpers.config import Config
from helpers.data import dataset
from helpers.evaluation import metrics
from helpers.models.blocks import count_parameters
from helpers.models.generator import Generator

STUDY, RESIDUAL = "bottlenecks", "residual"
KINDS = {
    RESIDUAL: {"bottleneck": "residual", "res_blocks": 9},
    "residual, 4 blocks": {"bottleneck": "residual", "res_blocks": 4},
    "identity": {"bottleneck": "identity"},
    "attention": {"bottleneck": "attention"},
    "vit": {"bottleneck": "vit"},
    "identity, attention in decoder": {"bottleneck": "identity", "attention_at": 8},
}
ABOUT = {
    RESIDUAL: "nine residual blocks, the report's",
    "residual, 4 blocks": "as many parameters as vit",
    "identity": "nothing between encoder and decoder",
    "attention": "nine residual blocks and a self-attention",
    "vit": "six blocks of a Vision Transformer",
    "identity, attention in decoder": "nothing, and a self-attention in the decoder at 1/8 of the size",
}
COLUMNS = ["L1", "PSNR", "of truth", "gain at 75%", "edge contrast kept", "error near edges", "twins apart"]


@torch.no_grad()
def twins_apart(generator: nn.Module, photos: Tensor) -> float:
    """Return the mean color difference (CIE units) between the photos and their mirror images beside them."""
    colors = ab_of(metrics.colorize_all(generator, torch.cat([photos, photos.flip(-1)], dim=-1)))
    left, right = colors.chunk(2, dim=-1)
    return (left - right.flip(-1)).norm(dim=1).mean().item()


def train(name: str, seed: int, epochs: int) -> None:
    """Train a generator with one bottleneck from one seed, measure it, and write the numbers."""
    photos = dataset.prepare(Config.from_profile())  # the same photos for all seeds
    cfg = Config.from_profile(seed=seed, run=f"{STUDY} {name} {seed}", val_photos=32, **KINDS[name])
    workspace.seed_everything(seed)
    trainer, began = new_trainer(cfg, photos, False, epochs=epochs, lr_warmup_steps=cfg.lr_warmup_steps), time.time()
    trainer.fit()
    trained, validation = trainer.final_generator(), photos.load("validation")
    row, curve = measured(trained, validation)
    row["twins apart"] = twins_apart(trained, validation)
    write(STUDY, name, seed, row, curve, time.time() - began)
    shutil.rmtree(trainer.run.path)


def step(generator: nn.Module, size: int, count: int) -> float:
    """Take a training step without the optimizer on random photos; return its seconds."""
    began = time.perf_counter()
    generator(torch.rand(count, 1, size, size)).square().mean().backward()
    return time.perf_counter() - began


def beside(residual: nn.Module, generator: nn.Module, size: int, rounds: int = 9, count: int = 4) -> float:
    """Return the time of a step divided by that of nine residual blocks: they take turns, medians are compared."""
    times = [[step(each, size, count) for each in (residual, generator)] for _ in range(rounds)][2:]
    theirs, ours = map(statistics.median, zip(*times, strict=True))
    return ours / theirs


def costs(names: list[str], sizes: tuple[int, ...], large: int) -> pd.DataFrame:
    """Return parameters, arithmetic, relative time and memory of each bottleneck; large: in pixels, for the memory."""
    rows, residual = {}, Generator(weights=None, **KINDS[RESIDUAL])
    for name in names:
        generator = Generator(weights=None, **KINDS[name])
        rows[name] = {"million parameters": count_parameters(generator) / 1e6}
        for size in sizes:
            with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the kernel it can count
                step(generator, size, 1)
            rows[name][f"GFLOP, {size} px"] = counter.get_total_flops() / 1e9
            rows[name][f"time, {size} px"] = beside(residual, generator, size)
        command = [sys.executable, __file__, "--memory", name, str(large)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows[name][f"GB, {large} px"] = float(done.stdout)
    return pd.DataFrame(rows).T


def main() -> None:
    """Train what is left, then write the table."""
    options = parse(__doc__, list(KINDS), epochs=5)
    if options.one:
        train(*options.one, options.epochs)
        return
    run_all(__file__, STUDY, options.names, options, options.seeds)
    cfg, table = Config.from_profile(), results(STUDY)
    head = circumstances("make compare-bottlenecks", table, dataset.prepare(cfg).load("validation"))
    head += f" Each: {options.epochs} epochs of warmup."
    about = "Costs of a training step of the whole generator. Time: relative to nine residual blocks in the same run."
    prices = costs(options.names, (cfg.size, 2 * cfg.size - 1), 4 * cfg.size)
    lines = ["# Bottlenecks", head, summary(table, ABOUT, COLUMNS), about, as_markdown(prices, 2)]
    (options.out / "BOTTLENECKS.md").write_text("\n\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        step(Generator(weights=None, **KINDS[sys.argv[2]]), int(sys.argv[3]), 1)
        print(peak_memory())
    else:
        main()
