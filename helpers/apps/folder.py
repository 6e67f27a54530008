"""Colorizing a folder: it continues where it stopped, and lists what it had to skip."""

import errno
import json
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from helpers import workspace
from helpers.apps.photo_files import COLORED, JPEG, colorize_to_bytes
from helpers.data.photos import SUFFIXES, count_pages, walk
from helpers.files import locked, write_atomically
from helpers.inference.colorizer import Colorizer, Options

FILMS = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".ogv", ".ts", ".mts", ".m2ts"}
FILMS |= {".3gp", ".vob", ".flv", ".dv"}  # endings of films' names; the modules for films are loaded for a film only
# faults of one result's name; any other fault in writing is the target folder's
OF_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENOTDIR)


def target_of(path: Path, file_format: str = "", page: str = "") -> str:
    """Return the name of a file's colorized version: in "jpeg", "png", or with "" in its own format if possible."""
    suffix = path.suffix.lower()
    if suffix in FILMS:
        from helpers.apps.film_writer import target_suffix

        ending = target_suffix(path)
    else:
        ending = {"": suffix if suffix in (*JPEG, ".png") else ".png", "jpeg": ".jpg", "png": ".png"}[file_format]
    return f"{path.stem}{page}{path.suffix}" + ("" if suffix == ending else ending)


class Job(NamedTuple):
    """A photo, a page of one, or a film to colorize; source and result are relative to the two folders."""

    path: Path
    is_film: bool
    page: int
    source: str
    result: Path


def jobs_in(source: Path, target: Path, file_format: str) -> tuple[list[Job], list[tuple[str, str]]]:
    """Return what to colorize in a folder and its subfolders, photos first, and what cannot be, with the reason."""
    jobs, others = [], []
    for path in walk(source, target, lambda error: others.append((error.filename, f"skipped: {error.strerror}"))):
        relative, suffix = path.relative_to(source), path.suffix.lower()
        if path.name.startswith("."):
            continue
        if suffix not in SUFFIXES | FILMS:
            others.append((relative.as_posix(), "skipped: not a kind of photo or film that can be read"))
            continue
        count = count_pages(path) if suffix in (".tif", ".tiff") else 1
        for page in range(count):
            result = relative.with_name(target_of(path, file_format, f"-{page + 1}" if count > 1 else ""))
            jobs.append(Job(path, suffix in FILMS, page, relative.as_posix(), result))
    return sorted(jobs, key=lambda job: job.is_film), others


class Target:
    """A folder of results, with a record of what each was made from: a line of JSON for each result.

    Files that the record does not name are somebody else's.
    """

    def __init__(self, source: Path, folder: Path, colorizer: Colorizer, options: Options, quality: int):
        self.source, self.folder, self.colorizer, self.options = str(source.resolve()), folder, colorizer, options
        self.quality, self.lock, made_with = quality, threading.Lock(), colorizer.fingerprint(options)
        of_photos = {key: made_with[key] for key in made_with.keys() - {"steady", "deinterlace"}} | {"quality": quality}
        self.made_with, self.record, self.entries = {True: made_with, False: of_photos}, folder / "colorized.jsonl", {}
        for line in self.record.read_text(errors="replace").splitlines() if self.record.exists() else ():
            with suppress(ValueError, KeyError, TypeError):  # torn: the program was killed while it wrote
                entry = json.loads(line)
                key = entry["source"], entry["page"], Path(entry["result"]).suffix
                self.entries[entry["folder"], *key] = self.entries[entry.get("size"), entry.get("time"), *key] = entry
        self.names = {entry["result"].casefold() for entry in self.entries.values()}

    def named(self, job: Job) -> Job:
        """Return a job whose result has a name that nothing else has."""
        name = job.result
        while name.as_posix().casefold() in self.names or os.path.lexists(self.folder / name):
            name = name.with_stem(name.stem + "+")
        self.names.add(name.as_posix().casefold())
        return job._replace(result=name)

    def add(self, entry: dict[str, Any]) -> None:
        """Append an entry to the record, on a line of its own even after a torn one."""
        with self.lock, self.record.open("a") as file:
            file.write("\n" + json.dumps(entry))

    def work(self, job: Job) -> tuple[str, str]:
        """Colorize a photo or film; returns "colorized" or "done before", and what the user may not expect."""
        stat, key = job.path.stat(), (job.source, job.page, job.result.suffix)
        moved = stat.st_size, stat.st_mtime_ns, *key
        before = self.entries.get((self.source, *key)) or self.entries.get(moved) or {}
        name = before.get("result") or job.result.as_posix()
        entry = {"folder": self.source, "source": job.source, "page": job.page, "result": name}
        state = {"size": stat.st_size, "time": stat.st_mtime_ns, "made_with": self.made_with[job.is_film]}
        place = self.folder / name
        if before.items() >= state.items() and place.exists():
            return "done before", before["note"]
        place.parent.mkdir(parents=True, exist_ok=True)
        if job.is_film:
            if not before:
                self.add(entry)  # the name is ours, even if the program is killed before the last line
            from helpers.apps.film_job import make_film

            notes = make_film(job.path, place, self.colorizer, self.options)
        else:
            given = job.path, place, self.colorizer, self.options, self.quality, (), job.page
            content, notes = colorize_to_bytes(*given)
            self.add(entry)
            write_atomically(place, lambda path: path.write_bytes(content))
        self.add(entry | state | {"note": "; ".join(notes)})
        return "colorized", "; ".join(notes)

    def attempt(self, job: Job) -> tuple[str, str]:
        """Do a job as `work` does, but return "skipped" and why for a fault of one file.

        Raises OSError if the folder cannot be written.
        """
        try:
            return self.work(job)
        except OSError as error:
            fault = error.__cause__ if isinstance(error.__cause__, OSError) else error
            if fault.errno in OF_NAME or (fault.errno == errno.EACCES and os.access(self.folder, os.W_OK)):
                return "skipped", fault.strerror
            raise OSError(f"{self.folder} cannot be written: {fault.strerror or fault}") from error
        except Exception as error:
            return "skipped", str(error).replace(f"{job.path} ", "")

    def attempt_all(self, jobs: list[Job]) -> list[tuple[str, str]]:
        """Do all jobs, photos side by side, then the films, each on all cores; the stop button ends it at once."""
        named = [self.named(job) for job in jobs]  # in order, whichever is done first
        outcomes, count, pool = [], sum(not job.is_film for job in jobs), ThreadPoolExecutor(workspace.cores())
        everything = chain(pool.map(self.attempt, named[:count]), map(self.attempt, named[count:]))
        try:
            outcomes.extend(tqdm(everything, total=len(jobs), unit="file"))
        except KeyboardInterrupt:
            print(f"\nstopped: {len(outcomes)} of {len(jobs)} files are finished; the same command does the others")
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return outcomes


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
    if not source or not Path(source).expanduser().is_dir():
        raise FileNotFoundError(f"There is no folder {str(source)!r}: name one that holds photos or films.")
    source, target = Path(source).expanduser(), Path(target).expanduser()
    if source.resolve() == target.resolve():
        raise ValueError(f"{target} is the folder of the photos itself: name another one, they are never overwritten")
    target.mkdir(parents=True, exist_ok=True)
    if not os.access(target, os.W_OK):
        raise PermissionError(f"{target} cannot be written: name another folder")
    colorizer = colorizer or Colorizer()
    with locked(target):
        results = Target(source, target, colorizer, colorizer.options(**options), quality)
        jobs, others = jobs_in(source, target, file_format)
        if not jobs:
            raise FileNotFoundError(f"{source} holds no photos or films that can be read.")
        return _report(target, jobs, results.attempt_all(jobs), others, colorizer)


def _report(target: Path, jobs: list[Job], outcomes: list, others: list, colorizer: Colorizer) -> pd.DataFrame:
    """Print a summary; write and return the table of what was skipped or lost."""
    counts, file = Counter(outcome for outcome, _ in outcomes), target / "skipped.csv"
    skipped, done = counts["skipped"] + len(others), counts["done before"]
    print(f"{counts['colorized']} colorized, {done} done before, {skipped} skipped; weights: {colorizer}")
    if count := sum(COLORED in note for outcome, note in outcomes if outcome == "colorized"):
        print(f"{count} were in color already: only their lightness was used")
    each = zip(jobs, outcomes, strict=True)
    notes = [(job.source, f"{outcome}: {note}") for job, (outcome, note) in each if note not in ("", COLORED)]
    table = pd.DataFrame(others + notes, columns=["photo", "reason"])
    if len(table):
        print(f"{file} lists what was skipped or lost")
    # file names need not be valid Unicode
    write_atomically(file, lambda path: table.to_csv(path, index=False, errors="backslashreplace"))
    return table
