"""`make hints-bench`: what hints bring and where they reach, for the last generator with hints, else for the box.

Beside gray and a baseline that knows no network. Test photos of the run, and Kodak24 where KODAK24 names its folder.
"""

import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from helpers.color import L_ab_to_rgb, rgb_to_L_ab
from helpers.config import Config
from helpers.data import dataset
from helpers.data.hint_squares import fixed_hints, fixed_squares, hints_of
from helpers.data.photos import center_square, read_rgb
from helpers.evaluation import metrics
from helpers.evaluation.hints import hint_curve
from helpers.inference.colorizer import Colorizer
from helpers.inference.user_hints import Hint
from helpers.runs import Run, runs

COUNTS = (0, 1, 2, 5, 10, 20, 50, 100)
CHROMA = 40 / 128  # of the colors that the composites' hints say


@torch.no_grad()
def color_errors(generator, photos, count=10):
    """Return how far the colors of hinted pixels come out from what was said: CIE units, a value a pixel.

    Pixels at whose lightness no screen can show what was said are left out.
    """
    hints = fixed_hints(photos, fixed_squares(len(photos), photos.shape[-2:]), count)
    L = rgb_to_L_ab(photos.float() / 255)[0]
    shown = rgb_to_L_ab(L_ab_to_rgb(L, hints[:, :2]))[1]
    ab = torch.cat([generator(*pair).float() for pair in zip(L.split(16), hints.split(16), strict=True)])
    in_gamut = (shown - hints[:, :2]).norm(dim=1) < 0.5 / 128
    return (128 * (ab - hints[:, :2])).norm(dim=1)[(hints[:, 2] > 0) & in_gamut]


def composites(photos, pairs=12, radius=0.18):
    """Return photos into which an object, a disk out of another photo, is pasted twice: uint8 (pairs, 3, H, W).

    photos: uint8 (N, 3, H, W). Also returned: where the two objects are, two masks (H, W), and their centers.
    """
    size = photos.shape[-1]
    grid, centers, made = (torch.arange(size) + 0.5) / size, [(0.5, 0.25), (0.5, 0.75)], []
    masks = [(grid[:, None] - y).square() + (grid[None] - x).square() < radius**2 for y, x in centers]
    for photo, other in zip(photos[0 : 2 * pairs : 2], photos[1 : 2 * pairs : 2], strict=True):
        for mask, (_, x) in zip(masks, centers, strict=True):
            photo = torch.where(mask, torch.roll(other, round((x - 0.5) * size), dims=-1), photo)
        made.append(photo)
    return torch.stack(made), masks, [(round(y * size), round(x * size)) for y, x in centers]


def one_hint_each(colors, centers, size):
    """Return hints (N, 3, size, size): `colors` is a list of ab (N, 2), one at each of some centers."""
    maps = torch.zeros(len(colors[0]), 3, size, size)
    for color, (row, column) in zip(colors, centers, strict=False):
        flat = color[:, :, None, None].expand(-1, -1, size, size)
        maps += hints_of(flat, [[(row - 3, column - 3, 6)]] * len(color))
    return maps


@torch.no_grad()
def reach(generator, photos):
    """Return where a hint reaches on composites, one of the two objects hinted, then both: a dict of name -> mean."""
    made, (here, twin), centers = composites(photos)
    L, size = rgb_to_L_ab(made.float() / 255)[0], made.shape[-1]
    plain = generator(L).float()
    guessed = plain[:, :, here].mean(-1)
    said = -CHROMA * guessed / guessed.norm(dim=1, keepdim=True).clamp(min=1e-6)  # the opposite hue
    change = 128 * (generator(L, one_hint_each([said], centers, size)).float() - plain).norm(dim=1)
    asked = 128 * (said[:, :, None] - plain[:, :, here]).norm(dim=1)
    far = torch.from_numpy(distance_transform_edt(~(here | twin).numpy()) > size / 4)
    both = generator(L, one_hint_each([said, -said], centers, size)).float()
    nearer = [((sign * both[:, :, mask].mean(-1)) * said).sum(1) > 0 for sign, mask in ((1, here), (-1, twin))]
    return {
        "share of the change inside the object": (change[:, here].sum(1) / change[:, ~twin].sum(1)).mean().item(),
        "change over a quarter of the side away, CIE units": change[:, far].mean().item(),
        "of the color said, in the object": (change[:, here].mean() / asked.mean()).item(),
        "of the object's change, in its twin": (change[:, twin].mean() / change[:, here].mean()).item(),
        "two hints: objects nearer to their own": torch.stack(nearer).float().mean().item(),
    }


def answer_time(generator, repeats=9):
    """Return how many seconds one more hint takes on a photo of 255 px, the network at 255 px: the median."""
    colorizer, photo, times = Colorizer(generator), np.full((255, 255), 120, np.uint8), []
    for i in range(repeats):
        start = time.perf_counter()
        colorizer(photo, [Hint(20 * i + 5, 100, "#c03020")], input_size=255)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def kodak(size):
    """Return the Kodak24 photos as uint8 (24, 3, size, size), or None where they are not."""
    paths = sorted(Path(os.environ.get("KODAK24", "-")).glob("*.png"))
    squares = [torch.from_numpy(center_square(read_rgb(path), size)).permute(2, 0, 1) for path in paths]
    return torch.stack(squares) if squares else None


def main():
    """Measure, and print tables as Markdown."""
    run = [Run("box"), *(run for run in runs() if "hints" in run.phases())][-1]
    cfg = run.agree(Config.from_profile())
    before, phase = run.colors()
    generator, earlier = run.load(run.phases()[-1]), before.load(phase)
    sets = {"test photos": dataset.prepare(cfg).load("test"), "Kodak24": kodak(cfg.size)}
    for name, photos in sets.items():
        if photos is None:
            continue
        print(f"\n{len(photos)} {name}, {cfg.size} px, PSNR in dB over the number of hints\n")
        table = hint_curve(generator, photos, COUNTS)
        for title, colorize in (("gray", metrics.gray), ("the model before", earlier)):
            table[title] = metrics.measure_all(metrics.colorize_all(colorize, photos), photos)["PSNR"].mean()
        print(f"| hints | {' | '.join(table)} |\n{'|---' * (len(table.columns) + 1)}|")
        for count, row in table.iterrows():
            print(f"| {count} | {' | '.join(f'{value:.2f}' for value in row)} |")
        error = color_errors(generator, photos)
        print(f"\nhinted pixels are off by {error.median():.2f} (median), {error.quantile(0.95):.2f} (95%) CIE units")
        for what, value in reach(generator, photos).items():
            print(f"- {what}: {value:.2f}")
    seconds = answer_time(generator)
    print(f"\none more hint, photo and network at 255 px, {torch.get_num_threads()} threads: {seconds:.2f} s")


if __name__ == "__main__":
    main()
