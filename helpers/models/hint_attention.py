"""How a generator takes color hints: (N, 3, H, W), ab in [-1, 1] and a weight: 0 for none, 1 for a sure color."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.models.geodesic import detours

CELL = 4  # pixels on a side of the cells in which hints are gathered
EMPTY = -1e4  # attention score of empty hint slots
SURPRISE = 0.4  # distance of a hint from the prediction, in [-1, 1] units, from which it reaches much less far
CAST = 0.2  # corrections up to about this size, in [-1, 1] units, can be a color cast of the whole photo
FARTHER = 10  # times the learned reach in position, where the way is measured around edges
PIXELS = 2**14  # whose scores are in memory at a time
STRICT = 2.5  # how much less far a typical hint reaches, for questions
FEW = 1.5  # this many hints make half of the estimated cast apply
APART = 0.2  # closer hints count as one for the cast; in shares of the shorter side


def squared(vectors: Tensor) -> Tensor:
    """Return the squared lengths of vectors (..., C), as (..., 1)."""
    return vectors.square().sum(-1, keepdim=True)


def cast(corrections: Tensor, share: Tensor) -> Tensor:
    """Estimate the color cast (N, 2) that small corrections have in common, shrunk towards 0 if hints are few.

    corrections: (N, 2, h, w), hint minus prediction in each cell; share: (N, 1, h, w), hinted share of the cell.
    """
    height, width = share.shape[-2:]

    def _near(length):  # (length, length): 1 for rows or columns that are not apart; no pooling, so that it exports
        at = torch.arange(length, device=share.device)
        return ((at[:, None] - at).abs() <= APART / 2 * torch.sym_min(height, width)).float()

    votes = share / (_near(height) @ share @ _near(width)).clamp(min=1e-6)  # (N, 1, h, w)
    small = (-(corrections.square().sum(1, keepdim=True) / CAST**2).square()).exp()  # (N, 1, h, w)
    number = votes.sum((2, 3))  # (N, 1): how many separate hints there are
    return (votes * small * corrections).sum((2, 3)) * number / (number.square() + FEW**2)


def attended(
    query: Tensor, key: Tensor, strict: Tensor, bias: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Return softmax(bias - strict |query - key|^2 + mask) @ value: (N, HW, 5).

    query: (N, HW, C); key: (N, K, C); strict, bias: (N, K, 1); value: (N, K + 1, 5), the last for a score of 0;
    mask: (N, HW, K). The score is a product of two vectors, so that PyTorch's attention kernels apply.
    """
    one = torch.ones_like(query[..., :1])
    query = torch.cat([2 * query, squared(query), one], -1)  # (N, HW, C + 2)
    key = F.pad(torch.cat([strict * key, -strict, bias - strict * squared(key)], -1), (0, 0, 0, 1))
    value = F.pad(value, (0, key.shape[-1] - 5))
    mask = None if mask is None else F.pad(mask, (0, 1))[:, None]
    parts = query[:, None], key[:, None], value[:, None]
    return F.scaled_dot_product_attention(*parts, attn_mask=mask, scale=1.0)[:, 0, :, :5]


class HintAttention(nn.Module):
    """Let every pixel attend to the hints and copy their colors, more from those that are near and look alike.

    Pixel p has a position u_p in a space of its coordinates, its lightness and an embedding of its features. Hint k
    has the score s_pk = beta - (1 + |h_k - ab_k|^2 / t^2) |u_p - u_k|^2, where h_k is its color and ab_k the predicted
    one: a hint far from the prediction concerns one object, so it reaches less far. The weights w_pk are the softmax
    over all hints, each times its own weight, and an empty slot of score 0. The output is
    sum_k w_pk [h_k - ab_k + c (ab_k - ab_p)], between the hint's correction (c = 0) and its color (c = 1), plus the
    weight of the empty slot times the photo's `cast`. beta, c, the reaches and the embedding are learned; t is fixed
    (SURPRISE), because a color loss would raise it too far. This is a joint bilateral filter (Tomasi and Manduchi
    1998) written as attention. Outside training, positions are compared along the photo: a hint reaches FARTHER, but
    not across edges, see `detours`.
    channels: of the feature maps, which may have different sizes.
    """

    def __init__(self, channels: Sequence[int], width: int = 16):
        super().__init__()
        hidden = 2 * width
        self.embed = nn.ModuleList([nn.Conv2d(count, hidden, 1, bias=False) for count in channels])
        self.mix = nn.Conv2d(hidden, width, 1, bias=False)
        for conv in self.embed:
            nn.init.normal_(conv.weight, std=1 / sum(channels) ** 0.5)
        nn.init.normal_(self.mix.weight, std=(2 / hidden) ** 0.5)
        # b, c, and the logarithms of three reaches: in position (of the shorter side), lightness and embedding.
        # Stored divided by 10: Adam moves every number by about the learning rate, and these have further to go
        reaches = [math.log(reach) for reach in (0.15, 0.25, 1.0)]
        self.knobs = nn.Parameter(torch.tensor([5.0, 0.5, *reaches]) / 10)
        self.slots = 0  # K, where an exported graph needs a fixed number; 0: as many as there are hinted cells

    def places(self, features: Sequence[Tensor], L: Tensor) -> Tensor:
        """Return the position u_p of each pixel: (N, width + 3, H, W)."""
        size = L.shape[-2:]
        # fp32, although a Colorizer stores the weights of convolutions in half precision
        maps = [F.conv2d(x.float(), conv.weight.float()) for conv, x in zip(self.embed, features, strict=True)]
        embedding = F.relu(sum(F.interpolate(x, size, mode="bilinear") for x in maps))  # (N, hidden, H, W)
        embedding = F.conv2d(embedding, self.mix.weight.float())  # (N, width, H, W)
        rows, columns = (torch.arange(length, device=L.device) / torch.sym_min(*size) for length in size)
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(L), -1, -1, -1)  # (N, 2, H, W)
        reach, alike, looks = (10 * self.knobs[2:]).exp()
        return torch.cat([embedding / looks, grid / reach, L / alike], 1)

    def around_edges(
        self, L: Tensor, query: Tensor, key: Tensor, strict: Tensor, bias: Tensor, value: Tensor
    ) -> Tensor:
        """Return what `attended` does, (HW, 5), for one photo L (H, W), positions being measured around its edges."""
        reach = (10 * self.knobs[2]).exp()
        longer, source, own = detours(L, key[:, -3:-1] * reach)
        ways = F.interpolate(longer[None], L.shape, mode="bilinear")[0].flatten(1).T  # (HW, S)
        looks, taken = torch.ones_like(key[0]), []
        looks[-3:-1] = 0  # no straight distance
        for part, way in zip(query.split(PIXELS), ways.split(PIXELS), strict=True):
            far = torch.cdist(part[:, -3:-1], key[:, -3:-1]) + (way[:, source] - own).abs() / reach  # (P, K), reaches
            mask = -strict.T * (far / FARTHER).square()
            parts = part * looks, key * looks, strict, bias, value, mask
            taken.append(attended(*(x[None] for x in parts))[0])
        return torch.cat(taken)

    @torch.no_grad()
    def influence(self, features: Sequence[Tensor], L: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return how much a hint in each cell of a grid decides in each cell of it, from 0 to 1: (cells, cells).

        features, L (1, 1, H, W): as in `forward`. Rows of the result are hints; they differ from the prediction as
        hints typically do. Positions are compared straight: with longer ways around edges, places are chosen no better.
        """
        places = F.adaptive_avg_pool2d(self.places(features, L.float()), grid)[0].flatten(1).T  # (cells, width + 3)
        return (10 * self.knobs[0] - STRICT * torch.cdist(places, places).square()).sigmoid()

    @torch.compiler.disable  # the number of hinted cells is only known at run time
    def forward(self, features: Sequence[Tensor], L: Tensor, ab: Tensor, hints: Tensor) -> Tensor:
        """Return what to add to ab (N, 2, H, W), from feature maps, L (N, 1, H, W) and hints (N, 3, H, W)."""
        with torch.autocast(L.device.type, enabled=False):
            ab, hints, places = ab.float(), hints.float(), self.places(features, L.float())
            bias, color = 10 * self.knobs[:2]
            mask = hints[:, 2:]  # (N, 1, H, W)
            share = F.avg_pool2d(mask, CELL)  # (N, 1, h, w)
            cells = torch.cat([places, mask, hints[:, :2] - ab, ab, torch.ones_like(mask)], 1) * mask
            cells = F.avg_pool2d(cells, CELL) / share.clamp(min=1e-6)  # (N, width + 9, h, w): weighted means
            count = self.slots or max(1, int((share > 0).flatten(1).sum(1).max()))  # K, of the fullest photo
            hinted, index = share.flatten(1).topk(count)  # (N, K)
            found = cells.flatten(2).gather(2, index[:, None].expand(-1, cells.shape[1], -1)).mT  # (N, K, width + 9)
            found = torch.where(hinted[..., None] > 0, found, found[:, :1])  # empty slots lie where a hint is
            key, weight, value = found.split((places.shape[1], 1, 5), -1)
            strict = 1 + squared(value[..., :2]) / SURPRISE**2  # (N, K, 1)
            bias = bias + torch.where(hinted[..., None] > 0, weight.clamp(min=1e-6).log(), EMPTY)  # (N, K, 1)
            nothing = F.pad(cast(cells[:, -5:-3], share), (0, 3))  # (N, 5): the value of the empty slot
            value = torch.cat([value, nothing[:, None]], 1)
            parts = places.flatten(2).mT, key, strict, bias, value
            if self.training or self.slots:  # straight: shortest paths would slow each step, and no graph holds them
                taken = attended(*parts)
            else:
                taken = torch.stack([self.around_edges(*one) for one in zip(L[:, 0], *parts, strict=True)])
            correction, own, weight = taken.mT.unflatten(2, ab.shape[-2:]).split((2, 2, 1), 1)
            return correction + color * (own - weight * ab)
