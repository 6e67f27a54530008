"""`make box-bench`: how good the model in the box is. Prints tables as Markdown, and draws README's first picture.

On the test photos of the `laptop` profile; on Kodak24 where KODAK24 names its folder (for the picture, HISTORIC names
one with old photographs); and by kind of photo where
PHOTOS names the folder that the box was trained on (its test split: folders of that name hold the kinds).
"""

import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from helpers.training.box import COLORS, COMMON

from helpers import workspace
from helpers.color import colorfulness, rgb_to_L_ab
from helpers.config import Config
from helpers.data import dataset
from helpers.data.batches import augmentations
from helpers.data.dataset import PhotoSet
from helpers.data.photos import center_square, list_photos, read_rgb, reduced, to_tensor
from helpers.evaluation import metrics
from helpers.evaluation.frontier import frontier, gain
from helpers.inference.colorizer import Colorizer, render
from helpers.runs import BOX, Run, load_network, runs
from helpers.training.losses import color_term
from helpers.training.trainer import Trainer

KINDS = {
    "scenes": ("intel_scenes", "weather", "landscapes"),
    "people": ("lfw", "portraits", "news_people"),
    "animals": ("catsdogs", "monkeys"),
    "rooms and houses": ("houses",),
    "food": ("food", "grocery"),
    "flowers": ("flowers",),
    "of all sorts": ("coco", "flickr8k", "imagenet_sample", "imagenette", "nips2017", "srsets", "voc"),
}
COUNTS = (20, 100, 500, 1200)  # of training photos, to fine-tune on


def table(title, rows):
    """Print rows, a list of dicts, as Markdown."""
    frame = pd.DataFrame(rows)
    print(f"\n{title}\n\n| {' | '.join(frame)} |\n{'|---' * len(frame.columns)}|")
    for row in frame.itertuples(index=False):
        print(f"| {' | '.join(f'{value:.3f}' if isinstance(value, float) else str(value) for value in row)} |")


def at_full_size(paths, colorizers):
    """Measure colorizers on photos at their own size, a row each."""
    truths, rows = [read_rgb(path) for path in paths], []
    true = np.mean([colorfulness(to_tensor(rgb)).item() for rgb in truths])
    for name, colorize in colorizers.items():
        done = [to_tensor(colorize(rgb)) for rgb in truths]
        measured = pd.concat([metrics.measure(rgb, to_tensor(t)) for rgb, t in zip(done, truths, strict=True)]).mean()
        rows.append({"": name, "PSNR": measured["PSNR"], "SSIM": measured["SSIM"], "L1": measured["L1"]})
        rows[-1]["of truth"] = measured["colorfulness"] / true
    return rows


def on_landscapes(generators, test):
    """Compare generators on the test photos of a set, a row each; their curves come along."""
    curves = {name: frontier(generator, test) for name, generator in generators.items()}
    shares = (0.5, 0.6, 0.75, 0.9)
    rows = [{"": name, "over gray": c.loc[1.0, "PSNR"] - c["PSNR"].iloc[0]} for name, c in curves.items()]
    for row, curve in zip(rows, curves.values(), strict=True):
        row["of truth"] = curve.loc[1.0, "of truth"]
        row |= {f"gain at {share:.0%}": gain(curve, share) for share in shares}
    return rows


def skin(photos):
    """Return where skin is, as far as color and place tell: bool (N, H, W), in the middle of portraits."""
    L, ab = rgb_to_L_ab(photos.float() / 255)
    a, b = (128 * ab).unbind(1)
    hue, chroma = torch.rad2deg(torch.atan2(b, a)), torch.hypot(a, b)
    size = photos.shape[-1]
    axis = (torch.arange(size) + 0.5) / size - 0.5
    middle = (axis[:, None] / 0.3).square() + (axis / 0.22).square() < 1
    return (hue > 15) & (hue < 85) & (chroma > 8) & (L[:, 0] > -0.3) & middle


def skin_colors(photos, colored):
    """Return hue in degrees and chroma in CIE units of the mean color of skin: of the truth, and as colorized."""
    where, found = skin(photos), []
    for shown in (photos, colored):
        a, b = (128 * rgb_to_L_ab(shown.float() / 255)[1].movedim(1, 0)[:, where].mean(1)).tolist()
        found.append({"hue": float(np.degrees(np.arctan2(b, a))), "chroma": float(np.hypot(a, b))})
    return found


def by_kind(generator, folder):
    """Measure a generator on each kind of the test photos of the set that it was trained on."""
    cfg = Config(**COMMON | COLORS | {"photos_folder": folder})
    photos, rows = dataset.prepare(cfg), []
    kinds = photos.manifest["source"].str.split("/").str[0]
    for title, names in KINDS.items():
        part = PhotoSet(photos.folder, photos.manifest[kinds.isin(names)], photos.dropped)
        test = part.load("test")
        colored = metrics.colorize_all(generator, test)
        ours, gray = (
            metrics.measure_all(colored, test, with_ssim=False).mean(),
            metrics.colorize_all(metrics.gray, test),
        )
        base = metrics.measure_all(gray, test, with_ssim=False)["PSNR"].mean()
        rows.append({"": title, "photos": len(test), "gray": base, "over gray": ours["PSNR"] - base})
        rows[-1]["of truth"] = ours["colorfulness"] / ours["truth"]
        if title == "people":
            faces = skin_colors(test, colored)
    table("By kind of photo: the test split of what it was trained on, 128 px", rows)
    print("\nskin, in the middle of the test portraits (truth, colorized):", faces)


def fine_tuned(cfg, photos, test, count):
    """Return a row: the box, fine-tuned on `count` of a set's training photos for four epochs' worth of steps."""
    manifest, epoch = photos.manifest, 1200
    train = manifest[manifest["split"] == "train"].head(count)
    rest = manifest[manifest["split"] != "train"]
    part = PhotoSet(photos.folder, pd.concat([train] * (epoch // len(train)) + [rest]), photos.dropped)
    cfg = cfg.replace(run=f"box, {count} photos", start="box", freeze_norms=True, warmup_epochs=4, warmup_lr=1e-4)
    workspace.seed_everything(cfg.seed)
    parts = (Run("box").load("warmup"), [color_term(cfg)], part, augmentations(cfg))
    Trainer(cfg, workspace.make_accelerator(cfg.precision), *parts, start="box").fit()
    return on_landscapes({f"the box, fine-tuned on {count}": Run(cfg.run).load("warmup")}, test)[0]


def half_precision(path):
    """Return the largest difference, in 255ths, between photos by the box and by its weights in full precision."""
    full, half = Colorizer(load_network(path), "fp32"), Colorizer(Run("box").load("warmup"), "fp32")
    photos = [read_rgb(each) for each in list_photos(Path(os.environ["KODAK24"]))[:8]]
    return max(int(np.abs(full(rgb).astype(int) - half(rgb)).max()) for rgb in photos)


def picture(paths, old, colorizer, target, columns=12, side=100):
    """Draw photos in lines of gray, by the box and the truth; below them old photographs, which have no truth."""
    lines = []
    for group, is_old in ((paths, False), (old, True)):
        for start in range(0, len(group), columns):
            shown = [reduced(read_rgb(path), 256) for path in group[start : start + columns]]
            gray, ours = [colorizer(rgb, saturation=0) for rgb in shown], [colorizer(rgb) for rgb in shown]
            lines += [gray, ours] if is_old else [gray, ours, shown]
    sheet = np.full((len(lines) * side, columns * side, 3), 255, np.uint8)
    for i, line in enumerate(lines):
        for j, rgb in enumerate(line):
            sheet[i * side : (i + 1) * side, j * side : (j + 1) * side] = center_square(rgb, side, cv2.INTER_AREA)
    cv2.imwrite(str(target), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])


def main():
    """Measure, print and draw."""
    os.environ.setdefault("COLORIZE_PROFILE", "laptop")
    cfg, box = Config.from_profile(), Run("box").load("warmup")
    photos = dataset.prepare(cfg)
    test, train = photos.load("test"), photos.load("train")
    mean = metrics.mean_color(train)(torch.zeros(1, 1, 1, 1))[0]
    trained = {
        f"{run.name}: {phase}": run.file(phase) for run in runs() for phase in run.phases() if run.name == "laptop"
    }
    if os.environ.get("KODAK24"):
        paths, colorizer = list_photos(Path(os.environ["KODAK24"])), Colorizer(box)
        colorizers = {"gray": lambda rgb: colorizer(rgb, saturation=0), "mean color": lambda rgb: render(rgb, mean)}
        colorizers |= {"the box": colorizer} | {name: Colorizer(path) for name, path in trained.items()}
        table("Kodak24 at full size", at_full_size(paths, colorizers))
        old = list_photos(Path(os.environ["HISTORIC"])) if os.environ.get("HISTORIC") else []
        picture(paths, old, colorizer, BOX.parents[2] / "notebooks" / "images" / "box.jpg")
    if (full := Run("box, hints").file("hints")).exists():
        print(f"\nhalf against full precision: no pixel differs by more than {half_precision(full)}/255")
    generators = {"the box": box} | {name: load_network(path) for name, path in trained.items()}
    rows = on_landscapes(generators, test)
    table("Test photos of the profile", rows + [fine_tuned(cfg, photos, test, count) for count in COUNTS])
    if os.environ.get("PHOTOS"):
        by_kind(box, os.environ["PHOTOS"])


if __name__ == "__main__":
    main()
