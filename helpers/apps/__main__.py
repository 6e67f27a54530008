"""Colorize a photo, a film or a folder from the command line: `python -m helpers.apps IN OUT`."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from helpers.apps.folder import FILMS, colorize_folder
from helpers.apps.photo_files import colorize_file
from helpers.data.photos import read_rgb
from helpers.inference.colorizer import CHOICES, Colorizer, Options
from helpers.inference.enlarger import Enlarger
from helpers.inference.suggestions import NOTHING, questions, ringed
from helpers.inference.user_hints import Hint, read_hints


def command() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description="Colorize a photo, a film, or a folder of them, at their own size.")
    add = parser.add_argument
    add("source", metavar="IN")
    add("target", metavar="OUT", nargs="?", default="")
    add("--weights", help="of a generator; default: the most recent run, else the model in the box")
    add("--quality", type=int, default=95, help="of JPEG files, 1 to 100")
    add("--format", choices=("jpeg", "png"), default="", help="default: each photo's own")
    add("--flip", action="store_true", help="average with the mirrored photo's prediction")
    add("--hint", action="append", default=[], metavar="X,Y,#rrggbb", help="a color for a place; in a film: @seconds")
    add("--hints", metavar="FILE", help="JSON: a list of hints with x, y and color")
    add("--ask", type=int, metavar="N", help="print N places whose color would help most, as JSON for --hints")
    add("--like", default="", metavar="FILE", help="a color photo to take the colors from")
    add("--keep-color", choices=CHOICES, default="auto", help="where it is; auto: of shots in color of a gray film")
    add("--deinterlace", choices=CHOICES, default="auto", help="films; auto: what is flagged or looks interlaced")
    add("--enlarge", type=int, choices=(1, 2, 4), default=1, help="times as large")
    add("--enlarger", help="its weights; default: the most recent ones")
    add("--enlarge-large", action="store_true", help="enlarge photos of over 2 million pixels too")
    add("--large-scans", action="store_true", help="read photos of over 178 million pixels too")
    add("--input-size", type=int, help="pixels that the network sees")
    for name in ("saturation", "denoise", "contrast", "steady"):
        add(f"--{name}", type=float, default=getattr(Options, name))
    return parser


def ask(source: Path, target: Path, colorizer: Colorizer, hints: list[Hint], film: bool, count: int) -> None:
    """Print the model's questions about a photo or film, as JSON for `read_hints`, and draw their places.

    A color is "" until somebody fills it in; "likely" names some. hints: given ones, for a photo.
    """
    if film:
        from helpers.apps.film_questions import Film, film_questions

        asked, pictures = film_questions(Film(source), colorizer, count)
    else:
        asked = questions(colorizer, photo := read_rgb(source), count, hints)
        pictures = [ringed(photo, asked)]
    places = [{"x": round(each.x, 1), "y": round(each.y, 1), "at": round(each.at, 3)} for each in asked]
    rows = [place | {"color": "", "likely": each.colors[:5]} for place, each in zip(places, asked, strict=True)]
    print("[" + ",".join(f"\n {json.dumps(row)}" for row in rows) + "\n]")
    if asked:
        Image.fromarray(np.vstack(pictures)).save(target)
    print(f"the places are drawn in {target}" if asked else NOTHING, file=sys.stderr)


def paths_of(source: str, target: str) -> tuple[Path, Path]:
    """Return IN and OUT as paths; raises OSError or ValueError if one of them cannot be used."""
    if not Path(source).name or not Path(target).name:
        raise ValueError("IN and OUT must not be empty")
    if not Path(source).exists():
        raise FileNotFoundError(f"There is no file or folder {source}.")
    for place in (Path(target), *Path(target).parents):
        if place.is_file():
            raise FileExistsError(f"{place} is a file: choose another OUT, nothing is overwritten")
    return Path(source), Path(target)


def colorize(source: str, target: str, weights: str | None, enlarger: str | None, **given: Any) -> None:
    """Colorize what the command line names; given: its other arguments."""
    count = given.pop("ask")
    source, target = paths_of(source, target or (f"{Path(source).with_suffix('')}-questions.png" if count else ""))
    quality, file_format, points, file = map(given.pop, ("quality", "format", "hint", "hints"))
    hints = [*(read_hints(file) if file else []), *map(Hint.parse, points)]
    if source.is_dir() and (hints or count):
        raise ValueError("hints and questions are for one photo or film: name that, not a folder")
    colorizer = Colorizer(weights, enlarger=Enlarger(enlarger) if enlarger else None)
    film = source.suffix.lower() in FILMS or (source.suffix.lower(), target.suffix.lower()) == (".gif", ".mp4")
    if source.is_dir():
        colorize_folder(source, target, colorizer, quality, file_format, **given)
    elif count:
        ask(source, target, colorizer, hints, film, count)
    else:
        print(f"weights: {colorizer}")
        if film:
            from helpers.apps.film_job import colorize_film

            notes = colorize_film(source, target, colorizer, hints, **given)
        else:
            notes = colorize_file(source, target, colorizer, colorizer.options(**given), quality, hints)
        for note in notes:
            print(f"note: {note}")


def main(arguments: list[str] | None = None) -> None:
    """Colorize what the command line names, or print what is wrong with it."""
    parser = command()
    try:
        colorize(**vars(parser.parse_args(arguments)))
    except (OSError, ValueError, NameError) as error:
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        sys.stdout.flush()
        os._exit(130)  # without waiting for photos that other threads still color; nothing is half-written


if __name__ == "__main__":
    main()
