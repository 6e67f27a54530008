"""`make references-bench`: what a reference photo gives, and whether a wrong one spoils.

On scikit-image's photos and on Kodak24, where KODAK24 names its folder. PHOTOS names a folder of photos of a place, and
FACES one of faces, which are no reference for them.
"""

import numpy as np
import pandas as pd
import torch
from common import as_markdown, kodak, machine, paths_in, photos_of_skimage
from measures import pan, spread_colors
from torch import Tensor

from helpers.data.photos import read_rgb, reduced, to_tensor
from helpers.evaluation.metrics import psnr
from helpers.inference.colorizer import Colorizer
from helpers.inference.suggestions import reference_hints
from helpers.inference.user_hints import hint_maps


def decibels(ours: np.ndarray | Tensor, truth: np.ndarray) -> float:
    """Return the PSNR of two photos, uint8 (H, W, 3)."""
    return psnr(to_tensor(np.asarray(ours)), to_tensor(truth)).item()


def against_automatic(colorizer: Colorizer, photo: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return the PSNR of a photo without and with a reference, and of its hints spread without a network."""
    hints, small = reference_hints(colorizer, photo, reference), reduced(photo, 128)
    row = {"automatic": decibels(colorizer(photo), photo), "reference": decibels(colorizer(photo, [hints]), photo)}
    maps, pixels = hint_maps([hints], small.shape[:2], small.shape[:2]), torch.from_numpy(small).permute(2, 0, 1)[None]
    row["no network"] = decibels(spread_colors(pixels, maps)[0].permute(1, 2, 0), small)
    return row | {"gain": row["reference"] - row["automatic"], "matches": int((hints[0, 2] > 0).sum())}


def main() -> None:
    """Measure, and print tables as Markdown: means, and the worst of each column."""
    colorizer, photos = Colorizer(), photos_of_skimage() + kodak()
    places, faces = ([read_rgb(path) for path in paths_in(name)[:100]] for name in ("PHOTOS", "FACES"))
    films = [pan(photo, 11)[0] for photo in photos]
    pairs = {"the left half for the right": [np.array_split(photo, 2, axis=1)[::-1] for photo in photos]}
    pairs |= {"a frame for the tenth after it, made films": [(film[10], film[0]) for film in films]}
    pairs |= {"a face for a place": list(zip(places, faces, strict=False))}
    tables = {title: [against_automatic(colorizer, *pair) for pair in some] for title, some in pairs.items()}
    print(f"{machine()}; {colorizer}")
    for title, rows in tables.items():
        if rows:
            table = pd.DataFrame(rows).agg(["mean", "min", "max"])
            print(f"\n{title}, {len(rows)} photos\n\n{as_markdown(table, 2)}")


if __name__ == "__main__":
    main()
