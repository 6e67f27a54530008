"""Films in color that do not flicker: colors follow what moves, end at a cut, and a killed run goes on."""

import json
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from tqdm.auto import tqdm

from helpers.files import locked, write_atomically
from helpers.inference.colorizer import Colorizer, Options, render
from helpers.inference.film import FORMATS, LOOK, Film, find_cuts, join, write_film
from helpers.inference.suggestions import described, hints_like
from helpers.inference.user_hints import NO_HINTS, Hint

SMALLEST = 32  # pixels on a side that OpenCV's flow needs
MEMORY = 100_000_000  # bytes for the frames of a chunk
LONGEST = 48  # frames of a chunk, at most
AHEAD = 16  # frames after a chunk that its colors also depend on
BATCH = 8  # frames per batch
BACK = 500  # frames that a hint travels backward, at most


def motion(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the optical flow from a gray frame (H, W) uint8 to another: (H, W, 2), x and y in pixels.

    OpenCV's dense inverse search (Kroeger et al. 2016, arXiv 1603.03590).
    """
    height, width = here.shape
    pad = max(0, SMALLEST - height), max(0, SMALLEST - width)
    here, there = (np.pad(frame, ((0, pad[0]), (0, pad[1])), mode="edge") for frame in (here, there))
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return finder.calc(here, there, None)[:height, :width]


def warp(maps: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Return maps (H, W) or (H, W, C), float32, sampled where the flow (H, W, 2) points."""
    height, width = flow.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    places = columns + flow[..., 0], rows + flow[..., 1]
    return cv2.remap(maps, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def trusted(flow: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Return a mask (H, W), float32: 1 where a flow can be trusted, given the flow in the other direction.

    Untrusted are pixels that do not return to themselves (occluded), motion borders, and flow from outside the frame
    (Ruder et al. 2016, arXiv 1604.08610; Lai et al. 2018, arXiv 1808.00449).
    """
    if min(flow.shape[:2]) < 2:  # a film one pixel wide or high has no neighbors to compare
        return np.zeros(flow.shape[:2], np.float32)
    returned, length = warp(back, flow), np.square(flow).sum(2)
    occluded = np.square(flow + returned).sum(2) > 0.01 * (length + np.square(returned).sum(2)) + 0.5
    slope = sum(np.square(np.gradient(flow[..., i], axis=j)) for i in (0, 1) for j in (0, 1))
    border = slope > 0.01 * length + 0.002
    height, width = flow.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    outside = (x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5)
    return (~(occluded | border | outside)).astype(np.float32)


def steady(
    grays: Sequence[np.ndarray],
    colors: Sequence[np.ndarray],
    cuts: Sequence[int] = (0,),
    before: dict[str, np.ndarray] | None = None,
    weight: float = 0.9,
    backward: bool = True,
    ahead: int = 0,
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Return steadied colors of consecutive frames, and "gray" and "ab" of the last one for the next call.

    grays: (h, w) uint8; colors: ab (h, w, 2), float32; cuts: frames that begin a shot; before: "gray" and "ab" of the
    frame before the first. Where the flow can be trusted, a color is mixed from `weight` parts of the previous frame's
    and the rest its own; backward: then again from the next frame's. The last `ahead` frames are used but not returned.
    """
    flows: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    made: list[np.ndarray] = []
    for i, (gray, ab) in enumerate(zip(grays, colors, strict=True)):
        if i not in cuts and before is not None:
            flows[i] = motion(gray, before["gray"]), motion(before["gray"], gray)
            ab = mixed(ab, before["ab"], *flows[i], weight)
        before = {"gray": gray, "ab": ab}
        made.append(ab)
    count = len(made) - ahead
    last = {"gray": grays[count - 1], "ab": made[count - 1]}
    if backward:
        for i in reversed(range(len(made) - 1)):
            if i + 1 in flows:
                made[i] = mixed(made[i], made[i + 1], *flows[i + 1][::-1], weight)
    return made[:count], last


def mixed(ab: np.ndarray, other: np.ndarray, flow: np.ndarray, back: np.ndarray, weight: float) -> np.ndarray:
    """Return ab (h, w, 2) mixed with another frame's, where the flow to it and back can be trusted."""
    share = weight * trusted(flow, back)[..., None]
    return (1 - share) * ab + share * warp(other, flow)


def travel(frames: Iterable[np.ndarray], starts: dict[int, list[Hint]], cuts: Sequence[int]) -> dict[int, list[Hint]]:
    """Return the hints of each frame: each follows the flow through its shot, both ways, until it is occluded.

    frames: gray (h, w) uint8; starts: the hints by the number of their frame, in the pixels of these frames.
    """
    traveling: dict[int, list[Hint]] = {}
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
        for i in range(len(seen) - 1, 0, -1) if back else ():
            if not (back := moved(back, seen[i], seen[i - 1])):
                break
            traveling.setdefault(number - len(seen) + i, []).extend(back)
        traveling.setdefault(number, []).extend(alive)
    return traveling


def moved(hints: Sequence[Hint], here: np.ndarray, there: np.ndarray) -> list[Hint]:
    """Return those hints that can be followed to the next frame, gray (h, w) uint8."""
    flow, back, (height, width) = motion(here, there), motion(there, here), here.shape
    found = []
    for hint in hints:
        row, column = min(round(hint.y), height - 1), min(round(hint.x), width - 1)
        x, y = hint.x + float(flow[row, column, 0]), hint.y + float(flow[row, column, 1])
        inside = 0 <= x <= width - 1 and 0 <= y <= height - 1
        if inside and np.linalg.norm(flow[row, column] + back[round(y), round(x)]) < 1.5:  # it returns to itself
            found.append(Hint(x, y, hint.color))
    return found


def plan(film: Film, hints: Sequence[Hint]) -> tuple[list[int], dict[int, list[Hint]]]:
    """Return the frames that begin a shot, and the hints of each frame, in the film's pixels.

    Raises ValueError for a hint given after the film's end.
    """
    times: list[float] = []

    def _looked_at(title: str) -> Iterator[np.ndarray]:
        for time, gray in tqdm(film.frames(LOOK, "gray"), title, film.count or None, unit="frame"):
            times.append(float(time * film.time_base))
            yield gray

    cuts, starts = find_cuts(_looked_at("cuts"), film.rate), {}
    if not hints:
        return cuts, {}
    share, seconds = max(1.0, min(film.height, film.width) / LOOK), np.array(times)
    for hint in hints:
        if hint.at > seconds[-1] + 1:
            raise ValueError(f"a hint is given at {hint.at:g} s, but the film ends at {seconds[-1]:.2f} s")
        nearest = int(np.abs(seconds - hint.at).argmin())
        starts.setdefault(nearest, []).append(Hint(hint.x / share, hint.y / share, hint.color))
    traveling = travel(_looked_at("hints"), starts, cuts)
    larger = {n: [Hint(share * each.x, share * each.y, each.color) for each in some] for n, some in traveling.items()}
    return cuts, larger


def saved_plan(file: Path, film: Film, hints: Sequence[Hint]) -> tuple[list[int], dict[int, list[Hint]]]:
    """Return the result of `plan`, computed once and saved in a file."""
    if not file.exists():
        cuts, traveling = plan(film, hints)
        found = {"cuts": cuts, "hints": {number: [asdict(hint) for hint in some] for number, some in traveling.items()}}
        write_atomically(file, lambda path: path.write_text(json.dumps(found)))
    found = json.loads(file.read_text())
    return found["cuts"], {int(number): [Hint(**hint) for hint in some] for number, some in found["hints"].items()}


@torch.inference_mode()
def paint(
    colorizer: Colorizer, frames: Sequence[np.ndarray], options: Options, hints: Sequence[Sequence[Hint]]
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return prepared frames (H, W, 3), and each one's gray (h, w) and predicted ab (h, w, 2) at the input size."""
    if options.like:
        reference = described(colorizer, options.like)
        hints = [[hints_like(colorizer, rgb, reference), *own] for rgb, own in zip(frames, hints, strict=True)]
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
    source: Path | str,
    target: Path | str,
    colorizer: Colorizer | None = None,
    hints: Sequence[Hint] = (),
    **options: Any,
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
    film = Film(source)
    options.refuse_large(film.height, film.width)
    if hints and not colorizer.takes_hints:
        raise ValueError(NO_HINTS)
    if not all(0 <= hint.x < film.width and 0 <= hint.y < film.height for hint in hints):
        raise ValueError(f"a hint lies outside the film of {film.width}x{film.height} pixels")
    made = source.resolve(), source.stat().st_size, colorizer.made_with(options), *hints
    # another film, or other settings: another name
    work = target.with_name(f".{target.stem[:40]}.{crc32(repr((target.name, made)).encode()):08x}.parts")
    with locked(work):
        whole = work / f"whole{target.suffix}"
        try:
            chunks = list(chunked(film, work, colorizer, options, hints))
            notes = join(chunks, film, whole)
        except KeyboardInterrupt:
            print(f"stopped: {len(list(work.glob('*.nut')))} parts of {target} are saved; run this again to continue")
            raise
        write_atomically(target, whole.replace)
    shutil.rmtree(work)
    return notes


def chunked(film: Film, work: Path, colorizer: Colorizer, options: Options, hints: Sequence[Hint]) -> Iterator[Path]:
    """Yield the chunks of a film in color, files in a folder; existing ones are not made again."""
    cuts, traveling = saved_plan(work / "plan.json", film, hints)
    fitting = MEMORY // (3 * film.height * film.width * options.enlarge**2)
    length = max(1, min(LONGEST, fitting) // BATCH) * BATCH
    done = len(list(work.glob("*.nut")))
    yield from (work / f"{number:06}.nut" for number in range(done))
    frames, waiting = islice(enumerate(film.frames()), done * length, None), []
    with tqdm(total=film.count or None, desc="color", unit="frame", initial=done * length) as bar:
        for number in count(done):
            some = list(islice(frames, length + AHEAD - len(waiting)))
            own = [traveling.get(i, []) for i, _ in some]
            painted = paint(colorizer, [rgb for _, (_, rgb) in some], options, own)
            waiting += zip([time for _, (time, _) in some], *painted, strict=True)
            if not waiting:
                return
            times, pictures, grays, colors = zip(*waiting, strict=True)
            if options.steady:
                here, ahead = [cut - number * length for cut in cuts], len(waiting[length:])
                before = load_file(work / f"{number - 1:06}.state") if number else None
                colors, last = steady(grays, colors, here, before, options.steady, ahead=ahead)
                write_atomically(work / f"{number:06}.state", partial(save_file, last))
            own = zip(times[:length], pictures, colors, strict=False)
            made = [(time, render(rgb, torch.from_numpy(ab).permute(2, 0, 1))) for time, rgb, ab in own]
            chunk, how = work / f"{number:06}.nut", (made, film.time_base, film.rate, "nut", film.shape_of_pixels)
            write_atomically(chunk, lambda path, how=how: write_film(path, *how))
            waiting = waiting[length:]
            bar.update(len(made))
            yield chunk
