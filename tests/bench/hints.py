"""`make hints-bench`: what color hints add, for the last generator with hints, else for the box.

Beside gray and a baseline without a network, on the run's test photos. Also what is gained where the model asks: on
Kodak24 where KODAK24 names its folder, on 60 photos of the folder LANDSCAPES, and on two of each kind that
`make box PHOTOS=folder` held out.
"""

import os
from pathlib import Path

import numpy as np
import torch
from common import as_markdown, machine, paths_in
from measures import hint_curve, psnr_with
from tools import train_box
from torch import Tensor, nn

from helpers.config import Config
from helpers.data import dataset
from helpers.data.hint_squares import Squares, fixed_squares, squares_of
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


if __name__ == "__main__":
    main()
