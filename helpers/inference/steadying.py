"""Films in color that do not flicker: colors follow what moves, end at a cut, and a killed run goes on."""

import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from helpers.data.flow import motion, trusted, warp
from helpers.files import locked, refuse_another, write_atomically
from helpers.inference.colorizer import Colorizer, Options, render
from helpers.inference.film import FORMATS, LOOK, Film, find_cuts, join, write_film
from helpers.inference.user_hints import Hint

MEMORY = 100_000_000  # bytes that the frames of a chunk may take
LONGEST = 48  # frames of a chunk
AHEAD = 16  # frames after a chunk that its colors come from too
BATCH = 8  # frames that the network sees at a time
BACK = 500  # frames that a hint goes back to before its own


@dataclass
class Shot:
    """Where the colors of a shot stand: the last frame as gray pixels (h, w), uint8, and its ab (h, w, 2), float32."""

    gray: np.ndarray
    ab: np.ndarray

    def save(self, path: Path) -> None:
        """Write it to a file."""
        with path.open("wb") as file:
            np.savez(file, gray=self.gray, ab=self.ab)

    @classmethod
    def load(cls, path: Path) -> "Shot":
        """Read it from a file."""
        with np.load(path) as stored:
            return cls(stored["gray"], stored["ab"])


def steady(
    grays: Sequence[np.ndarray],
    colors: Sequence[np.ndarray],
    cuts: Sequence[int] = (0,),
    before: Shot | None = None,
    weight: float = 0.9,
    backward: bool = True,
    ahead: int = 0,
) -> tuple[list[np.ndarray], Shot]:
    """Return steadied colors of frames that follow each other, and where the last one stands, for the next call.

    grays: (h, w) uint8; colors: ab (h, w, 2), float32, frame by frame; cuts: frames at which nothing is carried over;
    before: where the frame before the first stands. Where the flow can be trusted, `weight` of a color is what came
    along from the frame before; backward: then once more from the frame after. ahead: of the last so many frames the
    others profit, but they are not returned.
    """
    flows: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    made: list[np.ndarray] = []
    count, last = len(grays) - ahead, before
    for i, (gray, ab) in enumerate(zip(grays, colors, strict=True)):
        if i not in cuts and before is not None:
            flows[i] = motion(gray, before.gray), motion(before.gray, gray)
            ab = mixed(ab, before.ab, *flows[i], weight)
        before = Shot(gray, ab)
        last = before if i < count else last
        made.append(ab)
    if backward:
        for i in reversed(range(len(made) - 1)):
            if i + 1 in flows:
                made[i] = mixed(made[i], made[i + 1], *flows[i + 1][::-1], weight)
    return made[:count], last


def mixed(ab: np.ndarray, other: np.ndarray, flow: np.ndarray, back: np.ndarray, weight: float) -> np.ndarray:
    """Return ab (h, w, 2) mixed with another frame's where the flow to it, and back, can be trusted."""
    share = weight * trusted(flow, back)[..., None]
    return (1 - share) * ab + share * warp(other, flow)


def travel(frames: Iterable[np.ndarray], starts: dict[int, list[Hint]], cuts: Sequence[int]) -> dict[int, list[Hint]]:
    """Return the hints of each frame: each moves along the flow through its shot, both ways, until it is covered.

    frames: gray (h, w) uint8; starts: the hints by the frame that they were said on, in those pixels.
    """
    said: dict[int, list[Hint]] = {}
    seen: deque[np.ndarray] = deque(maxlen=BACK)  # the shot so far
    alive: list[Hint] = []
    for number, gray in enumerate(frames):
        if number in cuts:
            seen.clear()
            alive = []
        alive = moved(alive, seen[-1], gray) if alive else []
        seen.append(gray)
        back = starts.get(number, [])
        alive += back
        for i in range(len(seen) - 1, 0, -1):
            if not (back := moved(back, seen[i], seen[i - 1])):
                break
            said.setdefault(number - len(seen) + i, []).extend(back)
        said.setdefault(number, []).extend(alive)
    return said


def moved(hints: Sequence[Hint], here: np.ndarray, there: np.ndarray) -> list[Hint]:
    """Return hints on the next frame, gray (h, w) uint8: those that can be followed to it."""
    flow, back, (height, width) = motion(here, there), motion(there, here), here.shape
    found = []
    for hint in hints:
        row, column = min(round(hint.y), height - 1), min(round(hint.x), width - 1)
        x, y = hint.x + float(flow[row, column, 0]), hint.y + float(flow[row, column, 1])
        inside = 0 <= x <= width - 1 and 0 <= y <= height - 1
        if inside and np.linalg.norm(flow[row, column] + back[round(y), round(x)]) < 1.5:  # it comes back to itself
            found.append(Hint(x, y, hint.color))
    return found


def plan(
    film: Film, hints: Sequence[Hint], beat: Callable[[], None] = lambda: None
) -> tuple[list[int], dict[int, list[Hint]]]:
    """Return the frames that begin a shot, and the hints of each frame, in the film's pixels.

    Raises ValueError for a hint that is said after the film's end.
    """

    def _looked_at(title: str) -> Iterator[np.ndarray]:
        for number, (_, gray) in enumerate(tqdm(film.frames(LOOK, "gray"), title, film.count or None, unit="frame")):
            if number % 100 == 0:
                beat()
            yield gray

    cuts = find_cuts(_looked_at("cuts"), film.rate)
    if not hints:
        return cuts, {}
    times = [float(time * film.time_base) for time, _ in film.frames(2, "gray")]
    share, starts = max(1.0, min(film.height, film.width) / LOOK), {}
    for hint in hints:
        off = [abs(time - times[0] - hint.at) for time in times]
        if times[0] + hint.at > times[-1] + 1:
            raise ValueError(f"a hint is said at {hint.at:g} s, and the film ends at {times[-1] - times[0]:.2f} s")
        starts.setdefault(off.index(min(off)), []).append(Hint(hint.x / share, hint.y / share, hint.color))
    said = travel(_looked_at("hints"), starts, cuts)
    return cuts, {n: [Hint(share * hint.x, share * hint.y, hint.color) for hint in some] for n, some in said.items()}


@torch.inference_mode()
def paint(
    colorizer: Colorizer, frames: Sequence[np.ndarray], options: Options, hints: Sequence[Sequence[Hint]]
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return frames as they are prepared (H, W, 3), and as the network sees them, gray and ab, each by itself."""
    prepared = [colorizer.prepare(rgb, options) for rgb in frames]
    colors: list[Tensor] = []
    for start in range(0, len(prepared), BATCH):
        batch = [L for _, L, _ in prepared[start : start + BATCH]]
        if any(hints[start : start + BATCH]):
            said = hints[start : start + BATCH]
            colors += [colorizer.colors(L, options, own, prepared[0][2]) for L, own in zip(batch, said, strict=True)]
        else:
            colors += [*colorizer.predict(torch.cat(batch), options.flip) * options.saturation]
    grays = [((L[0, 0] + 1) * 127.5).round().byte().numpy() for _, L, _ in prepared]
    return [rgb for rgb, *_ in prepared], grays, [ab.permute(1, 2, 0).numpy() for ab in colors]


def colorize_film(
    source: Path | str,
    target: Path | str,
    colorizer: Colorizer | None = None,
    hints: Sequence[Hint] = (),
    beat: Callable[[], None] = lambda: None,
    **options: Any,
) -> Path:
    """Colorize a film into another file, .mp4 or .mkv, with its own times and sound; options: see `Options`.

    hints: colors for places, each at its time, see `Hint`; beat: called now and then. A call that was killed goes on at
    its last whole chunk. Raises ValueError for what is no film, or was begun in another way, FileExistsError for a
    target that is there, BlockingIOError when another program makes it.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    kind, film = target_format(target), Film(source)
    colorizer = colorizer or Colorizer()
    options, work = colorizer.options(**options), target.with_name(f".{target.name}.parts")
    options.refuse_large(film.height, film.width)
    refuse_hints(hints, film, colorizer)
    with locked(work) as heartbeat:
        for note in [] if list(work.glob("*.nut")) else work.glob("*.json"):  # nothing is lost yet
            note.unlink()
        made = colorizer.made_with(options) | {"film": str(source.resolve()), "size": source.stat().st_size}
        refuse_another(work, made | {"hints": [asdict(hint) for hint in hints]}, {})
        chunks = list(chunked(film, work, colorizer, options, hints, lambda: (heartbeat(), beat())))
        left_out: list[str] = []
        write_atomically(target, lambda path: left_out.extend(join(chunks, film, path, kind)))
    shutil.rmtree(work)
    if left_out:
        print(f"{target} has no {' and no '.join(left_out)}, which {target.suffix} cannot hold; .mkv can hold more")
    return target


def refuse_hints(hints: Sequence[Hint], film: Film, colorizer: Colorizer) -> None:
    """Raise ValueError for hints that lie outside a film, or that a colorizer cannot follow."""
    if not all(0 <= hint.x < film.width and 0 <= hint.y < film.height for hint in hints):
        raise ValueError(f"a hint lies outside the film of {film.width}x{film.height} pixels")
    if hints and not colorizer.takes_hints:
        raise ValueError("these weights take no color hints: notebook 07_hints makes some that do")


def target_format(target: Path) -> str:
    """Return the format that a film is to be written in; raises ValueError or FileExistsError where it cannot be."""
    if target.suffix.lower() not in FORMATS:
        raise ValueError(f"{target}: name a film that ends in {' or '.join(FORMATS)}")
    if target.exists():
        raise FileExistsError(f"{target} exists already: name another file, nothing is overwritten")
    return FORMATS[target.suffix.lower()]


def painted(
    film: Film,
    first: int,
    colorizer: Colorizer,
    options: Options,
    said: dict[int, list[Hint]],
    beat: Callable[[], None],
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield a film's frames from one on: time, pixels (H, W, 3), and what `paint` makes of it, gray and ab."""
    frames = islice(enumerate(film.frames()), first, None)
    while some := list(islice(frames, BATCH)):
        beat()
        numbers, times, pixels = [i for i, _ in some], [time for _, (time, _) in some], [rgb for _, (_, rgb) in some]
        yield from zip(times, *paint(colorizer, pixels, options, [said.get(i, []) for i in numbers]), strict=True)


def chunked(
    film: Film, work: Path, colorizer: Colorizer, options: Options, hints: Sequence[Hint], beat: Callable[[], None]
) -> Iterator[Path]:
    """Yield the chunks of a film in color, files in a folder; those that are there already are not made again."""
    cuts, said = kept_plan(work / "plan.json", film, hints, beat)
    fitting = MEMORY // (3 * film.height * film.width * options.enlarge**2)
    length = max(1, min(LONGEST, fitting) // BATCH) * BATCH
    done = next(number for number in count() if not (work / f"{number:06}.nut").exists())
    yield from (work / f"{number:06}.nut" for number in range(done))
    frames = painted(film, done * length, colorizer, options, said, beat)
    waiting: list[tuple] = []
    with tqdm(total=film.count or None, desc="color", unit="frame", initial=done * length) as bar:
        for number in count(done):
            waiting += islice(frames, length + AHEAD - len(waiting))
            if not waiting:
                return
            times, pictures, grays, colors = zip(*waiting, strict=True)
            if options.steady:
                before = Shot.load(work / f"{number - 1:06}.npz") if number else None
                here = [cut - number * length for cut in cuts]
                ahead = len(waiting[length:])
                colors, last = steady(grays, colors, here, before, options.steady, options.both_ways, ahead)
                write_atomically(work / f"{number:06}.npz", last.save)
            own = zip(times[:length], pictures, colors, strict=False)
            made = [(time, render(rgb, torch.from_numpy(ab).permute(2, 0, 1))) for time, rgb, ab in own]
            how = made, film.time_base, film.rate, "nut", film.shape_of_pixels
            chunk = work / f"{number:06}.nut"
            write_atomically(chunk, lambda path, how=how: write_film(path, *how))
            waiting = waiting[length:]
            bar.update(len(made))
            yield chunk


def kept_plan(
    file: Path, film: Film, hints: Sequence[Hint], beat: Callable[[], None]
) -> tuple[list[int], dict[int, list[Hint]]]:
    """Return what `plan` does, made once and kept in a file."""
    if not file.exists():
        cuts, said = plan(film, hints, beat)
        told = {"cuts": cuts, "hints": {number: [asdict(hint) for hint in some] for number, some in said.items()}}
        write_atomically(file, lambda path: path.write_text(json.dumps(told)))
    told = json.loads(file.read_text())
    return told["cuts"], {int(number): [Hint(**hint) for hint in some] for number, some in told["hints"].items()}
