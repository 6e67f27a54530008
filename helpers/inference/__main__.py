"""Colorize a photo, a film or a folder from the command line: `python -m helpers.inference IN OUT`."""

import argparse
from pathlib import Path

from helpers.inference import film
from helpers.inference.colorizer import Colorizer, Options
from helpers.inference.enlarger import Enlarger
from helpers.inference.folder import JPEG, colorize_file, colorize_folder
from helpers.inference.steadying import colorize_film
from helpers.inference.user_hints import Hint, read_hints


def command() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Colorize a photo, a film, or a folder of them, at their own size.")
    parser.add_argument("source", type=Path, metavar="IN")
    parser.add_argument("target", type=Path, metavar="OUT")
    parser.add_argument("--weights", help="a generator; without it, that of the run that was trained last")
    parser.add_argument("--quality", type=int, default=95, help="of JPEG files, 1 to 100")
    parser.add_argument("--format", choices=("jpeg", "png"), default="", help="without it, each photo keeps its own")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored photo's prediction")
    parser.add_argument(
        "--hint", action="append", default=[], metavar="X,Y,#rrggbb", help="a color for a place; of a film: @seconds"
    )
    parser.add_argument("--hints", metavar="FILE", help="JSON, a list of hints with x, y and color")
    parser.add_argument("--enlarge", type=int, choices=(1, 2, 4), default=1, help="times as large (notebook 09)")
    parser.add_argument("--enlarger", help="its weights; without it, those that were trained last")
    parser.add_argument(
        "--one-way", dest="both_ways", action="store_false", help="films: colors come from before alone"
    )
    parser.add_argument("--enlarge-large", action="store_true", help="also what has over 2 million pixels already")
    parser.add_argument("--input-size", type=int, help="pixels that the network sees")
    for name in ("saturation", "denoise", "contrast", "steady"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Options, name))
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Colorize what the command line names."""
    parser = command()
    given = vars(parser.parse_args(arguments))
    source, target, weights, quality, file_format = map(given.pop, ("source", "target", "weights", "quality", "format"))
    points, file, enlarger = map(given.pop, ("hint", "hints", "enlarger"))
    try:
        hints = [*(read_hints(file) if file else []), *map(Hint.parse, points)]
        if source.is_dir() and hints:
            raise ValueError("hints are for one photo or film: name that, not a folder")
        if not source.is_dir() and target.exists():
            raise FileExistsError(f"{target} exists already: name another file, nothing is overwritten")
        colorizer = Colorizer(weights, enlarger=Enlarger(enlarger) if enlarger else None)
        if source.is_dir():
            colorize_folder(source, target, colorizer, quality, file_format, **given)
            return
        print(f"weights: {colorizer}")
        if source.suffix.lower() in film.SUFFIXES:
            colorize_film(source, target, colorizer, hints, **given)
            return
        if target.suffix.lower() not in (*JPEG, ".png"):
            raise ValueError(f"{target}: name a file that ends in .jpg or .png")
        colorize_file(source, target, colorizer, colorizer.options(**given), quality, hints)
    except (OSError, ValueError, NameError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
