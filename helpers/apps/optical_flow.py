"""What moves in a film: optical flow, colors that follow it without flicker, hints that travel along it."""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from helpers import workspace
from helpers.inference.user_hints import Hint

SMALLEST = 32  # pixels on a side that OpenCV's flow needs
BACK = 500  # frames that a hint travels backward, at most
Flows = dict[int, tuple[np.ndarray, np.ndarray]]  # by a frame's number: to the frame before it, and back


def optical_flow(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the optical flow from a gray frame (H, W) uint8 to another: (H, W, 2), x and y in pixels.

    OpenCV's dense inverse search (Kroeger et al. 2016, arXiv 1603.03590).
    """
    height, width = here.shape
    pad = max(0, SMALLEST - height), max(0, SMALLEST - width)
    here, there = (np.pad(frame, ((0, pad[0]), (0, pad[1])), mode="edge") for frame in (here, there))
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return finder.calc(here, there, None)[:height, :width]


def both_ways(here: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the optical flow from a frame to another, and back."""
    return optical_flow(here, there), optical_flow(there, here)


def warp(maps: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Return maps (H, W) or (H, W, C), float32, sampled where the flow (H, W, 2) points."""
    height, width = flow.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    places = columns + flow[..., 0], rows + flow[..., 1]
    return cv2.remap(maps, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def flow_consistency(flow: np.ndarray, back: np.ndarray) -> np.ndarray:
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


def find_flows(
    grays: Sequence[np.ndarray], cuts: Sequence[int], before: dict[str, np.ndarray] | None, known: Flows | None = None
) -> Flows:
    """Return the flows of consecutive frames, found on all cores, with those known before; see `steady`."""
    earlier, known = [before and before["gray"], *grays], known or {}
    moving = [i for i in range(len(grays)) if i not in {*cuts, *known} and earlier[i] is not None]
    found = workspace.in_parallel(lambda i: both_ways(grays[i], earlier[i]), moving)
    return known | dict(zip(moving, found, strict=True))


def steady(
    grays: Sequence[np.ndarray],
    colors: Sequence[np.ndarray],
    cuts: Sequence[int] = (0,),
    before: dict[str, np.ndarray] | None = None,
    weight: float = 0.9,
    backward: bool = True,
    ahead: int = 0,
    flows: Flows | None = None,
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Return steadied colors of consecutive frames, and "gray" and "ab" of the last one for the next call.

    grays: (h, w) uint8; colors: ab (h, w, 2), float32; cuts: frames that begin a shot; before: "gray" and "ab" of the
    frame before the first. Where the flow can be trusted, a color is mixed from `weight` parts of the previous frame's
    and the rest its own; backward: then again from the next frame's. The last `ahead` frames are used but not returned;
    flows: of `find_flows`.
    """
    flows, made = find_flows(grays, cuts, before) if flows is None else flows, []
    for i, ab in enumerate(colors):
        previous = made[-1] if made else before and before["ab"]
        made.append(blend(ab, previous, *flows[i], weight) if i in flows else ab)
    count = len(made) - ahead
    last = {"gray": grays[count - 1], "ab": made[count - 1]}
    for i in reversed(range(1, len(made))) if backward else ():
        if i in flows:
            made[i - 1] = blend(made[i - 1], made[i], *flows[i][::-1], weight)
    return made[:count], last


def blend(ab: np.ndarray, other: np.ndarray, flow: np.ndarray, back: np.ndarray, weight: float) -> np.ndarray:
    """Return ab (h, w, 2) mixed with another frame's, where the flow to it and back can be trusted."""
    share = weight * flow_consistency(flow, back)[..., None]
    return (1 - share) * ab + share * warp(other, flow)


def propagate_hints(
    frames: Iterable[np.ndarray], starts: dict[int, list[Hint]], cuts: Sequence[int]
) -> dict[int, list[Hint]]:
    """Return the hints of each frame: each follows the flow through its shot, both ways, until it is occluded.

    frames: gray (h, w) uint8; starts: the hints by the number of their frame, in the pixels of these frames.
    """
    traveling, seen, alive = defaultdict(list), deque(maxlen=BACK), []  # seen: the shot so far
    for number, gray in enumerate(frames):
        if number in cuts:
            seen.clear()
        alive = track(alive, seen[-1], gray) if alive and seen else []
        seen.append(gray)
        back = starts.get(number, [])
        alive += back
        for i in range(len(seen) - 1, 0, -1) if back else ():
            if not (back := track(back, seen[i], seen[i - 1])):
                break
            traveling[number - len(seen) + i] += back
        traveling[number] += alive
    return traveling


def track(hints: Sequence[Hint], here: np.ndarray, there: np.ndarray) -> list[Hint]:
    """Return those hints that can be followed to the next frame, gray (h, w) uint8."""
    flows = both_ways(here, there)
    moved = [(follow_point(hint.x, hint.y, *flows), hint.color) for hint in hints]
    return [Hint(*place, color) for place, color in moved if place]


def follow_point(x: float, y: float, flow: np.ndarray, back: np.ndarray) -> tuple[float, float] | None:
    """Return where the flow moves a point; None if it leaves the frame, or does not return to itself."""
    height, width = flow.shape[:2]
    step = flow[min(round(y), height - 1), min(round(x), width - 1)]
    x, y = x + float(step[0]), y + float(step[1])
    inside = 0 <= x <= width - 1 and 0 <= y <= height - 1
    return (x, y) if inside and np.linalg.norm(step + back[round(y), round(x)]) < 1.5 else None
