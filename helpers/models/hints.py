"""How a generator takes color hints: (N, 3, H, W), ab in [-1, 1] where a color was said, 0 elsewhere, and a mask."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 4  # pixels on a side of the cells in which hints are gathered
NEVER = -1e4  # the likeness of a hint that is not there
SURPRISE = 0.3  # how far a hint may be from the prediction, of 128 CIE units, before it reaches much less far
CAST = 0.2  # corrections up to about here, of 128 CIE units, can be a cast of the whole photo
FEW = 3  # so many hints, each at a place of its own, say half of what many would of a cast
APART = 0.2  # of the shorter side: hints that are closer share one voice about it


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


def cast(corrections: Tensor, share: Tensor) -> Tensor:
    """Return the color cast that small corrections have in common, shrunk towards 0 where hints are few: (N, 2).

    corrections: (N, 2, h, w), h_k - ab_k in each cell; share: (N, 1, h, w), of the cell's pixels that are hinted.
    """
    side = int(APART * min(share.shape[-2:])) // 2 * 2 + 1
    voice = share / F.avg_pool2d(share, side, 1, side // 2, divisor_override=1).clamp(min=1e-6)
    small = (-(corrections.square().sum(1, keepdim=True) / CAST**2).square()).exp()
    number = voice.sum((2, 3))
    return (voice * small * corrections).sum((2, 3)) * number / (number.square() + FEW**2)


class HintAttention(nn.Module):
    """Let every pixel look at the hints, and take over what they say, the more the nearer and the more alike.

    Pixel p has a place u_p: its position and lightness, and an embedding of its features by a perceptron with one
    hidden layer. Hint k weighs w_pk = exp(s_pk) over the sum of all and 1, which stands for no hint at all, with
    s_pk = b - (1 + |h_k - ab_k|^2 / t^2) |u_p - u_k|^2: a hint h_k far from the color ab_k that was predicted there is
    about one thing, and reaches less far. To ab_p is added sum_k w_pk [h_k - ab_k + c (ab_k - ab_p)], between the
    hint's correction (c = 0) and its color (c = 1), and the share of no hint at all times the photo's `cast`. b, c, the
    reaches and the embedding are learned; t is not (it is SURPRISE), for a color loss would let hints reach too far.
    A joint bilateral filter (Tomasi and Manduchi 1998), as attention.
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
        # b, c, and logarithms of the reach in position (of the shorter side), in L and in the embedding; a tenth of
        # them, for Adam moves all numbers by about the learning rate, and these have a longer way to go than weights
        reaches = [math.log(reach) for reach in (0.15, 0.25, 1.0)]
        self.knobs = nn.Parameter(torch.tensor([5.0, 0.5, *reaches]) / 10)

    def places(self, features: Sequence[Tensor], L: Tensor) -> Tensor:
        """Return where each pixel lies in the space that likeness is measured in: (N, width + 3, H, W)."""
        size = L.shape[-2:]
        # in fp32, though a colorizer keeps the weights of convolutions in half precision
        maps = [F.conv2d(x.float(), conv.weight.float()) for conv, x in zip(self.embed, features, strict=True)]
        embedding = F.relu(sum(F.interpolate(x, size, mode="bilinear") for x in maps))
        embedding = F.conv2d(embedding, self.mix.weight.float())
        rows, columns = (torch.arange(length, device=L.device) / min(size) for length in size)
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(L), -1, -1, -1)
        reach, alike, looks = (10 * self.knobs[2:]).exp()
        return torch.cat([embedding / looks, grid / reach, L / alike], 1)

    @torch.compiler.disable  # how many cells hold hints is known at run time alone
    def forward(self, features: Sequence[Tensor], L: Tensor, ab: Tensor, hints: Tensor) -> Tensor:
        """Return what to add to ab (N, 2, H, W), from feature maps, L (N, 1, H, W) and hints (N, 3, H, W)."""
        with torch.autocast(L.device.type, enabled=False):
            ab, hints, places = ab.float(), hints.float(), self.places(features, L.float())
            bias, color = 10 * self.knobs[:2]
            mask = hints[:, 2:]
            share = F.avg_pool2d(mask, CELL)
            gathered = torch.cat([places, hints[:, :2] - ab, ab, mask], 1) * mask
            gathered = F.avg_pool2d(gathered, CELL) / share.clamp(min=1e-6)
            count = max(1, int((share > 0).flatten(1).sum(1).max()))
            there, cells = share.flatten(1).topk(count)
            found = gathered.flatten(2).mT.take_along_dim(cells[..., None], 1)  # (N, count, width + 8)
            key, value = found[..., :-5], found[..., -5:]
            # s_pk as a product of two vectors, so that attention's own kernels do the work; the last key is no hint
            query, one = places.flatten(2).mT, torch.ones_like
            query = torch.cat([2 * query, squared(query), one(query[..., :1])], -1)
            strict = 1 + squared(value[..., :2]) / SURPRISE**2
            absent = NEVER * (there[..., None] == 0)
            key = F.pad(torch.cat([strict * key, -strict, bias + absent - strict * squared(key)], -1), (0, 0, 0, 1))
            nothing = F.pad(cast(gathered[:, -5:-3], share), (0, 3))  # what a pixel gets that looks at no hint
            value = F.pad(torch.cat([value, nothing[:, None]], 1), (0, key.shape[-1] - 5))
            taken = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=1.0)[:, 0]
            correction, own, weight = taken[..., :5].mT.unflatten(2, ab.shape[-2:]).split((2, 2, 1), 1)
            return correction + color * (own - weight * ab)
