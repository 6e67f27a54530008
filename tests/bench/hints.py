"""`make hints-bench`: what color hints add, for the last generator with hints, else for the box.

Beside gray and a baseline without a network, on the run's test photos. Also what is gained where the model asks: on
Kodak24 where KODAK24 names its folder, on 60 photos of the folder LANDSCAPES, and on two of each kind that
`make box PHOTOS=folder` held out.
"""

import os
from pathlib import Path

import numpy as np
import torch
from common import as_markdown, kodak_squares, machine, paths_in
from measures import hint_curve
from tools import train_box
from torch import Tensor, nn

from helpers.color import ab_of
from helpers.config import Config
from helpers.data import dataset
from helpers.data.hint_squares import Squares, fixed_squares, hints_of
from helpers.data.photos import center_square, read_rgb
from helpers.evaluation import metrics
from helpers.inference.colorizer import Colorizer
from helpers.inference.suggestions import questions
from helpers.runs import Run, runs

COUNTS = (0, 1, 2, 5, 10, 20, 50, 100)
ASKED = (1, 2, 5, 10)  # hints where the model asks
SIDE = 6  # pixels of a hint


def places(colorizer: Colorizer, photos: Tensor, count: int = 10) -> dict[str, list[Squares]]:
    """Return squares on photos, always the same: anywhere, and where the colorizer asks."""
    table = fixed_squares(len(photos), photos.shape[-2:], count, SIDE)[["top", "left", "side"]].to_numpy()
    found = [questions(colorizer, photo, count) for photo in photos.permute(0, 2, 3, 1).numpy()]

    def _corner(center):
        return min(max(0, round(center - SIDE / 2)), photos.shape[-1] - SIDE)

    return {
        "random": [[tuple(row) for row in rows.tolist()] for rows in np.split(table, len(photos))],
        "asked": [[(_corner(one.y), _corner(one.x), SIDE) for one in each] for each in found],
    }


def gains(generator: nn.Module, photos: Tensor, squares: list[Squares]) -> Tensor:
    """Return the dB that true colors of each photo's first squares add, for the counts ASKED: (4, photos)."""
    ab, truth = ab_of(photos) / 128, photos.float() / 255

    def _psnr(count):
        hints = hints_of(ab, [each[:count] for each in squares])
        return metrics.psnr(metrics.colorize_all(generator, photos, hints=hints).float() / 255, truth)

    return torch.stack([_psnr(count) for count in ASKED]) - _psnr(0)


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


def varied(size: int) -> dict[str, Tensor | None]:
    """Return photos to ask about that a network of the box's recipe has not seen, where their folders are named."""
    found = {"Kodak24": kodak_squares(size)}
    if paths := paths_in("LANDSCAPES")[::3][:60]:
        squares = [center_square(read_rgb(path), train_box.SIZE) for path in paths]
        found["landscapes"] = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)
    if folder := os.environ.get("PHOTOS"):
        squares, sources = train_box.held_out(Path(folder))
        found["photos of all kinds"] = torch.cat([squares[sources == name][:2] for name in np.unique(sources)])
    return {name: photos for name, photos in found.items() if photos is not None}


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


if __name__ == "__main__":
    main()
