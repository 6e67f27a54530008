"""`make box-bench`: how good the model in the box is, as Markdown tables, and the README's pictures.

On the test photos of the profile (`laptop`), beside all trained runs; on Kodak24 where KODAK24 names its folder;
by source where PHOTOS names the folder that the box was trained on (its validation photos).
HISTORIC names a folder of old photographs, which the README shows; ELSEWHERE one of color photos from
elsewhere, at 256 px.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

os.environ.setdefault("COLORIZE_PROFILE", "laptop")

import numpy as np
import pandas as pd
import torch
from common import as_markdown, kodak, machine, paths_in
from PIL import Image, ImageOps
from skimage import data
from tools import train_box
from torch import Tensor, nn

from helpers import workspace
from helpers.config import Config
from helpers.data import dataset
from helpers.data.photos import read_rgb, reduced, to_tensor
from helpers.evaluation import metrics
from helpers.evaluation.frontier import frontier, gain
from helpers.inference.colorizer import Colorizer, render
from helpers.inference.user_hints import Hint
from helpers.runs import Run, load_network, runs

SHARES = (0.5, 0.6, 0.75, 0.9)  # of the truth's colorfulness
SUIT = [(140, 320), (80, 430), (190, 270), (250, 430), (350, 330), (180, 440), (290, 400)]  # of the astronaut
SAUCER = [(110, 230), (150, 300), (230, 350), (310, 372), (400, 345), (455, 270), (465, 210), (180, 230), (300, 290)]
AROUND = {"#b06838": [(60, 380), (560, 330), (520, 80), (60, 130), (540, 220)], "#c08030": [(290, 165), (330, 180)]}


def at_full_size(truths: Sequence[np.ndarray], colorizers: dict[str, Callable]) -> dict[str, dict]:
    """Return the mean scores of colorizers on photos (H, W, 3) at their own size, a row each."""
    rows = {}
    for name, colorize in colorizers.items():
        pairs = ((to_tensor(colorize(rgb)), to_tensor(rgb)) for rgb in truths)
        mean = pd.concat([metrics.measure(*pair) for pair in pairs]).mean()
        rows[name] = mean[["PSNR", "SSIM", "L1"]].to_dict() | {"of truth": mean["colorfulness"] / mean["truth"]}
    return rows


def on_squares(generator: nn.Module, test: Tensor) -> dict[str, float]:
    """Return a generator's gain over gray on test photos, as it is and at shares of the truth's colorfulness."""
    curve = frontier(generator, test)
    row = {"over gray": curve.loc[1.0, "PSNR"] - curve["PSNR"].iloc[0], "of truth": curve.loc[1.0, "of truth"]}
    return row | {f"gain at {share:.0%}": gain(curve, share) for share in SHARES}


def by_source(generator: nn.Module, folder: str) -> dict[str, dict]:
    """Return scores on the validation photos that `make box` holds out, a row for each source."""
    squares, sources = train_box.held_out(Path(folder))
    return {name: on_squares(generator, squares[sources == name]) for name in np.unique(sources)}


def collage(lines: Sequence[Sequence[np.ndarray]], target: Path, width: int = 1660, gap: int = 20) -> None:
    """Draw lines of photos, each cropped to 3:2 and each line `width` pixels wide."""
    sizes = [((width - gap * (len(line) - 1)) // len(line)) for line in lines]
    sheet, top = Image.new("RGB", (width, sum(2 * size // 3 + gap for size in sizes) - gap), "white"), 0
    for line, size in zip(lines, sizes, strict=True):
        for i, photo in enumerate(line):
            tile = ImageOps.fit(Image.fromarray(photo), (size, 2 * size // 3), centering=(0.5, 0.25))
            sheet.paste(tile, (i * (size + gap), top))
        top += 2 * size // 3 + gap
    sheet.save(target, quality=88)


def first_pictures(truths: Sequence[np.ndarray], old: np.ndarray, colorizer: Colorizer, folder: Path) -> None:
    """Draw the README's pictures: a photo, an old print and a cup with a hint; failures; the openings of 00 and 07."""
    gray, hint = partial(colorizer, saturation=0), Hint(150, 260, "#305090")
    lighthouse, cup, face = truths[20], data.coffee(), data.astronaut()
    with_a_click = [gray(cup), colorizer(cup, [hint])]
    collage([[gray(lighthouse), colorizer(lighthouse)], [old, colorizer(old), *with_a_click]], folder / "first.jpg")
    collage([[gray(truths[i]), colorizer(truths[i]), truths[i]] for i in (22, 1)], folder / "failures.jpg")
    suit = [Hint(x, y, "#d06030") for x, y in SUIT]
    opening = [colorizer(lighthouse), colorizer(face), colorizer(face, suit)]
    collage([[gray(lighthouse), gray(face), gray(face)], opening], folder / "00_start.jpg")
    around = [Hint(x, y, color) for color, places in AROUND.items() for x, y in places]
    cups = [[*around, *(Hint(x, y, color) for x, y in SAUCER)] for color in ("#b03818", "#2060b0")]
    collage([[gray(cup), colorizer(cup), *(colorizer(cup, hints) for hints in cups)]], folder / "07_hints.jpg", 1230)


def sheet(photos: Sequence[np.ndarray], old: Sequence[np.ndarray], colorizer: Colorizer, target: Path) -> None:
    """Draw photos in lines of gray, colorized, truth, twelve in a line; below them old photographs without truth."""
    lines = []
    for some, true in ((photos[:12], True), (photos[12:], True), (old[:12], False)):
        lines += [[colorizer(rgb, saturation=0) for rgb in some], [colorizer(rgb) for rgb in some], *[some] * true]
    collage([line for line in lines if line], target, width=1200, gap=4)


def main() -> None:
    """Measure, print and draw."""
    cfg, box = Config.from_profile(), Run("box").load("warmup")
    photos = dataset.prepare(cfg)
    test, mean_color = photos.load("test"), metrics.mean_color(photos.load("train"))
    trained = {f"{run.name}: {phase}": run.file(phase) for run in runs() for phase in run.phases()}
    print(machine())
    colorizer = Colorizer(box)
    gray = partial(colorizer, saturation=0)
    if truths := kodak():
        mean = mean_color(torch.zeros(1, 1, 1, 1))[0]
        ways = {"gray": gray, "mean color": lambda rgb: render(rgb, mean)}
        ways |= {"the box": colorizer} | {name: Colorizer(path) for name, path in trained.items()}
        print(f"\nKodak24 at full size\n\n{as_markdown(at_full_size(truths, ways))}")
        if old := [reduced(read_rgb(path), 384) for path in paths_in("HISTORIC")]:
            pictures = workspace.PROJECT / "notebooks" / "images"
            sheet(truths, old, colorizer, pictures / "box.jpg")
            first_pictures(truths, old[0], colorizer, pictures)
    if elsewhere := [reduced(read_rgb(path), 256) for path in paths_in("ELSEWHERE")]:
        rows = at_full_size(elsewhere, {"gray": gray, "the box": colorizer})
        print(f"\n{len(elsewhere)} photos from elsewhere, 256 px\n\n{as_markdown(rows)}")
    rows = {"mean color": on_squares(mean_color, test), "the box": on_squares(box, test)}
    rows |= {name: on_squares(load_network(path), test) for name, path in trained.items()}
    print(f"\n{len(test)} test photos of the profile, {cfg.size} px\n\n{as_markdown(rows)}")
    if os.environ.get("PHOTOS"):
        print(f"\nHeld out from the box's own photos\n\n{as_markdown(by_source(box, os.environ['PHOTOS']))}")


if __name__ == "__main__":
    main()
