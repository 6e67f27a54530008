"""`make video-bench`: how steady films come out.

On made films over scikit-image's photos (and Kodak24, where KODAK24 names its folder), with the most recent colorizer;
on real films too, with estimated flow, where FILMS names a folder of some.
"""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import films
import numpy as np
import pandas as pd
import torch
from common import as_markdown, kodak, machine, paths_in, photos_of_skimage
from measures import color_change, pan, warping_error

from helpers.apps.film_job import predict_frames
from helpers.apps.film_reader import Film
from helpers.apps.optical_flow import flow_consistency, optical_flow, steady
from helpers.data.photos import to_tensor
from helpers.evaluation.metrics import psnr
from helpers.inference.colorizer import Colorizer, render

MOVES = ({}, {"shift": (-1.5, 1), "zoom": -0.002, "turn": 0.4}, {"shift": (3, 0), "zoom": 0.004}, {"zoom": 0.006})


def row(pictures: Sequence, frames: Sequence, colors: Sequence, flows: Sequence, masks: Sequence) -> dict[str, float]:
    """Return the scores of the colors, ab (h, w, 2), of a film's frames."""
    chroma = np.mean([np.linalg.norm(ab, axis=2).mean() for ab in colors])
    pairs = zip(pictures[::6], colors[::6], strict=True)
    drawn = [render(rgb, torch.from_numpy(ab).permute(2, 0, 1)) for rgb, ab in pairs]
    off = [psnr(to_tensor(a), to_tensor(b)).item() for a, b in zip(drawn, frames[::6], strict=True)]
    scores = {"warping error, 1e-4": 1e4 * warping_error(colors, flows, masks), "CDC, 1e-4": 1e4 * color_change(colors)}
    return scores | {"chroma": 128 * chroma, "PSNR": float(np.mean(off))}


def score(colorizer: Colorizer, frames: list[np.ndarray], flows: list[np.ndarray] | None = None) -> pd.DataFrame:
    """Return a row for gray, truth, frame by frame and steady; flows: the film's own, estimated without them."""
    pictures, grays, colors = predict_frames(colorizer, frames, colorizer.options(), [[] for _ in frames])
    size = frames[0].shape[1::-1]
    truth = [films.ab_of(rgb) for rgb in frames]
    masks = [np.ones(size[::-1], np.float32)] * (len(frames) - 1)
    if flows is None:
        full = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in frames]
        both = [(optical_flow(now, before), optical_flow(before, now)) for before, now in pairwise(full)]
        flows, masks = [flow for flow, _ in both], [flow_consistency(*pair) for pair in both]
    ways = {"gray": [0 * ab for ab in truth], "truth": truth, "frame by frame": colors}
    ways |= {"steady, forward": steady(grays, colors, backward=False)[0], "steady, both ways": steady(grays, colors)[0]}
    whole = {name: [cv2.resize(ab, size) for ab in some] for name, some in ways.items()}
    return pd.DataFrame({name: row(pictures, frames, some, flows, masks) for name, some in whole.items()}).T


def main() -> None:
    """Measure, and print tables as Markdown."""
    colorizer, photos = Colorizer(), photos_of_skimage() + kodak()
    tables = [score(colorizer, *pan(photo, 48, **MOVES[i % 4])) for i, photo in enumerate(photos[:12])]
    title = f"{len(tables)} made films of 48 frames, their true motion"
    print(f"{machine()}; {colorizer}\n\n{title}\n\n{as_markdown(sum(tables) / len(tables))}")
    for path in paths_in("FILMS"):
        shot = [rgb for _, rgb in Film(path).frames()][:30]
        print(f"\n{path.name}, its first 30 frames, estimated motion\n\n{as_markdown(score(colorizer, shot))}")


if __name__ == "__main__":
    main()
