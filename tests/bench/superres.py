"""`make superres-bench`: how good enlarging is, by the networks of notebook 09 and of the box.

On Kodak24 where KODAK24 names its folder, else on scikit-image's photos.
"""

from collections.abc import Callable

import kornia.augmentation as K
import numpy as np
import pandas as pd
import torch
from common import as_markdown, kodak, machine, photos_of_skimage
from measures import compress, detail, smaller
from torch import Tensor, nn

from helpers.color import gray_rgb, rgb_to_L_ab, to_8bit
from helpers.data.photos import to_tensor
from helpers.evaluation import metrics
from helpers.models.srresnet import SRResNet
from helpers.runs import BOX, Run, load_network, runs

BLUR, NOISE = K.RandomGaussianBlur((9, 9), (0.3, 2.0), p=0.7), K.RandomGaussianNoise(std=0.03, p=1.0)


def damaged(gray: Tensor) -> Tensor:
    """Return gray photos (N, 3, H, W) in [0, 1] blurred, saved as JPEG, reduced, noisy and saved once more.

    As in notebook 09; always the same.
    """
    torch.manual_seed(0)
    for spoil in (BLUR, compress, smaller, NOISE, compress):
        gray = spoil(gray[:, :1])
    return gray.expand(-1, 3, -1, -1)


@torch.no_grad()
def score(network: nn.Module, photos: list[np.ndarray], reduce: Callable) -> dict[str, float]:
    """Return the mean scores of a network's enlargements of photos (H, W, 3) that `reduce` has made small."""
    rows = []
    for photo in photos:
        height, width = (length // 4 * 4 for length in photo.shape[:2])
        truth = gray_rgb(rgb_to_L_ab(to_tensor(photo[:height, :width]))[0])
        ours = to_8bit(gray_rgb(network.eval()(rgb_to_L_ab(reduce(truth))[0]).float()))
        rows.append(metrics.quality(ours, truth).iloc[0].to_dict() | {"detail": detail(ours) / detail(truth)})
    return pd.DataFrame(rows).mean().to_dict()


def main() -> None:
    """Measure, and print tables as Markdown."""
    files, photos = {"the box": BOX / "superres.safetensors"}, kodak() or photos_of_skimage()
    for run in [run for run in runs() if run.file("superres").exists()][-1:]:
        files |= {"L1": run.file("superres"), "GAN": run.file("superres_gan")}
        files |= {"trained on damaged ones": Run(f"{run.name} damaged").file("superres")}
    networks = {"bicubic": SRResNet(1)} | {name: load_network(path) for name, path in files.items() if path.exists()}
    print(f"{machine()}\n\n{len(photos)} photos, x4, luma Y; detail: a share of the truth's")
    for title, reduce in (("clean", lambda gray: to_8bit(smaller(gray))), ("damaged", damaged)):
        rows = {name: score(network, photos, reduce) for name, network in networks.items()}
        print(f"\n{title}\n\n{as_markdown(rows)}")


if __name__ == "__main__":
    main()
