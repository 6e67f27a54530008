"""`make hints-bench`: what color hints add, for the last generator with hints, else for the box.

Beside gray and a baseline without a network, on the run's test photos. Also what is gained where the model asks: on
Kodak24 where KODAK24 names its folder, on 60 photos of the folder LANDSCAPES, and on two of each kind that
`make box PHOTOS=folder` held out. And how often a proposed color is right, how much of a thing takes a strange color,
and how much of that spills.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from common import as_markdown, machine, paths_in
from measures import hint_curve, psnr_with
from scipy.ndimage import binary_dilation, distance_transform_edt
from skimage.segmentation import felzenszwalb
from tools import train_box
from torch import Tensor, nn

from helpers.color import rgb_to_L_ab
from helpers.config import Config
from helpers.data import dataset
from helpers.data.hint_squares import Squares, fixed_squares, hints_of, squares_of
from helpers.data.photos import center_square, read_rgb
from helpers.evaluation import metrics
from helpers.inference.colorizer import Colorizer
from helpers.inference.suggestions import questions
from helpers.models.likely_colors import likely_colors
from helpers.runs import Run, runs

COUNTS = (0, 1, 2, 5, 10, 20, 50, 100)
ASKED = (1, 2, 5, 10)  # hints where the model asks
SIDE = 6  # pixels of a hint
STRANGE = 40  # CIE units; chroma of a hint that nobody could guess


def places(colorizer: Colorizer, photos: Tensor, count: int = 10) -> dict[str, list[Squares]]:
    """Return squares on photos, always the same: anywhere, and where the colorizer asks."""
    table = fixed_squares(len(photos), photos.shape[-2:], count, SIDE)
    found = [questions(colorizer, photo, count) for photo in photos.permute(0, 2, 3, 1).numpy()]

    def _corner(center):
        return min(max(0, round(center - SIDE / 2)), photos.shape[-1] - SIDE)

    return {
        "random": squares_of(table),
        "asked": [[(_corner(one.y), _corner(one.x), SIDE) for one in each] for each in found],
    }


def gains(generator: nn.Module, photos: Tensor, squares: list[Squares]) -> Tensor:
    """Return the dB that true colors of each photo's first squares add, for the counts ASKED: (4, photos)."""
    network = lambda hints: metrics.colorize_all(generator, photos, hints=hints)  # noqa: E731
    before, *with_hints = psnr_with(network, photos, squares, (0, *ASKED))
    return torch.stack(with_hints) - before


def with_error(values: Tensor) -> str:
    """Return a mean with its standard error."""
    return f"{values.mean():.2f} ± {values.std() / len(values) ** 0.5:.2f}"


def asking(generator: nn.Module, photos: Tensor) -> None:
    """Print what hints add where the model asks, and anywhere."""
    colorizer = Colorizer(generator, "fp32")
    table = {name: gains(generator, photos, squares) for name, squares in places(colorizer, photos).items()}
    table["asked - random"] = table["asked"] - table["random"]
    rows = {name: dict(zip(ASKED, map(with_error, gain), strict=True)) for name, gain in table.items()}
    print(f"\ngain in dB by number of hints\n\n{as_markdown(rows)}")


@torch.no_grad()
def proposals(generator: nn.Module, photos: Tensor) -> dict[int, float]:
    """Return the share of pixels whose true color is within 10 CIE units of one of the first 1, 3, 5, 7 proposed."""
    L, true = rgb_to_L_ab(photos.float() / 255)
    colored = torch.cat([generator(part) for part in L.split(16)])
    likely = F.pad(colored.movedim(1, -1)[..., None, :], (0, 1), value=1.0)  # the predicted color is the first
    likely = torch.cat([likely, likely_colors(generator.palette, L, colored)], -2)  # (N, H, W, 9, 3)
    near = 128 * (likely[..., :2] - true.movedim(1, -1)[..., None, :]).norm(dim=-1) < 10
    near &= likely[..., 2] > 0  # else it is not shown
    return {count: near[..., :count].any(-1).float().mean().item() for count in (1, 3, 5, 7)}


def segments(photos: Tensor) -> Iterator[tuple[int, np.ndarray, Squares, Tensor]]:
    """Yield up to two segments of each photo, always the same: its number, a mask, three squares, an ab (2, 1, 1)."""
    random, side = np.random.default_rng(0), SIDE - 1
    for number, photo in enumerate(photos.permute(0, 2, 3, 1).numpy()):
        labels = felzenszwalb(photo, scale=200, sigma=0.8, min_size=100)
        share = np.bincount(labels.ravel()) / labels.size
        for label in random.permutation(np.flatnonzero((share >= 0.03) & (share <= 0.25)))[:2]:
            mask = labels == label
            inner = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] >= 3  # whole squares lie in it
            spots = random.choice(np.argwhere(inner if inner.any() else mask), 3) - side // 2
            hue = random.uniform(0, 2 * np.pi)
            color = STRANGE / 128 * torch.tensor([np.cos(hue), np.sin(hue)]).float().view(2, 1, 1)
            yield number, mask, [(*spot, side) for spot in spots.clip(0, np.subtract(mask.shape, side))], color


@torch.no_grad()
def spill(generator: nn.Module, photos: Tensor, counts: tuple[int, ...] = (1, 3)) -> pd.DataFrame:
    """Return what hints of one strange color do to the segments of uint8 photos: their means, a row for each count.

    recall: share of a segment that goes more than half of the way to the color; spill: share of the change that lies
    outside it, by more than two pixels.
    """
    rows = []
    for number, mask, squares, color in segments(photos):
        L = rgb_to_L_ab(photos[number : number + 1].float() / 255)[0]
        before, outside = generator(L)[0], torch.from_numpy(~binary_dilation(mask, iterations=2))
        for count in counts:
            hints = hints_of(color.expand(1, 2, *mask.shape).contiguous(), [squares[:count]])
            change, need = generator(L, hints)[0] - before, color - before
            way, size = (change * need).sum(0) / need.square().sum(0).clamp(min=1e-6), change.norm(dim=0)
            recall = (way[torch.from_numpy(mask)] > 0.5).float().mean().item()
            rows.append({"hints": count, "recall": recall, "spill": (size[outside].sum() / size.sum()).item()})
    return pd.DataFrame(rows).groupby("hints").mean()


def varied(size: int) -> dict[str, Tensor]:
    """Return photos to ask about that a network of the box's recipe has not seen, where their folders are named."""
    found = {}
    sets = {"Kodak24": (size, paths_in("KODAK24")), "landscapes": (train_box.SIZE, paths_in("LANDSCAPES")[::3][:60])}
    for name, (side, paths) in sets.items():
        squares = [torch.from_numpy(center_square(read_rgb(path), side)).permute(2, 0, 1) for path in paths]
        found |= {name: torch.stack(squares)} if paths else {}
    if folder := os.environ.get("PHOTOS"):
        squares, sources = train_box.held_out(Path(folder))
        found["photos of all kinds"] = torch.cat([squares[sources == name][:2] for name in np.unique(sources)])
    return found


def main() -> None:
    """Measure, and print tables as Markdown."""
    run = [Run("box"), *(run for run in runs() if "hints" in run.phases())][-1]
    cfg = run.agree(Config.from_profile())
    before, phase = run.color_phase()
    generator, earlier = run.load(run.phases()[-1]), before.load(phase)
    print(machine())
    others = varied(cfg.size)
    for name, photos in ({"test photos": dataset.prepare(cfg).load("test")} | others).items():
        table = hint_curve(generator, photos, COUNTS)
        for title, colorize in (("gray", metrics.gray), ("the model before", earlier)):
            table[title] = metrics.measure_all(metrics.colorize_all(colorize, photos), photos)["PSNR"].mean()
        title = f"{len(photos)} {name}, {photos.shape[-1]} px, PSNR in dB by number of hints"
        print(f"\n{title}\n\n{as_markdown(table, 2)}")
        if name in others:
            asking(generator, photos)
            print(f"\nright among the first proposals\n\n{as_markdown({'': proposals(generator, photos)})}")
            print(f"\na strange color in a segment\n\n{as_markdown(spill(generator, photos))}")


if __name__ == "__main__":
    main()
