"""`make ablation`: which changes of the adversarial phase help, each alone against the base, over seeds.

All start from one warmup and take as many steps. The table `ABLATION.md` and the figure `ablation.png` hold what is
finished; see `studies.py`.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
import torch.nn.functional as F
from studies import circumstances, curve_of, file_of, measured, parse, results, run_all, summary, write
from torch import Tensor, nn

from helpers import workspace
from helpers.config import Config
from helpers.data import dataset
from helpers.data.batches import augmentations
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.runs import Run
from helpers.training import losses
from helpers.training.losses import LossTerm, Prediction
from helpers.training.trainer import Trainer

WARMUP, STUDY = "warmup", "ablation"
COLUMNS = ["L1", "PSNR", "SSIM", "of truth", "gain at 65%", "gain at 75%", "over the slider", "checkerboard"]
ABOUT = {
    "base": "GAN (cross-entropy) + 50 ab distance; the profile's values",
    "no GAN": "the color loss alone, as many steps",
    "L1": "in place of ab distance: the report's",
    "LPIPS": "+ 10 LPIPS",
    "hinge": "GAN loss (Lim and Ye 2017)",
    "R1": "+ the squared gradient of the scores of true colors (Mescheder et al. 2018)",
    "feature matching": "+ 10 times the distance of the discriminator's features (Wang et al. 2018)",
    "two rates": "the discriminator's learning rate times 4 (TTUR, Heusel et al. 2017)",
    "no augmentation": "neither flips, rotation nor crops",
    "no EMA": "the raw weights",
}


@dataclass(frozen=True)
class Candidate:
    """A difference from the base: values of the configuration, or loss terms by name (None removes one)."""

    values: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, LossTerm | None] = field(default_factory=dict)
    d_terms: dict[str, LossTerm | None] = field(default_factory=dict)


def base_terms(cfg: Config) -> tuple[dict[str, LossTerm], dict[str, LossTerm]]:
    """Return the base's loss terms of both networks, by name."""
    color = LossTerm("color", cfg.lambda_l1, losses.COLOR_LOSSES[cfg.color_loss])
    return (
        {"GAN": LossTerm("GAN", 1.0, losses.gan_loss), "color": color},
        {term.name: term for term in losses.discriminator_terms()},
    )


def hinge() -> Candidate:
    """Return the hinge loss (Lim and Ye 2017, arXiv 1705.02894)."""
    functions: dict[str, Callable] = {
        "D real": lambda p: F.relu(1 - p.real_logits).mean(),
        "D fake": lambda p: F.relu(1 + p.fake_logits).mean(),
    }
    d_terms = {name: LossTerm(name, 0.5, function) for name, function in functions.items()}
    return Candidate(terms={"GAN": LossTerm("GAN", 1.0, lambda p: -p.fake_logits.mean())}, d_terms=d_terms)


def r1(prediction: Prediction) -> Tensor:
    """Return the squared gradient of the scores of true colors (Mescheder et al. 2018, arXiv 1801.04406)."""
    ab = prediction.ab.detach().requires_grad_()
    logits = prediction.discriminator(prediction.L, ab).float()
    (gradient,) = torch.autograd.grad(logits.mean((1, 2, 3)).sum(), ab, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def feature_matching(prediction: Prediction) -> Tensor:
    """Return the distance between the discriminator's features of truth and prediction (Wang et al. 2018)."""
    real = torch.cat([prediction.L, prediction.ab], 1)
    fake = torch.cat([prediction.L, prediction.ab_pred], 1)
    distance = 0
    for layer in prediction.discriminator.layers[:-1]:
        real, fake = layer(real), layer(fake)
        if isinstance(layer, nn.LeakyReLU):
            distance = distance + F.l1_loss(fake, real.detach())
    return distance / 4


def candidate(name: str, cfg: Config) -> Candidate:
    """Return a candidate by its name."""
    plain = {"flip": 0.0, "rotation": 0.0, "crop": 1.0, "jitter": 0.0}
    makers = {
        "no GAN": lambda: Candidate(terms={"GAN": None}),
        "L1": lambda: Candidate(terms={"color": LossTerm("color", 50.0, losses.l1_loss)}),
        "LPIPS": lambda: Candidate(terms={"LPIPS": LossTerm("LPIPS", 10.0, losses.Perceptual(cfg.lpips_weights).loss)}),
        "hinge": hinge,
        "R1": lambda: Candidate(d_terms={"R1": LossTerm("R1", 1.0, r1)}),
        "feature matching": lambda: Candidate(terms={"features": LossTerm("features", 10.0, feature_matching)}),
        "two rates": lambda: Candidate({"discriminator_lr": 4 * cfg.adversarial_lr}),
        "no augmentation": lambda: Candidate(plain),
        "no EMA": lambda: Candidate({"ema_decay": None}),
    }
    return makers.get(name, Candidate)()


def warm_up(cfg: Config, photos: Any, accelerator: Any) -> Run:
    """Return the run of the study's warmup, trained or resumed, and write its frontier."""
    began, run = time.time(), Run(cfg.run)
    if not file_of(STUDY, WARMUP, 0).exists():
        workspace.seed_everything(cfg.seed)
        generator, rates = Generator(**cfg.generator()), {"epochs": cfg.warmup_epochs, "lr": cfg.warmup_lr}
        parts = generator, [losses.color_term(cfg)], photos, augmentations(cfg)
        Trainer(cfg, accelerator, *parts, **rates, rise=cfg.warmup_rise).fit()
        numbers = measured(run.load(WARMUP), photos.load("validation"))
        write(STUDY, WARMUP, 0, *numbers, time.time() - began)
    return run


def train(name: str, seed: int, epochs: int) -> None:
    """Train one candidate with one seed, measure it, and write the numbers."""
    cfg = Config.from_profile(run="ablation")
    photos, accelerator = dataset.prepare(cfg), workspace.make_accelerator(cfg.precision)
    run = warm_up(cfg, photos, accelerator)
    if name == WARMUP:
        return
    workspace.seed_everything(seed)
    began, other = time.time(), candidate(name, cfg)
    cfg = cfg.replace(seed=seed, run=f"ablation {name} {seed}", val_photos=32, **other.values)
    pairs = zip(base_terms(cfg), (other.terms, other.d_terms), strict=True)
    terms, d_terms = ([term for term in (base | changed).values() if term] for base, changed in pairs)
    rates = {"epochs": epochs, "lr": cfg.adversarial_lr, "d_lr": cfg.discriminator_lr}
    parts = run.load(WARMUP), terms, photos, augmentations(cfg), None, Discriminator()
    trainer = Trainer(cfg, accelerator, *parts, **rates, d_terms=d_terms, start=run.name)
    trainer.fit()
    numbers = measured(trainer.final_generator(), photos.load("validation"), curve_of(STUDY, WARMUP, 0))
    write(STUDY, name, seed, *numbers, time.time() - began)
    shutil.rmtree(trainer.run.path)  # the weights and checkpoints of all would be 30 GB


def figure(table: pd.DataFrame, names: list[str], path: Path) -> None:
    """Draw the gain of each candidate, a dot per seed and the mean as a line."""
    drawing, axis = plt.subplots(figsize=(8, 0.32 * len(names) + 1), layout="constrained")
    for i, name in enumerate(names):
        points = table.loc[table["name"] == name, "gain at 75%"]
        axis.plot(points, [i] * len(points), "o", alpha=0.5)
        axis.plot(points.mean(), i, "k|", ms=14)
    title = "gain over gray at 75% of the truth's colorfulness, dB"
    axis.set(yticks=range(len(names)), yticklabels=names, xlabel=title)
    drawing.savefig(path, dpi=80)


def report(epochs: int, out: Path) -> None:
    """Write ABLATION.md and ablation.png from everything that is finished into a folder."""
    table, about = results(STUDY), {WARMUP: "all start from it"} | ABOUT
    head = circumstances("make ablation", table, dataset.prepare(Config.from_profile()).load("validation"))
    head += f" Every candidate: {epochs} adversarial epoch{'s' * (epochs > 1)} from one warmup."
    lines = ["# Ablation", "", head, "", summary(table, about, COLUMNS), "", "![](ablation.png)", ""]
    (out / "ABLATION.md").write_text("\n".join(lines))
    figure(table, [name for name in about if name in set(table["name"])][::-1], out / "ablation.png")


def main() -> None:
    """Train what is left, then write the report."""
    options = parse(__doc__, list(ABOUT), epochs=2)
    if options.one:
        train(*options.one, options.epochs)
        return
    run_all(__file__, STUDY, [WARMUP], options, seeds=1)
    run_all(__file__, STUDY, options.names, options, options.seeds)
    report(options.epochs, options.out)


if __name__ == "__main__":
    main()
