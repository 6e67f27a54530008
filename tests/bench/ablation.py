"""`make ablation`: which changes of the adversarial phase pay, each alone against the base, at equal steps, over seeds.

All start from one warmup, with `candidates.BASE`; `candidates.py` lists them. The table and the figure, `ABLATION.md`
and `ablation.png`, are of what is finished; see `trials.py`.
"""

import shutil
import time

import matplotlib.pyplot as plt
import torch
from candidates import ABOUT, BASE, base_terms, candidate
from trials import circumstances, curve_of, keep, kept, markdown, measured, parse, results, run_all

from helpers import workspace
from helpers.config import Config
from helpers.data import dataset
from helpers.data.batches import augmentations
from helpers.models.generator import Generator
from helpers.runs.run import Run
from helpers.training.losses import color_term
from helpers.training.trainer import Trainer

WARMUP, STUDY = "warmup", "ablation"
COLUMNS = ["L1", "PSNR", "SSIM", "of truth", "gain at 65%", "gain at 75%", "over the slider", "checkerboard"]


def warm_up(cfg, photos, accelerator):
    """Return the run of the study's warmup, trained or gone on with; its curve is kept."""
    began, run = time.time(), Run(cfg.run)
    if not kept(STUDY, WARMUP, 0).exists():
        generator = Generator(**cfg.generator())
        Trainer(cfg, accelerator, generator, [color_term(cfg)], photos, augmentations(cfg)).fit()
        numbers = measured(run.load(WARMUP), photos.load("validation"))
        keep(STUDY, WARMUP, 0, *numbers, time.time() - began)
    return run


def train(name, seed, epochs):
    """Train one candidate with one seed, measure it, and keep the numbers."""
    cfg = Config.from_profile(run="ablation", **BASE)
    photos, accelerator = dataset.prepare(cfg), workspace.make_accelerator(cfg.precision)
    run = warm_up(cfg, photos, accelerator)
    if name == WARMUP:
        return
    workspace.seed_everything(seed)
    began, generator = time.time(), run.load(WARMUP)
    other = candidate(name, cfg, photos, generator)
    cfg = cfg.replace(seed=seed, run=f"ablation {name} {seed}", adversarial_epochs=epochs, val_photos=32)
    cfg = cfg.replace(**other.values)
    pairs = zip(base_terms(cfg), (other.terms, other.d_terms), strict=True)
    terms, d_terms = ([term for term in (base | changed).values() if term] for base, changed in pairs)
    parts = (other.generator or generator, terms, photos, augmentations(cfg), None, other.discriminator())
    trainer = Trainer(cfg, accelerator, *parts, d_terms=d_terms, start=run.name)
    if other.alone and not trainer.checkpoints.files():
        discriminator_alone(trainer, other.alone)
    trainer.fit()
    slider = curve_of(STUDY, WARMUP, 0)
    numbers = measured(trainer.final_generator(), photos.load("validation"), slider)
    keep(STUDY, name, seed, *numbers, time.time() - began)
    shutil.rmtree(trainer.run.path)  # the weights and checkpoints of all would be 30 GB


def discriminator_alone(trainer, steps):
    """Let the discriminator learn alone for some steps; its schedule starts over afterwards."""
    schedule = trainer.d_schedule.state_dict()
    trainer.generator.train()
    while steps > 0:
        for batch, _ in zip(trainer.batches, range(steps), strict=False):
            with torch.no_grad():
                prediction = trainer.task.predict(trainer.generator, batch)
            trainer.d_schedule.load_state_dict(schedule)
            trainer.discriminator_step(prediction)
            steps -= 1
    trainer.d_schedule.load_state_dict(schedule)


def report(epochs, out):
    """Write ABLATION.md and ablation.png from all that is finished into a folder."""
    table, about = results(STUDY), {WARMUP: "what all start from"} | ABOUT
    said = circumstances("make ablation", table, dataset.prepare(Config.from_profile()).load("validation"))
    said += f" Every candidate: {epochs} adversarial epoch{'s' * (epochs > 1)} from one warmup."
    lines = ["# Ablation", "", said, "", *markdown(table, about, COLUMNS), "", "![](ablation.png)", ""]
    (out / "ABLATION.md").write_text("\n".join(lines))
    mean = table.groupby("name")["gain at 75%"].mean()
    names = [name for name in about if name in mean][::-1]
    figure, axis = plt.subplots(figsize=(8, 0.32 * len(names) + 1), layout="constrained")
    for i, name in enumerate(names):
        points = table.loc[table["name"] == name, "gain at 75%"]
        axis.plot(points, [i] * len(points), "o", alpha=0.5)
        axis.plot(mean[name], i, "k|", ms=14)
    axis.set(
        yticks=range(len(names)), yticklabels=names, xlabel="gain over gray at 75% of the truth's colorfulness, dB"
    )
    figure.savefig(out / "ablation.png", dpi=80)


def main():
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
