"""`make references-bench`: what a reference photo gives, whether a wrong one spoils, and how several answers differ.

Test photos are those of `make run PROFILE=laptop`; KODAK24 names the folder of Kodak's photos. PHOTOS names a folder of
photos with a class each (PHOTOS.csv beside it: file, class), for references of the same class and of another one.
"""

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import as_markdown, kodak, machine, photos_of_skimage
from measures import pan, spread_colors
from torch import Tensor

from helpers.color import ab_of
from helpers.config import Config
from helpers.data import dataset
from helpers.data.photos import read_rgb, reduced, to_tensor
from helpers.evaluation.metrics import edge_report, psnr
from helpers.inference.colorizer import Colorizer, render
from helpers.inference.suggestions import answers, reference_hints
from helpers.inference.user_hints import hint_maps

PLACES = ("buildings", "forest", "glacier", "mountain", "sea", "street")
PAIRS = 100


def gray_of(photo: np.ndarray) -> np.ndarray:
    """Return a photo's lightness as a photo (H, W, 3)."""
    return render(photo, torch.zeros(2, 2, 2))


def decibels(ours: np.ndarray, truth: np.ndarray) -> float:
    """Return the PSNR of two photos, uint8 (H, W, 3)."""
    return psnr(to_tensor(ours), to_tensor(truth)).item()


def as_image(photo: np.ndarray) -> Tensor:
    """Return a photo (H, W, 3) as (1, 3, H, W), uint8."""
    return torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)[None]


def against_automatic(colorizer: Colorizer, photo: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return the PSNR of a photo without and with a reference, and of its hints spread without a network."""
    hints = reference_hints(colorizer, photo, reference)
    row = {"automatic": decibels(colorizer(photo), photo), "reference": decibels(colorizer(photo, [hints]), photo)}
    small = reduced(photo, 128)
    maps = hint_maps([hints], small.shape[:2], small.shape[:2])
    spread = spread_colors(as_image(small), maps)[0].permute(1, 2, 0).numpy()
    row["no network"] = decibels(spread, small)
    return row | {"gain": row["reference"] - row["automatic"], "matches": int((hints[0, 2] > 0).sum())}


def halves(colorizer: Colorizer, photos: list[np.ndarray]) -> pd.DataFrame:
    """Return a row per photo: its left half is the reference of its right half."""
    middle = [photo.shape[1] // 2 for photo in photos]
    pairs = zip(photos, middle, strict=True)
    return pd.DataFrame([against_automatic(colorizer, photo[:, at:], photo[:, :at]) for photo, at in pairs])


def frames(colorizer: Colorizer, photos: list[np.ndarray]) -> pd.DataFrame:
    """Return a row per made film: its first frame is the reference of the one ten frames later."""
    films = [pan(photo, 11)[0] for photo in photos]
    return pd.DataFrame([against_automatic(colorizer, film[10], film[0]) for film in films])


def histogram(photo: np.ndarray) -> np.ndarray:
    """Return how often each square of 10 CIE units of ab occurs in a photo: (676,)."""
    a, b = ab_of(as_image(photo))[0].flatten(1).numpy()
    counts = np.histogram2d(a, b, bins=26, range=[[-130, 130], [-130, 130]])[0]
    return counts.ravel() / counts.sum()


def same_class(colorizer: Colorizer, photos: list[np.ndarray], others: list[np.ndarray]) -> pd.DataFrame:
    """Return a row per photo: distance of its colors to those of a reference, and color contrast across true edges."""
    rows = []
    for photo, reference in zip(photos, others, strict=True):
        plain = colorizer(photo)
        followed = colorizer(photo, [reference_hints(colorizer, photo, reference)])
        wanted, row = histogram(reference), {}
        for name, result in {"automatic": plain, "reference": followed}.items():
            row[f"distance, {name}"] = np.abs(histogram(result) - wanted).sum() / 2
            row[f"edge contrast, {name}"] = edge_report(as_image(result), as_image(photo))["edge contrast kept"].item()
        rows.append(row)
    return pd.DataFrame(rows)


def several(colorizer: Colorizer, photos: list[np.ndarray]) -> pd.DataFrame:
    """Return a row per photo: how many answers, how far the worst lies below gray, and seconds for all of them."""
    rows = []
    for photo in photos:
        began = time.perf_counter()
        found = [colorizer(photo, hints) for hints in answers(colorizer, photo)]
        seconds = time.perf_counter() - began
        over = [decibels(each, photo) - decibels(gray_of(photo), photo) for each in found]
        rows.append({"answers": len(found), "worst over gray": min(over), "seconds for each": seconds / len(found)})
    return pd.DataFrame(rows)


def by_class() -> dict[str, list[np.ndarray]]:
    """Return photos by class, of the folder PHOTOS; empty without it."""
    if not (folder := os.environ.get("PHOTOS")):
        return {}
    table = pd.read_csv(Path(folder).with_suffix(".csv")).sample(frac=1, random_state=0)
    chosen = {name: table[table["class"] == name] for name in PLACES}
    chosen["faces"] = table[table["file"].str.startswith(("lfw/", "portraits/"))]
    each = 2 * PAIRS // len(PLACES) + 2
    return {name: [read_rgb(Path(folder) / file) for file in rows["file"][:each]] for name, rows in chosen.items()}


def summary(table: pd.DataFrame, title: str) -> None:
    """Print means, and the worst of each column."""
    print(f"\n{title}, {len(table)} photos\n\n{as_markdown(table.agg(['mean', 'min', 'max']), 2)}", flush=True)


def main() -> None:
    """Measure, and print tables as Markdown."""
    colorizer = Colorizer()
    print(f"{machine()}; {colorizer}")
    tests = [photo.permute(1, 2, 0).numpy() for photo in dataset.prepare(Config.from_profile()).load("test")]
    summary(halves(colorizer, tests), "The left half as the reference of the right: local landscapes")
    if scans := kodak():
        summary(halves(colorizer, scans), "... Kodak24")
    summary(
        frames(colorizer, photos_of_skimage() + scans), "A frame as the reference of the tenth after it, made films"
    )
    if classes := by_class():
        first = [photo for name in PLACES for photo in classes[name][::2]][:PAIRS]
        second = [photo for name in PLACES for photo in classes[name][1::2]][:PAIRS]
        summary(same_class(colorizer, first, second), "A photo of the same class")
        faces = [classes["faces"][i % len(classes["faces"])] for i in range(len(first))]
        pairs = zip(first, faces, strict=True)
        summary(pd.DataFrame([against_automatic(colorizer, *pair) for pair in pairs]), "A face, for a place")
    summary(several(colorizer, scans or photos_of_skimage()), "Several answers")


if __name__ == "__main__":
    main()
