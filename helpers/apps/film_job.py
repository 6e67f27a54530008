"""A film file in color: planned, colored chunk by chunk, joined; a killed run goes on."""

import json
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from tqdm.auto import tqdm

from helpers import workspace
from helpers.apps.film_reader import Film, find_cuts
from helpers.apps.film_writer import FORMATS, QUALITY, mux, write_film
from helpers.apps.optical_flow import find_flows, propagate_hints, steady
from helpers.apps.photo_files import COLORED, like_hints
from helpers.files import locked, write_atomically
from helpers.inference.colorizer import Colorizer, Options, in_color, render
from helpers.inference.user_hints import NO_HINTS, Hint

LOOK = 160  # pixels on the shorter side of the frames in which cuts are found
MEMORY = 100_000_000  # bytes for the frames of a chunk
LONGEST = 48  # frames of a chunk, at most
AHEAD = 16  # frames after a chunk that its colors also depend on
BATCH = 8  # frames per batch


def ahead(items: Iterator, length: int = BATCH) -> Iterator:
    """Yield items in their order, which a thread of its own makes, at most `length` ahead."""
    pool, end = ThreadPoolExecutor(1), object()
    waiting = deque(pool.submit(next, items, end) for _ in range(length))
    try:
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


# number, time, picture (H, W, 3), and gray (h, w) and ab (h, w, 2) at the input size
Frame = tuple[int, int, np.ndarray, np.ndarray, np.ndarray]
Plan = tuple[list[int], dict[int, list[Hint]], list[list[int]], list[str]]


def plan(film: Film, hints: Sequence[Hint], keep_color: str = "never") -> Plan:
    """Return the frames that begin a shot, the hints of each frame, in the film's pixels, what is kept, and notes.

    keep_color: see `Options`. What is kept are stretches in color: the first frame, and the one after the last. Raises
    ValueError for a hint given after the film's end.
    """
    times, colors = [], []  # of each frame: seconds, and whether it is in color

    def _looked_at(title: str) -> Iterator[np.ndarray]:
        for time, rgb in tqdm(ahead(film.frames(LOOK)), title, film.count or None, unit="frame"):
            times.append(float(time * film.time_base))
            colors.append(in_color(rgb))
            yield cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)

    cuts, starts = find_cuts(_looked_at("cuts"), film.rate), {}
    kept, notes = shots_to_keep(cuts, colors, times, keep_color)
    share, seconds = max(1.0, min(film.height, film.width) / LOOK), np.array(times)
    for hint in hints:
        if hint.at > seconds[-1] + 1:
            raise ValueError(f"a hint is given at {hint.at:g} s, but the film ends at {seconds[-1]:.2f} s")
        nearest = int(np.abs(seconds - hint.at).argmin())
        starts.setdefault(nearest, []).append(Hint(hint.x / share, hint.y / share, hint.color))
    traveling = propagate_hints(_looked_at("hints"), starts, cuts) if hints else {}
    larger = {n: [Hint(share * each.x, share * each.y, each.color) for each in some] for n, some in traveling.items()}
    return cuts, larger, kept, notes


def shots_to_keep(cuts: list[int], colors: Sequence[bool], times: list[float], keep_color: str) -> tuple[list, list]:
    """Return the stretches that keep their colors and the notes, as `plan` does; colors: is a frame in color?"""
    kept = np.zeros(len(colors), bool)
    for first, end in pairwise([*cuts, len(colors)]):
        kept[first:end] = np.mean(colors[first:end]) > 0.5
    if keep_color == "never" or not kept.any():
        return [], []
    if keep_color == "auto" and kept.all():
        return [], [COLORED]
    stretches = np.flatnonzero(np.diff(kept, prepend=False, append=False)).reshape(-1, 2).tolist()
    seconds = ", ".join(f"{times[first]:.1f} to {times[end - 1]:.1f} s" for first, end in stretches)
    return stretches, [f"what was in color already keeps its colors: {seconds}"]


def saved_plan(file: Path, film: Film, hints: Sequence[Hint], keep_color: str) -> Plan:
    """Return the result of `plan`, computed once and saved in a file."""
    if not file.exists():
        text = json.dumps(plan(film, hints, keep_color), default=asdict)
        write_atomically(file, lambda path: path.write_text(text))
    cuts, hints, *rest = json.loads(file.read_text())
    return cuts, {int(number): [Hint(**hint) for hint in some] for number, some in hints.items()}, *rest


@torch.inference_mode()
def predict_frames(
    colorizer: Colorizer, frames: Sequence[np.ndarray], options: Options, hints: Sequence[Sequence[Hint]]
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return prepared frames (H, W, 3), and each one's gray (h, w) and predicted ab (h, w, 2) at the input size."""
    hints = [[*like_hints(colorizer, rgb, options), *own] for rgb, own in zip(frames, hints, strict=True)]
    prepared, colors = [colorizer.prepare(rgb, options) for rgb in frames], []
    for start in range(0, len(prepared), BATCH):
        batch, own = prepared[start : start + BATCH], hints[start : start + BATCH]
        if any(own):
            each = zip(batch, own, strict=True)
            colors += [colorizer.predict_colors(L, options, some, size) for (_, L, size), some in each]
        else:
            colors += colorizer.predict(torch.cat([L for _, L, _ in batch]), options.flip) * options.saturation
    grays = [((L[0, 0] + 1) * 127.5).round().byte().numpy() for _, L, _ in prepared]
    return [rgb for rgb, *_ in prepared], grays, [ab.permute(1, 2, 0).numpy() for ab in colors]


def colorize_film(
    source: Path | str, target: Path | str, colorizer: Colorizer | None = None, hints: Sequence = (), **options: Any
) -> list[str]:
    """Colorize a film into another file, .mp4 or .mkv, with its own times and sound; options: see `Options`.

    hints: colors for places, each at its time, see `Hint`. Returns a sentence for each thing that the target cannot
    hold. A stopped call continues after its last complete chunk. Raises FileExistsError for an existing target, and
    what `make_film` raises.
    """
    target = Path(target).expanduser()
    if target.suffix.lower() not in FORMATS:
        raise ValueError(f"{target}: name a film that ends in {' or '.join(FORMATS)}")
    if target.exists():
        raise FileExistsError(f"{target} exists already: name another file, nothing is overwritten")
    colorizer = colorizer or Colorizer()
    return make_film(Path(source).expanduser(), target, colorizer, colorizer.options(**options), hints)


def make_film(
    source: Path, target: Path, colorizer: Colorizer, options: Options, hints: Sequence[Hint] = ()
) -> list[str]:
    """Colorize a film as `colorize_film` does, or replace the target.

    Raises ValueError for a faulty film or hint, OSError for a target that cannot be written, BlockingIOError if another
    program is making it.
    """
    film = Film(source, options.deinterlace)
    options.refuse_large(film.height, film.width)
    if hints and not colorizer.takes_hints:
        raise ValueError(NO_HINTS)
    if not all(0 <= hint.x < film.width and 0 <= hint.y < film.height for hint in hints):
        raise ValueError(f"a hint lies outside the film of {film.width}x{film.height} pixels")
    made = source.resolve(), source.stat().st_size, colorizer.fingerprint(options), QUALITY, *hints
    # another film, or other settings: another name
    work = target.with_name(f".{target.stem[:40]}.{crc32(repr((target.name, made)).encode()):08x}.parts")
    with locked(work):
        whole = work / f"whole{target.suffix}"
        try:
            known = saved_plan(work / "plan.json", film, hints, options.keep_color)
            notes = known[-1] + mux(chunked(film, work, colorizer, options, known), film, whole)
        except KeyboardInterrupt:
            print(f"stopped: {len(list(work.glob('*.nut')))} parts of {target} are saved; run this again to continue")
            raise
        write_atomically(target, whole.replace)
    shutil.rmtree(work)
    return notes


def predicted(
    frames: Iterator, colorizer: Colorizer, options: Options, traveling: dict[int, list[Hint]], kept: set[int]
) -> Iterator[Frame]:
    """Yield frames, given as (number, (time, rgb)), with predicted colors; kept pictures have their own colors."""
    while some := list(islice(frames, BATCH)):
        hints = [traveling.get(i, []) for i, _ in some]
        painted = predict_frames(colorizer, [rgb for _, (_, rgb) in some], options, hints)
        for (i, (time, rgb)), picture, gray, ab in zip(some, *painted, strict=True):
            yield i, time, cv2.resize(rgb, picture.shape[1::-1]) if i in kept else picture, gray, ab


def steadied(
    frames: Iterator[Frame], work: Path, number: int, length: int, cuts: list[int], weight: float
) -> Iterator[Frame]:
    """Yield frames with steadied colors from chunk `number` on; saves what the next one needs, if the run is killed."""
    waiting, flows = [], {}
    while waiting := [*waiting, *islice(frames, length + AHEAD - len(waiting))]:
        *others, grays, colors = zip(*waiting, strict=True)
        here, later = [cut - number * length for cut in cuts], len(waiting[length:])
        before = load_file(work / f"{number - 1:06}.state") if number else None
        flows = find_flows(grays, here, before, {i - length: flow for i, flow in flows.items() if i >= length})
        colors, last = steady(grays, colors, here, before, weight, ahead=later, flows=flows)
        write_atomically(work / f"{number:06}.state", partial(save_file, last))
        yield from zip(*others, grays, colors, strict=False)
        waiting, number = waiting[length:], number + 1


def chunked(film: Film, work: Path, colorizer: Colorizer, options: Options, known: Plan) -> list[Path]:
    """Return the chunks of a film in color, files in a folder; existing ones are not made again.

    Frames flow through stages that work side by side: read, predict, steady, render; and here, encode.
    """
    cuts, traveling, stretches, _ = known
    fitting = MEMORY // (3 * film.height * film.width * options.enlarge**2)
    length = max(1, min(LONGEST, fitting) // BATCH) * BATCH
    done, kept = len(list(work.glob("*.nut"))), {i for stretch in stretches for i in range(*stretch)}
    read = ahead(islice(enumerate(film.frames()), done * length, None))
    frames = ahead(predicted(read, colorizer, options, traveling, kept))
    if options.steady:
        frames = ahead(steadied(frames, work, done, length, cuts, options.steady))
    finished = ahead(workspace.in_parallel(partial(finish, kept), frames, ahead=2 * BATCH))
    finished = iter(tqdm(finished, "color", film.count or None, unit="frame", initial=done * length))
    how = {"time_base": film.time_base, "rate": film.rate, "kind": "nut", "aspect": film.shape_of_pixels}
    for number, first in enumerate(finished, done):
        some = chain([first], islice(finished, length - 1))
        write_atomically(work / f"{number:06}.nut", partial(write_film, frames=some, **how))
    return sorted(work.glob("*.nut"))


def finish(kept: set[int], frame: Frame) -> tuple[int, np.ndarray]:
    """Return the time and the picture of a frame, in color."""
    number, time, picture, _, ab = frame
    return time, picture if number in kept else render(picture, torch.from_numpy(ab).permute(2, 0, 1))
