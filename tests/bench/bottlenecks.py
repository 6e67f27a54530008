"""`make compare-bottlenecks`: does attention pay? Each bottleneck at equal steps, 3 seeds, the same photos.

The table is `BOTTLENECKS.md`; see `trials.py`. `--seeds 1 --epochs 1` is the short form.
"""

import shutil
import time

import torch
from costs import KINDS, costs
from trials import circumstances, keep, markdown, measured, parse, results, run_all

from helpers import workspace
from helpers.color import ab_of
from helpers.config import Config
from helpers.data import dataset
from helpers.data.batches import augmentations
from helpers.evaluation import metrics
from helpers.models.blocks import count_parameters
from helpers.models.generator import Generator
from helpers.training.losses import color_term
from helpers.training.trainer import Trainer

STUDY = "bottlenecks"
ABOUT = {
    "residual": "nine residual blocks, the report's",
    "residual, 4 blocks": "as many parameters as vit",
    "identity": "nothing between encoder and decoder",
    "attention": "nine residual blocks and a self-attention",
    "vit": "six blocks of a Vision Transformer",
    "identity, attention in decoder": "nothing, and a self-attention in the decoder at 1/8 of the size",
}
COLUMNS = ["L1", "PSNR", "of truth", "gain at 75%", "edge contrast kept", "error near edges", "twins apart"]
COLUMNS += ["million parameters"]


@torch.no_grad()
def twins_apart(generator, photos):
    """Return how far apart, in CIE units, the colors of the same things are that stand twice in a picture.

    Each photo is put beside its mirror image, so that everything in it has a twin that may be far away.
    """
    pairs = torch.cat([photos, photos.flip(-1)], dim=-1)
    colors = ab_of(metrics.colorize_all(generator, pairs))
    left, right = colors.chunk(2, dim=-1)
    return (left - right.flip(-1)).norm(dim=1).mean().item()


def train(name, seed, epochs):
    """Train a generator with one bottleneck from one seed, measure it, and keep the numbers."""
    photos = dataset.prepare(Config.from_profile())  # the same photos for all seeds
    cfg = Config.from_profile(
        seed=seed, run=f"{STUDY} {name} {seed}", warmup_epochs=epochs, val_photos=32, **KINDS[name]
    )
    workspace.seed_everything(seed)
    accelerator, generator, began = workspace.make_accelerator(cfg.precision), Generator(**cfg.generator()), time.time()
    trainer = Trainer(cfg, accelerator, generator, [color_term(cfg)], photos, augmentations(cfg))
    trainer.fit()
    trained, validation = trainer.final_generator(), photos.load("validation")
    row, curve = measured(trained, validation)
    row |= {"twins apart": twins_apart(trained, validation), "million parameters": count_parameters(generator) / 1e6}
    keep(STUDY, name, seed, row, curve, time.time() - began)
    shutil.rmtree(trainer.run.path)


def main():
    """Train what is left, then write the table."""
    options = parse(__doc__, list(KINDS), epochs=5)
    if options.one:
        train(*options.one, options.epochs)
        return
    run_all(__file__, STUDY, options.names, options, options.seeds)
    cfg, table = Config.from_profile(), results(STUDY)
    said = circumstances("make compare-bottlenecks", table, dataset.prepare(cfg).load("validation"))
    said += f" Each: {options.epochs} epochs of warmup."
    lines = ["# Bottlenecks", "", said, "", *markdown(table, ABOUT, COLUMNS), ""]
    lines += [
        "What they cost, beside nine residual blocks in the same run: a training step of the whole generator (time:",
        "times that of nine residual blocks; memory: the peak of a process with one photo).",
        "",
    ]
    prices = costs(options.names, (cfg.size, 2 * cfg.size - 1), 4 * cfg.size)
    lines += [f"| | {' | '.join(prices)} |", "|---" * (len(prices.columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{value:.2f}' for value in row)} |" for name, row in prices.iterrows()]
    (options.out / "BOTTLENECKS.md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
