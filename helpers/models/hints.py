"""How a generator takes color hints: (N, 3, H, W), ab in [-1, 1] where a color was said, 0 elsewhere, and a mask."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 4  # pixels on a side of the cells in which hints are gathered
NEVER = -1e4  # the likeness of a hint that is not there


def hint_conv(channels: int) -> nn.Conv2d:
    """Return the first convolution of hints, to be added to that of lightness (Zhang et al. 2017, arXiv 1705.02999).

    Its weights start at zero: what it is added to is at first as it was.
    """
    conv = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
    nn.init.zeros_(conv.weight)
    return conv


def squared(vectors: Tensor) -> Tensor:
    """Return the squared lengths of vectors (..., C), as (..., 1)."""
    return vectors.square().sum(-1, keepdim=True)


class HintAttention(nn.Module):
    """Let every pixel look at the hints, and take over what they correct, the more the nearer and the more alike.

    Pixel p has a place u_p: its position and lightness, and an embedding of its features by a small perceptron (all
    1x1 convolutions before the sum, a ReLU, one after it). Hint k weighs exp(s_pk)
    against 1, which stands for no hint at all, with s_pk = b - |u_p - u_k|^2; how far it reaches in position and
    lightness is learned, b and the embedding too. A joint bilateral filter (Tomasi and Manduchi 1998), as attention.
    channels: of the feature maps, which may be of several sizes.
    """

    def __init__(self, channels: Sequence[int], width: int = 16):
        super().__init__()
        hidden = 2 * width
        self.embed = nn.ModuleList([nn.Conv2d(count, hidden, 1, bias=False) for count in channels])
        self.mix = nn.Conv2d(hidden, width, 1, bias=False)
        for conv in self.embed:
            nn.init.normal_(conv.weight, std=1 / sum(channels) ** 0.5)
        nn.init.normal_(self.mix.weight, std=(2 / hidden) ** 0.5)
        # b, and logarithms of the reach in position (of the shorter side), in L and in the embedding; a tenth of them,
        # for Adam moves all numbers by about the learning rate, and these have a longer way to go than weights
        self.knobs = nn.Parameter(torch.tensor([5.0, math.log(0.15), math.log(0.25), math.log(1.0)]) / 10)

    def places(self, features: Sequence[Tensor], L: Tensor) -> Tensor:
        """Return where each pixel lies in the space that likeness is measured in: (N, width + 3, H, W)."""
        size = L.shape[-2:]
        # in fp32, though a colorizer keeps the weights of convolutions in half precision
        maps = [F.conv2d(x.float(), conv.weight.float()) for conv, x in zip(self.embed, features, strict=True)]
        embedding = F.relu(sum(F.interpolate(x, size, mode="bilinear") for x in maps))
        embedding = F.conv2d(embedding, self.mix.weight.float())
        rows, columns = (torch.arange(length, device=L.device) / min(size) for length in size)
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(L), -1, -1, -1)
        reach, alike, looks = (10 * self.knobs[1:]).exp()
        return torch.cat([embedding / looks, grid / reach, L / alike], 1)

    @torch.compiler.disable  # how many cells hold hints is known at run time alone
    def forward(self, features: Sequence[Tensor], L: Tensor, ab: Tensor, hints: Tensor) -> Tensor:
        """Return what to add to ab (N, 2, H, W), from feature maps, L (N, 1, H, W) and hints (N, 3, H, W)."""
        with torch.autocast(L.device.type, enabled=False):
            ab, hints, places = ab.float(), hints.float(), self.places(features, L.float())
            mask = hints[:, 2:]
            share = F.avg_pool2d(mask, CELL)
            gathered = F.avg_pool2d(torch.cat([places, hints[:, :2] - ab], 1) * mask, CELL) / share.clamp(min=1e-6)
            count = max(1, int((share > 0).flatten(1).sum(1).max()))
            there, cells = share.flatten(1).topk(count)
            found = gathered.flatten(2).mT.take_along_dim(cells[..., None], 1)  # (N, count, width + 4)
            key, value = found[..., :-2], found[..., -2:]
            # s_pk as a product of two vectors, so that attention's own kernels do the work; the last key is no hint
            query, one = places.flatten(2).mT, torch.ones_like
            query = torch.cat([2 * query, 10 * self.knobs[0] - squared(query), one(query[..., :1])], -1)
            absent = NEVER * (there[..., None] == 0)
            key = F.pad(torch.cat([key, one(key[..., :1]), absent - squared(key)], -1), (0, 0, 0, 1))
            value = F.pad(value, (0, key.shape[-1] - 2, 0, 1))
            taken = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)[:, 0]
            return taken[..., :2].mT.unflatten(2, ab.shape[-2:])
