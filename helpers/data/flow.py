"""Optical flow: where each pixel of a frame was in another one, where that can be trusted, and how to follow it."""

import cv2
import numpy as np

SMALLEST = 32  # pixels on a side that the flow of OpenCV needs


def motion(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return for each pixel of one gray frame (H, W) uint8 how far it lies in another: (H, W, 2), x and y in pixels.

    Dense inverse search (Kroeger et al. 2016, arXiv 1603.03590), as OpenCV has it.
    """
    height, width = here.shape
    pad = max(0, SMALLEST - height), max(0, SMALLEST - width)
    here, there = (np.pad(frame, ((0, pad[0]), (0, pad[1])), mode="edge") for frame in (here, there))
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return finder.calc(here, there, None)[:height, :width]


def warp(maps: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Fetch each pixel from where the flow (H, W, 2) points in maps (H, W) or (H, W, C), float32; same shape."""
    height, width = flow.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    places = columns + flow[..., 0], rows + flow[..., 1]
    return cv2.remap(maps, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def trusted(flow: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Return where (H, W) a flow can be trusted, given the flow the other way: 1 there, 0 elsewhere, float32.

    A pixel that does not come back to itself is occluded, where the flow changes fast is a border of motion, and what
    comes from outside the frame is unknown (Ruder et al. 2016, arXiv 1604.08610; Lai et al. 2018, arXiv 1808.00449).
    """
    returned, length = warp(back, flow), np.square(flow).sum(2)
    occluded = np.square(flow + returned).sum(2) > 0.01 * (length + np.square(returned).sum(2)) + 0.5
    slope = sum(np.square(np.gradient(flow[..., i], axis=j)) for i in (0, 1) for j in (0, 1))
    border = slope > 0.01 * length + 0.002
    height, width = flow.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    outside = (x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5)
    return (~(occluded | border | outside)).astype(np.float32)
