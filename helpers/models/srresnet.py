"""Super-resolution: a residual network that makes lightness four times as large."""

import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from helpers.models.blocks import ResidualBlock

CONTEXT = 4  # receptive field, in pixels to each side, of all convolutions outside the residual blocks


def bicubic(x: Tensor, scale: float) -> Tensor:
    """Resize (N, C, H, W) by bicubic interpolation, antialiased as in Pillow."""
    return F.interpolate(x, scale_factor=scale, mode="bicubic", antialias=True)


class Shuffle(nn.Sequential):
    """Double the size of (N, C, H, W): four times the channels by a 3x3 convolution, then a pixel shuffle.

    The four kernels of each 2x2 square start equal, which avoids a checkerboard (ICNR, Aitken et al. 2017, arXiv
    1707.02937).
    """

    def __init__(self, channels: int):
        conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)
        conv.weight.data = conv.weight.data[::4].repeat_interleave(4, 0)
        conv.bias.data = conv.bias.data[::4].repeat_interleave(4)
        super().__init__(conv, nn.PixelShuffle(2), nn.ReLU(inplace=True))


class SRResNet(nn.Module, PyTorchModelHubMixin):
    """Enlarge lightness four times: SRResNet (Ledig et al. 2017, arXiv 1609.04802) without batch normalization.

    L (N, C, H, W) in [-1, 1] gives (N, C, 4H, 4W) in about the same range: the bicubic enlargement plus a learned
    residual. The last convolution starts at zero, so an untrained network is bicubic. maps: C, 1 for L alone. Without
    batch normalization, which blurs and leaves artifacts (EDSR, Lim et al. 2017, arXiv 1707.02921).
    """

    scale = 4

    def __init__(self, blocks: int = 16, channels: int = 64, maps: int = 1):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(maps, channels, 3, padding=1), nn.ReLU(inplace=True))
        residual = [ResidualBlock(channels, norm=False) for _ in range(blocks)]
        self.body = nn.Sequential(*residual, nn.Conv2d(channels, channels, 3, padding=1))
        self.up = nn.Sequential(Shuffle(channels), Shuffle(channels))
        self.last = nn.Conv2d(channels, maps, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.context = 2 * blocks + CONTEXT  # receptive field, in pixels of L to each side

    def forward(self, L: Tensor) -> Tensor:
        """Return the enlarged L."""
        x = self.first(L)
        return bicubic(L, self.scale) + self.last(self.up(x + self.body(x)))
