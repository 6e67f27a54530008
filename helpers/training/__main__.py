"""Training without a notebook, on any number of processes: `accelerate launch -m helpers.training`."""

import argparse
import ast
import os
from contextlib import suppress

from helpers import workspace
from helpers.config import Config
from helpers.data import dataset
from helpers.data.batches import augmentations
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.runs import NETWORK, find_run, warmup_of
from helpers.training.losses import Perceptual, color_term, generator_terms
from helpers.training.trainer import Trainer

PHASES = ("warmup", "adversarial")


def train(cfg: Config, phases: tuple[str, ...] = PHASES) -> None:
    """Train phases as notebooks 03 and 04 do; each process takes `cfg.batch_size` photos per step."""
    begun = find_run(cfg.start) if cfg.start else None
    cfg = begun.agree(cfg, NETWORK) if begun else cfg
    accelerator = workspace.make_accelerator(cfg.precision)
    workspace.seed_everything(cfg.seed)  # the same initial weights in every process
    with accelerator.local_main_process_first():  # the others use what it downloads and prepares
        photos, perceptual = dataset.prepare(cfg), Perceptual(cfg.lpips_weights).to(accelerator.device)
        generator = begun.load(begun.phases()[-1]) if begun else Generator(**cfg.generator())
    parts, start = (photos, augmentations(cfg), perceptual), begun.name if begun else ""
    if "warmup" in phases:
        workspace.seed_everything(cfg.seed + accelerator.process_index)  # each draws its own augmentation
        rates = {"epochs": cfg.warmup_epochs, "lr": cfg.warmup_lr, "rise": cfg.warmup_rise}
        Trainer(cfg, accelerator, generator, [color_term(cfg)], *parts, start=start, **rates).fit()
    if "adversarial" in phases:
        workspace.seed_everything(cfg.seed + accelerator.process_index)
        warmup, terms = warmup_of(cfg), generator_terms(cfg, perceptual)
        rates = {"epochs": cfg.adversarial_epochs, "lr": cfg.adversarial_lr, "d_lr": cfg.discriminator_lr}
        rates |= {"n_critic": cfg.n_critic, "patience": cfg.patience, "start": warmup.name}
        discriminator = Discriminator(shrink=cfg.discriminator_shrink)
        Trainer(cfg, accelerator, warmup.load("warmup"), terms, *parts, discriminator, **rates).fit()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on all devices that `accelerate launch` starts.")
    parser.add_argument("--profile", help="paper, vivid, laptop, quick or smoke")
    parser.add_argument("--phase", choices=PHASES, help="only this phase")
    parser.add_argument("--set", nargs="*", action="extend", default=[], metavar="FIELD=VALUE", help="see config.py")
    options = parser.parse_args()
    os.environ["COLORIZE_PROFILE"] = options.profile or os.environ.get("COLORIZE_PROFILE", "")
    changes = dict(item.split("=", 1) for item in options.set)
    for name, text in changes.items():
        with suppress(ValueError, SyntaxError):  # a text that is no Python value stays text
            changes[name] = ast.literal_eval(text)
    train(Config.from_profile(**changes), (options.phase,) if options.phase else PHASES)
