"""Measurements of training: how fast, what each measure alone gives, and whether it learns as well."""

import sys
import time
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import lpips
import numpy as np
import pandas as pd
import plain
import skimage
import torch
from materials import Photos, fixed_trainer, settings, wait, write_photos
from torch.optim.swa_utils import update_bn
from torch.utils.flop_counter import FlopCounterMode

from helpers.data import batches
from helpers.evaluation import metrics
from helpers.training import losses
from helpers.training.trainer import Trainer

COMPILE = "torch.compile left off"
UNMEASURED = 2  # steps at the start, in which memory is taken and code is chosen


def without(name):
    """Switch one measure off (or torch.compile on); return the changes of the configuration that this takes."""
    if name == "channels_last":
        torch.channels_last = torch.contiguous_format
    if name == "fused Adam":
        adam = torch.optim.Adam
        torch.optim.Adam = lambda *args, **options: adam(*args, **options | {"fused": False})
    if name == "LPIPS in the maps' precision":
        losses.Perceptual.forward = package_lpips
    if name == "Lab a batch at a time":
        batches.rgb_to_L_ab = skimage_lab
    if name == "losses read once an epoch":
        step = Trainer.training_step
        Trainer.training_step = lambda self, *batches: {k: v.cpu() for k, v in step(self, *batches).items()}
    changes = {"bf16 or fp16": {"precision": "fp32"}, "photos in memory": {"memory_gb": 0.0}}
    return changes.get(name, {"compile": True} if name == COMPILE else {})


def package_lpips(self, rgb, truth, autocast=nullcontext):
    """LPIPS as the lpips package formulates it, on fp32 copies of the backbone's feature maps."""

    def features(photos):
        with autocast():
            maps = self.model.net(self.model.scaling_layer(photos * 2 - 1))
        return [lpips.normalize_tensor(layer.float()) for layer in maps]

    layers = zip(features(rgb), features(truth), self.model.lins, strict=True)
    return sum(
        lpips.spatial_average(lin((ours - theirs) ** 2), keepdim=False) for ours, theirs, lin in layers
    ).flatten()


def skimage_lab(rgb):
    """Lab photo by photo on the CPU, as the report does it."""
    labs = [skimage.color.rgb2lab(photo.permute(1, 2, 0).cpu().numpy()) for photo in rgb]
    lab = torch.from_numpy(np.stack(labs)).float().permute(0, 3, 1, 2).to(rgb.device)
    return lab[:, :1] / 50 - 1, lab[:, 1:] / 128


def train(folder, way="ours", phase="warmup", steps=6, off=None, n_photos=None, **changes):
    """Photos per second of a phase, and what goes with it."""
    cfg = settings(**changes, **without(off))
    paths = write_photos(folder, n_photos or (steps + UNMEASURED) * cfg.batch_size, cfg.size)
    spent = timed_plain if way == "plain" else timed_ours
    return spent(cfg, folder, paths, phase == "adversarial", steps + UNMEASURED)


def rate(cfg, ends):
    """Photos per second from the moments at which the steps ended."""
    return {"photos/s": cfg.batch_size * (len(ends) - UNMEASURED) / (ends[-1] - ends[UNMEASURED - 1])}


def timed_plain(cfg, folder, paths, adversarial, steps):
    """Run the plain way."""
    training_plain = plain.PlainTraining(cfg, adversarial, "cuda" if torch.cuda.is_available() else "cpu")
    ends = []
    for L, ab in islice(training_plain.loader(paths), steps):
        training_plain.step(L, ab)
        ends.append(time.perf_counter())
    return rate(cfg, ends)


def timed_ours(cfg, folder, paths, adversarial, steps):
    """Run the series' own epoch loop, and look at what of it is spent in the steps."""
    trainer = fixed_trainer(cfg, Photos(Path(folder), paths), adversarial)
    trainer.batches.__class__.__len__ = lambda self: steps
    inside, ends, step = [], [], trainer.training_step

    def timed(*batches):
        started = time.perf_counter()
        log = step(*batches)
        if len(ends) in (UNMEASURED - 1, steps - 1):
            wait()
        ends.append(time.perf_counter())
        inside.append(ends[-1] - started)
        return log

    trainer.training_step = timed
    trainer.train_epoch(1)
    result = rate(cfg, ends)
    if not torch.cuda.is_available():  # a GPU works on while the loop runs
        result["outside steps"] = 1 - sum(inside[UNMEASURED:]) / (ends[-1] - ends[UNMEASURED - 1])
    with FlopCounterMode(display=False) as counter:
        step(next(iter(trainer.batches)))
    result["GFLOP/photo"] = counter.get_total_flops() / cfg.batch_size / 1e9
    return result


KINDS = {  # of operations, by a part of their name
    "convolutions": ("conv",),
    "batch normalization": ("batch_norm",),
    "activations": ("relu", "threshold", "clamp", "tanh", "sigmoid"),
    "optimizer, clipping, EMA": ("adam", "foreach", "lerp", "norm"),
    "copies and casts": ("copy_", "_to_copy", "cat", "fill_", "zero_"),
}


def profile(folder, phase="warmup", steps=3):
    """Shares of a training step's time by kind of operation, as torch.profiler sees them."""
    cfg = settings()
    photos = Photos(Path(folder), write_photos(folder, (steps + UNMEASURED) * cfg.batch_size, cfg.size))
    trainer = fixed_trainer(cfg, photos, phase == "adversarial")
    ready = list(trainer.batches)
    for batch in ready[:UNMEASURED]:
        trainer.training_step(batch)
    with torch.profiler.profile() as watched:
        for batch in ready[UNMEASURED:]:
            trainer.training_step(batch)
    spent = {"all": 0.0} | dict.fromkeys(KINDS, 0.0) | {"the rest": 0.0}
    for operation in watched.key_averages():
        names = [kind for kind, parts in KINDS.items() if any(part in operation.key.lower() for part in parts)]
        seconds = max(operation.self_cpu_time_total, operation.self_device_time_total) / 1e6 / steps
        spent[names[0] if names else "the rest"] += seconds
        spent["all"] += seconds
    return {"seconds a step": spent.pop("all")} | {kind: value / sum(spent.values()) for kind, value in spent.items()}


def quality(folder, epochs=5, size=64, seeds=3):
    """Validation L1 after the same steps on the same photos from the same first weights: ours, and the report's way.

    Without augmentation, and both along the same cosine; each with its own precision, layout, optimizer and Lab. Batch
    statistics are measured anew at the end: after few steps their running means are mostly noise. Over several seeds,
    for rounding alone makes two trainings part ways.
    """
    cfg = settings(size=size, warmup_epochs=epochs, warmup_lr=2e-4, schedule="cosine")
    paths = write_photos(folder, 8 * 40 + 64, size)
    photos = Photos(Path(folder), paths[:320])
    truth = Photos(Path(folder), paths[320:]).load("train", None)
    found = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        pair = trained_both_ways(cfg, photos, paths[:320])
        for name, generator in pair.items():
            device = next(generator.parameters()).device
            update_bn((batch.L for batch in batches.Batches(photos.load("train", 256), 32, device)), generator)
            pair[name] = metrics.measure_all(colorized(generator, truth), truth, with_ssim=False)["L1"].mean()
        found.append(pair)
        print(pair, file=sys.stderr)
    table = pd.DataFrame(found)
    ratios = table["ours"] / table["the report's way"]
    means = {name: table[name].mean() for name in table}
    return means | {"ratio": means["ours"] / means["the report's way"], "spread of ratios": ratios.std()}


def trained_both_ways(cfg, photos, paths):
    """Train two generators on the same batches in the same order; return them."""
    ours = fixed_trainer(cfg, photos, False)
    theirs = plain.PlainTraining(cfg, False, "cuda" if torch.cuda.is_available() else "cpu")
    theirs.generator.load_state_dict(ours.raw_generator.state_dict())
    kept = batches.Batches(photos.load("train", None), cfg.batch_size, ours.accelerator.device)
    loader = theirs.loader(paths, augment=False, shuffle=False)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs.g_optimizer, cfg.warmup_epochs * len(loader))
    for _ in range(cfg.warmup_epochs):
        for batch in kept:
            ours.training_step(batch)
        for L, ab in loader:
            theirs.step(L, ab)
            schedule.step()
    return {"ours": ours.raw_generator, "the report's way": theirs.generator}


def colorized(generator, photos):
    """Photos as a generator colors them, in fp32."""
    device = next(generator.parameters()).device
    return metrics.colorize_all(generator.eval(), photos, device)
