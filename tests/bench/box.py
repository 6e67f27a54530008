"""`make box-bench`: how good the model in the box is, as Markdown tables, and a sheet of all of Kodak24.

On the test photos of the profile (`laptop`), as it is and fine-tuned on few; on Kodak24 where KODAK24 names its folder;
by kind of photo where PHOTOS names the folder that the box was trained on (its test split; folders hold the kinds).
HISTORIC names a folder of old photographs for the sheet; ELSEWHERE one of color photos from elsewhere, at 256 px.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

os.environ.setdefault("COLORIZE_PROFILE", "laptop")

import cv2
import numpy as np
import pandas as pd
import torch
from common import as_markdown, kodak, machine, paths_in
from ours import new_trainer
from PIL import Image, ImageDraw, ImageFont
from tools import train_box
from torch import Tensor, nn

from helpers import workspace
from helpers.color import colorfulness, rgb_to_L_ab
from helpers.config import Config
from helpers.data import dataset
from helpers.data.dataset import PhotoSet
from helpers.data.photos import center_square, read_rgb, reduced, to_tensor
from helpers.evaluation import metrics
from helpers.evaluation.frontier import frontier, gain
from helpers.inference.colorizer import Colorizer, render
from helpers.runs import Run, load_network, runs

KINDS = {
    "scenes": ("intel_scenes", "weather", "landscapes", "travel"),
    "people": ("lfw", "portraits", "news_people", "fddb", "humans", "fairface", "street_fashion"),
    "animals": ("catsdogs", "monkeys", "wildanimals"),
    "rooms and houses": ("houses", "rooms", "messy_rooms"),
    "food": ("food", "grocery", "cooking", "howtocook"),
    "flowers": ("flowers",),
}
SHARES = (0.5, 0.6, 0.75, 0.9)  # of the truth's colorfulness
COUNTS = (20, 100, 500, 1200)  # training photos to fine-tune on
FIRST = (13, 15, 16, 21, 23, 2)  # photos of Kodak24 in the first picture, the last two are failures


def at_full_size(truths: Sequence[np.ndarray], colorizers: dict[str, Callable]) -> dict[str, dict]:
    """Return the mean scores of colorizers on photos (H, W, 3) at their own size, a row each."""
    true, rows = np.mean([colorfulness(to_tensor(rgb)).item() for rgb in truths]), {}
    for name, colorize in colorizers.items():
        done = [to_tensor(colorize(rgb)) for rgb in truths]
        pairs = zip(done, map(to_tensor, truths), strict=True)
        mean = pd.concat([metrics.measure(rgb, truth) for rgb, truth in pairs]).mean()
        rows[name] = mean[["PSNR", "SSIM", "L1"]].to_dict() | {"of truth": mean["colorfulness"] / true}
    return rows


def on_squares(generator: nn.Module, test: Tensor) -> dict[str, float]:
    """Return a generator's gain over gray on test photos, as it is and at shares of the truth's colorfulness."""
    curve = frontier(generator, test)
    row = {"over gray": curve.loc[1.0, "PSNR"] - curve["PSNR"].iloc[0], "of truth": curve.loc[1.0, "of truth"]}
    return row | {f"gain at {share:.0%}": gain(curve, share) for share in SHARES}


def skin(photos: Tensor) -> Tensor:
    """Return where color and place suggest skin, in the middle of portraits: bool (N, H, W)."""
    L, ab = rgb_to_L_ab(photos.float() / 255)
    a, b = (128 * ab).unbind(1)
    hue, chroma = torch.rad2deg(torch.atan2(b, a)), torch.hypot(a, b)
    axis = (torch.arange(photos.shape[-1]) + 0.5) / photos.shape[-1] - 0.5
    middle = (axis[:, None] / 0.3).square() + (axis / 0.22).square() < 1
    return (hue > 15) & (hue < 85) & (chroma > 8) & (L[:, 0] > -0.3) & middle


def skin_color(where: Tensor, photos: Tensor) -> dict[str, float]:
    """Return hue (degrees) and chroma (CIE units) of the mean color in a mask."""
    a, b = (128 * rgb_to_L_ab(photos.float() / 255)[1].movedim(1, 0)[:, where].mean(1)).tolist()
    return {"skin's hue": float(np.degrees(np.arctan2(b, a))), "chroma": float(np.hypot(a, b))}


def by_kind(generator: nn.Module, folder: str) -> tuple[dict[str, dict], dict[str, dict]]:
    """Return scores on each kind of the validation photos that `make box` holds out, and the color of skin."""
    photos, sources = train_box.pack(Path(folder))
    held_out = train_box.divide(sources)[0]
    squares, kinds, rows, faces = train_box.squares_of(photos[held_out]), sources[held_out], {}, {}
    known = {name for names in KINDS.values() for name in names}
    for title, names in (KINDS | {"of all sorts": tuple(set(kinds) - known)}).items():
        test = squares[np.isin(kinds, names)]
        if not len(test):
            continue
        colored, gray = metrics.colorize_all(generator, test), metrics.colorize_all(metrics.gray, test)
        ours = metrics.measure_all(colored, test, with_ssim=False).mean()
        base = metrics.measure_all(gray, test, with_ssim=False)["PSNR"].mean()
        rows[title] = {"photos": len(test), "gray": base, "over gray": ours["PSNR"] - base}
        rows[title]["of truth"] = ours["colorfulness"] / ours["truth"]
        if title == "people":
            faces = {name: skin_color(skin(test), shown) for name, shown in (("truth", test), ("box", colored))}
    return rows, faces


def fine_tuned(cfg: Config, photos: PhotoSet, count: int, epoch: int = 1200, epochs: int = 4) -> nn.Module:
    """Return the box, fine-tuned on `count` training photos for as many steps as `epochs` epochs of `epoch` photos."""
    manifest = photos.manifest
    train, rest = manifest[manifest["split"] == "train"].head(count), manifest[manifest["split"] != "train"]
    part = PhotoSet(photos.folder, pd.concat([train] * max(1, epoch // len(train)) + [rest]), photos.dropped)
    cfg = cfg.replace(run=f"box, {count} photos", start="box", freeze_norms=True, warmup_lr=1e-4)
    workspace.seed_everything(cfg.seed)
    trainer = new_trainer(cfg, part, False, generator=Run("box").load("warmup"), epochs=epochs, start="box")
    trainer.fit()
    return trainer.final_generator().cpu()


def sheet(photos: Sequence[np.ndarray], old: Sequence[np.ndarray], colorizer: Colorizer, target: Path) -> None:
    """Draw photos in lines of gray, colorized, truth, twelve in a line; below them old photographs without truth."""
    lines, columns, side = [], 12, 100
    for group, count in ((photos, 3), (old, 2)):
        for start in range(0, len(group), columns):
            shown = [reduced(rgb, 256) for rgb in group[start : start + columns]]
            gray, ours = [colorizer(rgb, saturation=0) for rgb in shown], [colorizer(rgb) for rgb in shown]
            lines += [gray, ours, shown][:count]
    drawn = np.full((len(lines) * side, columns * side, 3), 255, np.uint8)
    for i, line in enumerate(lines):
        for j, rgb in enumerate(line):
            drawn[i * side : (i + 1) * side, j * side : (j + 1) * side] = center_square(rgb, side, cv2.INTER_AREA)
    cv2.imwrite(str(target), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])


def first_picture(photos: Sequence[np.ndarray], colorizer: Colorizer, target: Path) -> None:
    """Draw the README's first picture: gray, colorized and true, four successes and below them two failures."""
    side, gap, height = 200, 24, 134
    drawn = Image.new("RGB", (6 * side + gap, 3 * (height + gap)), "white")
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(14)
    for i, number in enumerate(FIRST):
        rgb = photos[number - 1]
        x, y = i % 2 * (3 * side + gap), gap + i // 2 * (height + gap)
        titles = "gray" if i < 4 else "and where it fails: gray", "colorized", "true"
        for title, each in zip(titles, (colorizer(rgb, saturation=0), colorizer(rgb), rgb), strict=True):
            drawn.paste(Image.fromarray(cv2.resize(each, (side, height), interpolation=cv2.INTER_AREA)), (x, y))
            pen.text((x + 4, y - 18), title, "black", font)
            x += side
    drawn.save(target, quality=90)


def main() -> None:
    """Measure, print and draw."""
    cfg, box = Config.from_profile(), Run("box").load("warmup")
    photos = dataset.prepare(cfg)
    test, mean_color = photos.load("test"), metrics.mean_color(photos.load("train"))
    trained = {f"{run.name}: {phase}": run.file(phase) for run in runs() for phase in run.phases()}
    trained = {name: path for name, path in trained.items() if name.startswith(f"{cfg.profile}:")}
    print(machine())
    colorizer = Colorizer(box)
    gray = partial(colorizer, saturation=0)
    if truths := kodak():
        mean = mean_color(torch.zeros(1, 1, 1, 1))[0]
        ways = {"gray": gray, "mean color": lambda rgb: render(rgb, mean)}
        ways |= {"the box": colorizer} | {name: Colorizer(path) for name, path in trained.items()}
        print(f"\nKodak24 at full size\n\n{as_markdown(at_full_size(truths, ways))}")
        old = [read_rgb(path) for path in paths_in("HISTORIC")]
        pictures = workspace.PROJECT / "notebooks" / "images"
        sheet(truths, old, colorizer, pictures / "box.jpg")
        first_picture(truths, colorizer, pictures / "first.jpg")
    if elsewhere := [reduced(read_rgb(path), 256) for path in paths_in("ELSEWHERE")]:
        ways = {"gray": gray, "the box": colorizer}
        print(f"\n{len(elsewhere)} photos from elsewhere, 256 px\n\n{as_markdown(at_full_size(elsewhere, ways))}")
    rows = {"mean color": on_squares(mean_color, test), "the box": on_squares(box, test)}
    rows |= {name: on_squares(load_network(path), test) for name, path in trained.items()}
    rows |= {f"fine-tuned on {count}": on_squares(fine_tuned(cfg, photos, count), test) for count in COUNTS}
    print(f"\n{len(test)} test photos of the profile, {cfg.size} px\n\n{as_markdown(rows)}")
    if os.environ.get("PHOTOS"):
        for rows in by_kind(box, os.environ["PHOTOS"]):
            print(f"\nThe test split of the box's own photos\n\n{as_markdown(rows)}" if rows else "")


if __name__ == "__main__":
    main()
