"""Training without a notebook, on any number of processes: `accelerate launch -m helpers.training`."""

import argparse
import json
import os

import torch
from torch import Tensor, nn

from helpers import workspace
from helpers.config import Config
from helpers.data import dataset
from helpers.data.batches import Batches, augmentations
from helpers.evaluation import metrics
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.runs import NETWORK, SHARED, find_run, warmup_of
from helpers.training.losses import Perceptual
from helpers.training.steps import learner, make_adversarial_step, make_warmup_step
from helpers.training.trainer import Trainer


def measure(network: nn.Module, photos: Tensor, perceptual: Perceptual, device: torch.device) -> tuple:
    """Return validation photos in a network's colors, and their metrics."""
    colored = metrics.colorize_all(network, photos, device)
    return colored, metrics.measure_all(colored, photos, perceptual, device, with_ssim=False)


def train(phase: str, cfg: Config) -> None:
    """Train as notebook 03 ("warmup") or 04 ("adversarial") does; each process takes `cfg.batch_size` photos a step."""
    adversarial, accelerator = phase == "adversarial", workspace.make_accelerator(cfg.precision)
    start = warmup_of(cfg) if adversarial else find_run(cfg.start) if cfg.start else None
    cfg = start.agree(cfg, SHARED if adversarial else NETWORK) if start else cfg
    workspace.seed_everything(cfg.seed)  # the same initial weights in every process
    device, rank, world_size = accelerator.device, accelerator.process_index, accelerator.num_processes
    with accelerator.local_main_process_first():  # the others use what it downloads and prepares
        photos, perceptual = dataset.prepare(cfg), Perceptual(cfg.lpips_weights, cfg.compile).to(device)
        before = "warmup" if adversarial else start and start.phases()[-1]
        generator = start.load(before) if start else Generator(**cfg.generator())
    rate = cfg.adversarial_lr if adversarial else cfg.warmup_lr
    networks = {"generator": learner(cfg, accelerator, generator, rate)}
    how = {"epochs": cfg.warmup_epochs, "lr_warmup_steps": cfg.lr_warmup_steps}
    if adversarial:
        networks["discriminator"] = learner(cfg, accelerator, Discriminator(), cfg.discriminator_lr or rate)
        how = {"epochs": cfg.adversarial_epochs, "batches_per_step": cfg.n_critic, "keep": cfg.keep}
        how |= {"patience": cfg.patience, "burn_in": cfg.burn_in}
        step = make_adversarial_step(cfg, *networks.values(), perceptual, accelerator.autocast)
    else:
        step = make_warmup_step(cfg, *networks["generator"])
    share = {"rank": rank, "world_size": world_size, "seed": cfg.seed}
    train_batches = Batches(photos.load("train", None), cfg.batch_size, device, augmentations(cfg), **share)
    validation = photos.load("validation", cfg.val_photos)[rank::world_size]
    workspace.seed_everything(cfg.seed + rank)  # each draws its own augmentation
    parts = photos, train_batches, step, lambda network: measure(network, validation, perceptual, device), networks
    Trainer(phase, cfg, accelerator, *parts, start=start.name if start else "", **how).fit()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on all devices that `accelerate launch` starts.")
    parser.add_argument("--profile", help="paper, vivid, laptop, quick or smoke")
    parser.add_argument("--phase", choices=("warmup", "adversarial"), help="only this phase")
    parser.add_argument("--set", type=json.loads, default={}, metavar="JSON", help='such as {"batch_size": 4}')
    options = parser.parse_args()
    os.environ["COLORIZE_PROFILE"] = options.profile or os.environ.get("COLORIZE_PROFILE", "")
    for each in (options.phase,) if options.phase else ("warmup", "adversarial"):
        train(each, Config.from_profile(**options.set))
