"""Colorizing files: one, or a folder that is resumed where it stopped, lists what it cannot read, and harms nothing."""

import errno
import io
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from av import FFmpegError
from PIL import Image, ImageCms
from tqdm.auto import tqdm

from helpers import workspace
from helpers.data.photos import SUFFIXES, list_photos
from helpers.files import locked, refuse_another, write_atomically
from helpers.inference import film
from helpers.inference.colorizer import Colorizer, Options, render
from helpers.inference.steadying import colorize_film
from helpers.inference.user_hints import Hint

DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)  # what, camera, program, when, who, whose
JPEG = (".jpg", ".jpeg")
PREDICTING = threading.Lock()  # photos are read and written side by side, predicted one after the other


def target_of(path: Path, source: Path, target: Path, file_format: str) -> Path:
    """Return where a photo's colorized version goes: the same name, in the format asked for, else its own if it can."""
    relative = path.relative_to(source)
    suffix = relative.suffix.lower()
    if suffix in film.SUFFIXES:
        ending = suffix if suffix in film.FORMATS else ".mp4"
    else:
        own = suffix if suffix in (*JPEG, ".png") else ".png"
        ending = {"": own, "jpeg": ".jpg", "png": ".png"}[file_format]
    return target / (relative if suffix == ending else relative.with_name(relative.name + ending))


def result_in(folder: str, path: Path) -> Path:
    """Return a new place below a folder for a photo's colorized version; two photos may have one name."""
    target = target_of(path, path.parent, Path(tempfile.mkdtemp(dir=folder)), "")
    return target.with_stem(f"{target.stem}-in-color")


def colorize_file(
    source: Path,
    target: Path,
    colorizer: Colorizer,
    options: Options,
    quality: int = 95,
    hints: Sequence[Hint | np.ndarray] = (),
) -> None:
    """Colorize one photo file into another, with its EXIF data and color profile; hints: see `hint_maps`.

    Raises ValueError for a photo that cannot be read or colorized, OSError for a target that cannot be written.
    """
    try:
        rgb, L, size = colorizer.prepare(source, options)
        with PREDICTING:
            ab = colorizer.colors(L, options, hints, size)
        content = encoded(render(rgb, ab), source, target, quality)
    except FileNotFoundError:  # no network to enlarge with: no photo's fault
        raise
    except (OSError, ValueError) as error:
        raise ValueError(str(error)) from error
    except (MemoryError, RuntimeError) as error:  # of torch, a lack of memory is a RuntimeError
        hint = f"with input_size={options.input_size}; a smaller one takes less memory"
        raise ValueError(f"{source} cannot be colorized {hint}: {error}") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda path: path.write_bytes(content))


def encoded(rgb: np.ndarray, source: Path, target: Path, quality: int) -> bytes:
    """Return a photo (H, W, 3) as the bytes of a file; details of the source that cannot be written are left out."""
    jpeg = {"format": "JPEG", "quality": quality, "subsampling": 0}
    how = jpeg if target.suffix.lower() in JPEG else {"format": "PNG", "compress_level": 3}
    photo, buffer = Image.fromarray(rgb), io.BytesIO()
    try:
        photo.save(buffer, **how, **metadata(source))
    except Exception:  # damaged EXIF data fail in many ways
        buffer = io.BytesIO()
        photo.save(buffer, **how)
    return buffer.getvalue()


def metadata(path: Path) -> dict[str, bytes]:
    """Return the EXIF data of a file, its rotation taken out, and its color profile if that is one for colors."""
    kept = {}
    with Image.open(path) as photo:
        exif = photo.getexif()
        exif.pop(0x0112, None)  # the pixels are turned already
        for tag in set(exif) - (set(DESCRIPTIVE) if photo.format == "TIFF" else set(exif)):
            del exif[tag]  # where a TIFF keeps its pixels says nothing about another file
        if len(exif):
            kept["exif"] = exif.tobytes()
        profile = photo.info.get("icc_profile")
        if profile and ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space == "RGB ":
            kept["icc_profile"] = profile
    return kept


def targets_for(source: Path, target: Path, file_format: str) -> dict[Path, Path]:
    """Return where each photo or film in a folder and below goes; no two have one target, and none is in the target."""
    inside, places, taken = target.resolve(), {}, set()
    for path in list_photos(source, SUFFIXES | film.SUFFIXES):
        if source.resolve() in inside.parents and inside in path.resolve().parents:
            continue
        place = target_of(path, source, target, file_format)
        while place in taken:
            place = place.with_stem(place.stem + "+")
        taken.add(place)
        places[path] = place
    return places


def attempt(
    path: Path, target: Path, colorizer: Colorizer, options: Options, quality: int, beat: Callable[[], None]
) -> str:
    """Colorize a photo or film, and return why it is to be skipped, if so; raises OSError if nothing can be written."""
    try:
        if path.suffix.lower() in film.SUFFIXES:
            target.parent.mkdir(parents=True, exist_ok=True)
            colorize_film(path, target, colorizer, beat=beat, **asdict(options))
        else:
            colorize_file(path, target, colorizer, options, quality)
    except ValueError as error:
        return str(error)
    except OSError as error:
        if errno.ENAMETOOLONG not in (error.errno, getattr(error.__cause__, "errno", None)):
            raise
        return "its name is too long to be written"
    except (MemoryError, RuntimeError, FFmpegError) as error:  # the last: no encoder takes a film of its size
        return f"cannot be colorized: {error}"
    return ""


def listed(skipped: list[tuple[str, str]], file: Path) -> pd.DataFrame:
    """Write which photos were skipped, and why, as a table; return it."""
    table = pd.DataFrame(skipped, columns=["photo", "reason"])
    # a file's name need not be valid Unicode
    write_atomically(file, lambda path: table.to_csv(path, index=False, errors="backslashreplace"))
    return table


def _seen_from(target: Path, source: Path) -> str:
    """Return the way from one folder to another: it stays the same when both are moved together."""
    try:
        return os.path.relpath(source.resolve(), target.resolve())
    except ValueError:  # on another drive of Windows
        return str(source.resolve())


def colorize_folder(
    source: Path | str,
    target: Path | str,
    colorizer: Colorizer | None = None,
    quality: int = 95,
    file_format: str = "",
    **options: Any,
) -> pd.DataFrame:
    """Colorize all photos and films in a folder and below into another; return a table of what was skipped, and why.

    What is in the target already is left as it is: a second call goes on where the first stopped. `file_format` is
    "jpeg", "png" or "" (each photo's own); quality: of JPEG, 1 to 100; options: see `Options`. Raises ValueError when
    both folders are one, or the target was begun in another way; BlockingIOError when another program fills it.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    if source.resolve() == target.resolve():
        raise ValueError(f"{target} is the folder of the photos itself: name another one, they are never overwritten")
    places = targets_for(source, target, file_format)
    left, skipped = [path for path, place in places.items() if not place.exists()], []
    options = (colorizer := colorizer or Colorizer()).options(**options)
    with locked(target) as heartbeat:
        work = (lambda path: attempt(path, places[path], colorizer, options, quality, heartbeat)), left
        photos = {"photos, seen from here": _seen_from(target, source)}
        refuse_another(target, photos | colorizer.made_with(options), photos | asdict(Options()))
        print(f"{len(places)} photos, {len(places) - len(left)} of them done before; weights: {colorizer}")
        for path, error in zip(
            left, tqdm(workspace.in_parallel(*work, workspace.cores() + 1), total=len(left), unit="photo"), strict=True
        ):
            heartbeat()
            if error:
                skipped.append((path.relative_to(source).as_posix(), error.replace(f"{path} ", "")))
    print(f"{len(left) - len(skipped)} colorized, {len(skipped)} skipped (listed in {target / 'skipped.csv'})")
    return listed(skipped, target / "skipped.csv")
