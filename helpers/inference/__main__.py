"""Colorize a photo, a film or a folder from the command line: `python -m helpers.inference IN OUT`."""

import argparse
import sys
from pathlib import Path

from helpers.data.photos import SUFFIXES
from helpers.inference import film
from helpers.inference.colorizer import Colorizer, Options
from helpers.inference.enlarger import Enlarger
from helpers.inference.folder import JPEG, colorize_file, colorize_folder
from helpers.inference.steadying import colorize_film
from helpers.inference.user_hints import Hint, read_hints


def command() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Colorize a photo, a film, or a folder of them, at their own size.")
    parser.add_argument("source", metavar="IN")
    parser.add_argument("target", metavar="OUT")
    parser.add_argument("--weights", help="of a generator; default: the most recent run, else the model in the box")
    parser.add_argument("--quality", type=int, default=95, help="of JPEG files, 1 to 100")
    parser.add_argument("--format", choices=("jpeg", "png"), default="", help="default: each photo's own")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored photo's prediction")
    parser.add_argument(
        "--hint", action="append", default=[], metavar="X,Y,#rrggbb", help="a color for a place; in a film: @seconds"
    )
    parser.add_argument("--hints", metavar="FILE", help="JSON: a list of hints with x, y and color")
    parser.add_argument("--like", default="", metavar="FILE", help="a color photo to take the colors from")
    parser.add_argument("--enlarge", type=int, choices=(1, 2, 4), default=1, help="times as large")
    parser.add_argument("--enlarger", help="its weights; default: the most recent ones")
    parser.add_argument("--enlarge-large", action="store_true", help="enlarge photos of over 2 million pixels too")
    parser.add_argument("--large-scans", action="store_true", help="read photos of over 178 million pixels too")
    parser.add_argument("--one-way", dest="both_ways", action="store_false", help="films: no colors from later frames")
    parser.add_argument("--input-size", type=int, help="pixels that the network sees")
    for name in ("saturation", "denoise", "contrast", "steady"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Options, name))
    return parser


def check(source: Path, target: Path, hints: list[Hint]) -> None:
    """Raise FileNotFoundError, FileExistsError or ValueError for names that cannot be worked with."""
    if not source.exists():
        raise FileNotFoundError(f"There is no file or folder {source}.")
    if source.is_dir() and hints:
        raise ValueError("hints are for one photo or film: name that, not a folder")
    if not source.is_dir() and target.exists():
        raise FileExistsError(f"{target} exists already: choose another name, nothing is overwritten")
    if blocked := [parent for parent in (target, *target.parents) if parent.is_file()]:
        raise FileExistsError(f"{blocked[0]} is a file: OUT cannot be below it")
    if source.is_file() and source.suffix.lower() in SUFFIXES and target.suffix.lower() not in (*JPEG, ".png"):
        raise ValueError(f"{target}: choose a name that ends in .jpg or .png")


def main(arguments: list[str] | None = None) -> None:
    """Colorize what the command line names."""
    parser = command()
    given = vars(parser.parse_args(arguments))
    source, target, weights, quality, file_format = map(given.pop, ("source", "target", "weights", "quality", "format"))
    points, file, enlarger = map(given.pop, ("hint", "hints", "enlarger"))

    try:
        if not source or not target:
            raise ValueError("IN and OUT must not be empty")
        source, target = Path(source), Path(target)
        hints = [*(read_hints(file) if file else []), *map(Hint.parse, points)]
        check(source, target, hints)
        colorizer = Colorizer(weights, enlarger=Enlarger(enlarger) if enlarger else None)
        if source.is_dir():
            colorize_folder(source, target, colorizer, quality, file_format, **given)
            return
        print(f"weights: {colorizer}")
        if source.suffix.lower() in film.SUFFIXES:
            for sentence in colorize_film(source, target, colorizer, hints, **given):
                print(f"note: {sentence}")
            return
        if colorize_file(source, target, colorizer, colorizer.options(**given), quality, hints):
            print("note: this photo was in color already; only its lightness was used")
    except (OSError, ValueError, NameError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped")


if __name__ == "__main__":
    main()
