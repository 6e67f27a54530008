"""`make hints-bench`: what color hints add and where they reach, for the last generator with hints, else for the box.

Beside gray and a baseline without a network. Test photos of the run, and Kodak24 where KODAK24 names its folder.
"""

import statistics
import time

import numpy as np
import torch
from common import as_markdown, kodak_squares, machine
from measures import hint_curve
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from helpers.color import L_ab_to_rgb, rgb_to_L_ab
from helpers.config import Config
from helpers.data import dataset
from helpers.data.hint_squares import fixed_hints, fixed_squares, hints_of
from helpers.evaluation import metrics
from helpers.inference.colorizer import Colorizer
from helpers.inference.user_hints import Hint
from helpers.runs import Run, runs

COUNTS = (0, 1, 2, 5, 10, 20, 50, 100)
CHROMA = 40 / 128  # of the hints on composites


@torch.no_grad()
def color_errors(generator: nn.Module, photos: Tensor, count: int = 10) -> Tensor:
    """Return how far hinted pixels are from their hints, in CIE units, a value per pixel.

    Pixels at whose lightness no screen can show the hint's color are left out.
    """
    hints = fixed_hints(photos, fixed_squares(len(photos), photos.shape[-2:]), count)
    L = rgb_to_L_ab(photos.float() / 255)[0]
    shown = rgb_to_L_ab(L_ab_to_rgb(L, hints[:, :2]))[1]
    ab = torch.cat([generator(*pair).float() for pair in zip(L.split(16), hints.split(16), strict=True)])
    in_gamut = (shown - hints[:, :2]).norm(dim=1) < 0.5 / 128
    return (128 * (ab - hints[:, :2])).norm(dim=1)[(hints[:, 2] > 0) & in_gamut]


def composites(photos: Tensor, pairs: int = 12, radius: float = 0.18) -> tuple[Tensor, list[Tensor], list[tuple]]:
    """Return photos into which a disk of another photo is pasted twice: uint8 (pairs, 3, H, W).

    photos: uint8 (N, 3, H, W). Also returned: the masks (H, W) of the two disks, and their centers (row, column).
    """
    size = photos.shape[-1]
    grid, centers, pasted = (torch.arange(size) + 0.5) / size, [(0.5, 0.25), (0.5, 0.75)], []
    masks = [(grid[:, None] - y).square() + (grid[None] - x).square() < radius**2 for y, x in centers]
    for photo, other in zip(photos[0 : 2 * pairs : 2], photos[1 : 2 * pairs : 2], strict=False):
        for mask, (_, x) in zip(masks, centers, strict=True):
            photo = torch.where(mask, torch.roll(other, round((x - 0.5) * size), dims=-1), photo)
        pasted.append(photo)
    return torch.stack(pasted), masks, [(round(y * size), round(x * size)) for y, x in centers]


def one_hint_each(colors: list[Tensor], centers: list[tuple], size: int) -> Tensor:
    """Return hints (N, 3, size, size) with a square of each color, ab (N, 2), at each center."""
    maps = torch.zeros(len(colors[0]), 3, size, size)
    for color, (row, column) in zip(colors, centers, strict=False):
        flat = color[:, :, None, None].expand(-1, -1, size, size)
        maps += hints_of(flat, [[(row - 3, column - 3, 6)]] * len(color))
    return maps


@torch.no_grad()
def reach(generator: nn.Module, photos: Tensor) -> dict[str, float]:
    """Return how far hints reach on composites, with one of the two disks hinted, then both."""
    pasted, (here, twin), centers = composites(photos)
    L, size = rgb_to_L_ab(pasted.float() / 255)[0], pasted.shape[-1]
    plain = generator(L).float()
    guessed = plain[:, :, here].mean(-1)
    wanted = -CHROMA * guessed / guessed.norm(dim=1, keepdim=True).clamp(min=1e-6)  # the opposite hue
    change = 128 * (generator(L, one_hint_each([wanted], centers, size)).float() - plain).norm(dim=1)
    asked = 128 * (wanted[:, :, None] - plain[:, :, here]).norm(dim=1)
    far = torch.from_numpy(distance_transform_edt(~(here | twin).numpy()) > size / 4)
    both = generator(L, one_hint_each([wanted, -wanted], centers, size)).float()
    nearer = [((sign * both[:, :, mask].mean(-1)) * wanted).sum(1) > 0 for sign, mask in ((1, here), (-1, twin))]
    return {
        "share of the change inside the disk": (change[:, here].sum(1) / change[:, ~twin].sum(1)).mean().item(),
        "change over a quarter of the side away, CIE units": change[:, far].mean().item(),
        "share of the hint's color that the disk takes": (change[:, here].mean() / asked.mean()).item(),
        "change of the twin as a share of the disk's": (change[:, twin].mean() / change[:, here].mean()).item(),
        "two opposite hints: disks nearer to their own": torch.stack(nearer).float().mean().item(),
    }


def answer_time(generator: nn.Module, repeats: int = 9) -> float:
    """Return the median seconds for one more hint on a photo of 255 px, the network at 255 px."""
    colorizer, photo, times = Colorizer(generator), np.full((255, 255), 120, np.uint8), []
    for i in range(repeats):
        start = time.perf_counter()
        colorizer(photo, [Hint(20 * i + 5, 100, "#c03020")], input_size=255)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure, and print tables as Markdown."""
    run = [Run("box"), *(run for run in runs() if "hints" in run.phases())][-1]
    cfg = run.agree(Config.from_profile())
    before, phase = run.color_phase()
    generator, earlier = run.load(run.phases()[-1]), before.load(phase)
    print(machine())
    for name, photos in {"test photos": dataset.prepare(cfg).load("test"), "Kodak24": kodak_squares(cfg.size)}.items():
        if photos is None:
            continue
        table = hint_curve(generator, photos, COUNTS)
        for title, colorize in (("gray", metrics.gray), ("the model before", earlier)):
            table[title] = metrics.measure_all(metrics.colorize_all(colorize, photos), photos)["PSNR"].mean()
        print(f"\n{len(photos)} {name}, {cfg.size} px, PSNR in dB by number of hints\n\n{as_markdown(table, 2)}")
        error = color_errors(generator, photos)
        rows = {"hinted pixels are off by, CIE units, median": error.median().item()}
        rows |= {"... 95%": error.quantile(0.95).item()} | reach(generator, photos)
        print("\n" + "\n".join(f"- {what}: {value:.2f}" for what, value in rows.items()))
    print(f"\none more hint, photo and network at 255 px: {answer_time(generator):.2f} s")


if __name__ == "__main__":
    main()
