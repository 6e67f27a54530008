"""Colorizing files: one, or a folder that continues where it stopped and lists what it had to skip."""

import errno
import io
import json
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageCms
from tqdm.auto import tqdm

from helpers import workspace
from helpers.color import colorfulness
from helpers.data.photos import MAX_PIXELS, SUFFIXES, pages, read_rgb, reduced, to_tensor
from helpers.files import locked, write_atomically
from helpers.inference import film
from helpers.inference.colorizer import Colorizer, Options, render
from helpers.inference.steadying import colorize_film
from helpers.inference.suggestions import reference_hints
from helpers.inference.user_hints import Hint

DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)  # what, camera, program, when, who, whose
JPEG = (".jpg", ".jpeg")
LONGEST = 65_535  # pixels on a side of a JPEG file
IN_COLOR = 20  # colorfulness of a photo that was no gray photo or toned print
OF_TARGET = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT)  # faults that end a folder
RECORD, SKIPPED = "colorized.jsonl", "skipped.csv"
PREDICTING = threading.Lock()  # photos are read and written in parallel, but predicted one at a time


def target_of(path: Path, name: str = "", file_format: str = "") -> str:
    """Return the name of a file's colorized version: in "jpeg", "png", or with "" in its own format if possible.

    name: to use in place of the file's own.
    """
    suffix = path.suffix.lower()
    if suffix in film.SUFFIXES:
        ending = film.target_suffix(path)
    else:
        own = suffix if suffix in (*JPEG, ".png") else ".png"
        ending = {"": own, "jpeg": ".jpg", "png": ".png"}[file_format]
    return (name or path.name) + ("" if suffix == ending else ending)


def colorize_file(
    source: Path,
    target: Path,
    colorizer: Colorizer,
    options: Options,
    quality: int = 95,
    hints: Sequence[Hint | np.ndarray] = (),
    page: int = 0,
) -> bool:
    """Colorize a photo file, or a page of a TIFF, into another file, with its EXIF data, resolution and color profile.

    Returns whether the photo was in color already: only its lightness is used. Raises ValueError for a photo that
    cannot be read or colorized, OSError for a target that cannot be written.
    """
    try:
        original = read_rgb(source, page, None if options.large_scans else MAX_PIXELS)
        rgb, L, size = colorizer.prepare(original, options)
        if options.like:
            hints = [reference_hints(colorizer, original, options.like), *hints]
        with PREDICTING:
            ab = colorizer.predict_colors(L, options, hints, size)
        content = encoded(render(rgb, ab), source, target, quality)
    except FileNotFoundError:  # no enlarger: not the photo's fault
        raise
    except (OSError, ValueError) as error:
        raise ValueError(str(error)) from error
    except (MemoryError, RuntimeError) as error:  # PyTorch's lack of memory is a RuntimeError
        hint = f"with input_size={options.input_size}; a smaller one needs less memory"
        raise ValueError(f"{source} cannot be colorized {hint}: {error}") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda path: path.write_bytes(content))
    return colorfulness(to_tensor(reduced(original, 64))).item() > IN_COLOR


def encoded(rgb: np.ndarray, source: Path, target: Path, quality: int) -> bytes:
    """Return a photo (H, W, 3) as the bytes of a file, with those details of the source that can be written."""
    jpeg = target.suffix.lower() in JPEG
    if jpeg and max(rgb.shape) > LONGEST:
        raise ValueError(f"{source}: a JPEG file holds at most {LONGEST:,} pixels on a side; use the format png")
    how = {"format": "JPEG", "quality": quality, "subsampling": 0} if jpeg else {"format": "PNG", "compress_level": 3}
    photo, buffer = Image.fromarray(rgb), io.BytesIO()
    try:
        photo.save(buffer, **how, **metadata(source))
    except Exception:  # damaged EXIF data fail in many ways
        photo.save(buffer := io.BytesIO(), **how)
    return buffer.getvalue()


def metadata(path: Path) -> dict[str, Any]:
    """Return a file's EXIF data without the rotation, its resolution, and its color profile if that is for RGB."""
    found = {}
    with Image.open(path) as photo:
        exif = photo.getexif()
        exif.pop(0x0112, None)  # the pixels are already rotated
        for tag in set(exif) - (set(DESCRIPTIVE) if photo.format == "TIFF" else set(exif)):
            del exif[tag]  # where a TIFF stores its pixels
        if len(exif):
            found["exif"] = exif.tobytes()
        if photo.info.get("dpi"):
            found["dpi"] = tuple(map(float, photo.info["dpi"]))
        profile = photo.info.get("icc_profile")
        if profile and ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space == "RGB ":
            found["icc_profile"] = profile
    return found


@dataclass(frozen=True)
class Job:
    """A photo, a page of one, or a film to colorize: its name in the record, and the name of the result."""

    path: Path
    page: int
    key: str
    name: Path

    @property
    def is_film(self) -> bool:
        """Whether it is a film."""
        return self.path.suffix.lower() in film.SUFFIXES


def jobs_in(source: Path, target: Path, file_format: str) -> tuple[list[Job], list[tuple[str, str]]]:
    """Return what to colorize in a folder and its subfolders, linked ones too, and what cannot be, with the reason."""
    seen, jobs, others = {target.resolve()}, [], []
    for parent, folders, names in os.walk(source, followlinks=True):
        seen.add(Path(parent).resolve())
        folders[:] = sorted(name for name in folders if Path(parent, name).resolve() not in seen)
        for path in (Path(parent, name) for name in sorted(names) if not name.startswith(".")):
            relative, suffix = path.relative_to(source), path.suffix.lower()
            if suffix not in SUFFIXES | film.SUFFIXES:
                others.append((relative.as_posix(), "skipped: not a kind of photo or film that can be read"))
                continue
            count = pages(path) if suffix in (".tif", ".tiff") else 1
            for page in range(count):
                part = relative.with_stem(f"{relative.stem}-{page + 1}") if count > 1 else relative
                jobs.append(Job(path, page, part.as_posix(), part.with_name(target_of(path, part.name, file_format))))
    return sorted(jobs, key=lambda job: job.is_film), others


class Record:
    """The results of ours in a folder: a line of JSON for each, with everything that it depends on."""

    def __init__(self, folder: Path):
        self.folder, self.file, self.entries, self.lock = folder, folder / RECORD, {}, threading.Lock()
        for line in self.file.read_text().splitlines() if self.file.exists() else ():
            with suppress(ValueError, KeyError):  # the last line of a killed program
                entry = json.loads(line)
                self.entries[entry["key"]] = entry
        self.names = {entry["result"] for entry in self.entries.values()}

    def place(self, job: Job) -> Path:
        """Return where a result goes: over an earlier one for the same file, else where nothing is."""
        if job.key in self.entries:
            return self.folder / self.entries[job.key]["result"]
        name = job.name
        with self.lock:
            while name.as_posix() in self.names or (self.folder / name).exists():
                name = name.with_stem(name.stem + "+")
            self.names.add(name.as_posix())
        return self.folder / name

    def has(self, job: Job, state: dict[str, Any]) -> bool:
        """Say whether a result exists that was made from this state of the file, with these settings."""
        entry = self.entries.get(job.key, {})
        return (
            all(entry.get(name) == value for name, value in state.items()) and (self.folder / entry["result"]).exists()
        )

    def add(self, job: Job, state: dict[str, Any], place: Path) -> None:
        """Record a complete result."""
        entry = {"key": job.key, **state, "result": place.relative_to(self.folder).as_posix()}
        with self.lock, self.file.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def work_on(job: Job, record: Record, settings: str, colorizer: Colorizer, options: Options, quality: int) -> str:
    """Do a job; returns "", "done" (before), "in color", or a sentence about what was skipped or lost.

    A fault of one file never ends the folder; raises OSError if the target folder cannot be written.
    """
    try:
        stat = job.path.stat()
        state = {"size": stat.st_size, "time": stat.st_mtime_ns, "settings": settings}
        if record.has(job, state):
            return "done"
        place, note = record.place(job), ""
        if job.is_film:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)  # an outdated result of ours
            if lost := colorize_film(job.path, place, colorizer, **asdict(options)):
                note = f"colorized, but {'; '.join(lost)}"
        elif colorize_file(job.path, place, colorizer, options, quality, page=job.page):
            note = "in color"
        record.add(job, state, place)
        return note
    except OSError as error:
        if {error.errno, getattr(error.__cause__, "errno", None)} & set(OF_TARGET):
            raise OSError(f"{record.folder} cannot be written: {error.__cause__ or error}") from error
        return f"skipped: {error.strerror or error}"
    except (ValueError, MemoryError, RuntimeError) as error:
        return f"skipped: {str(error).replace(f'{job.path} ', '')}"


def colorize_folder(
    source: Path | str,
    target: Path | str,
    colorizer: Colorizer | None = None,
    quality: int = 95,
    file_format: str = "",
    **options: Any,
) -> pd.DataFrame:
    """Colorize all photos and films in a folder into another; returns a table of what was skipped or lost, and why.

    A second call does what is missing, and again what was made from another file, with other weights or options; files
    that are not its own are never overwritten. `file_format` is "jpeg", "png" or "" (each photo's own); quality: of
    JPEG, 1 to 100; options: see `Options`. Raises FileNotFoundError for a source without photos, ValueError if both
    folders are the same, BlockingIOError if another program fills the target, OSError if it cannot be written.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    if not source.is_dir():
        raise FileNotFoundError(f"There is no folder {source}: name one that holds photos or films.")
    if source.resolve() == target.resolve():
        raise ValueError(f"{target} is the folder of the photos itself: name another one, they are never overwritten")
    colorizer = colorizer or Colorizer()
    options = colorizer.options(**options)
    settings = sha256(json.dumps([colorizer.made_with(options), quality], sort_keys=True).encode()).hexdigest()[:16]
    with locked(target):
        jobs, notes = jobs_in(source, target, file_format)
        if not jobs:
            raise FileNotFoundError(f"{source} holds no photos or films that can be read.")
        more = {"settings": settings, "colorizer": colorizer, "options": options, "quality": quality}
        work, count = partial(work_on, record=Record(target), **more), sum(not job.is_film for job in jobs)
        results = chain(workspace.in_parallel(work, jobs[:count], workspace.cores() + 1), map(work, jobs[count:]))
        try:  # photos side by side, then the films, each on all cores
            outcome = [*tqdm(results, total=len(jobs), unit="file")]
        except KeyboardInterrupt:
            print("\nstopped: finished results are saved. Run the same command again to continue.")
            raise
        return _report(jobs, outcome, notes, target, colorizer)


def _report(jobs: list[Job], outcome: list[str], notes: list, target: Path, colorizer: Colorizer) -> pd.DataFrame:
    """Print a summary; write and return the table of what was skipped or lost."""
    notes += [(job.key, note) for job, note in zip(jobs, outcome, strict=True) if note not in ("", "done", "in color")]
    done, skipped = outcome.count("done"), sum(note.startswith("skipped") for note in outcome)
    print(f"{len(jobs) - done - skipped} colorized, {done} done before, {skipped} skipped; weights: {colorizer}")
    if count := outcome.count("in color"):
        print(f"{count} were in color already: only their lightness was used")
    if notes:
        print(f"{target / SKIPPED} lists what was skipped or lost")
    table = pd.DataFrame(notes, columns=["photo", "reason"])
    # file names need not be valid Unicode
    write_atomically(target / SKIPPED, lambda path: table.to_csv(path, index=False, errors="backslashreplace"))
    return table
