"""Attention: every pixel of a feature map attends to all others."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def tokens(x: Tensor) -> Tensor:
    """Return a map (N, C, H, W) as tokens, one per pixel: (N, HW, C)."""
    return x.flatten(2).mT


def attention_maps(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Return the attention weights softmax(scale query key^T), (..., HW, HW): each row sums to 1.

    For figures only, because it takes (HW)^2 memory; `scaled_dot_product_attention` never stores them.
    """
    return (scale * query @ key.mT).softmax(-1)


class SelfAttention2d(nn.Module):
    """Self-attention of SAGAN (Zhang et al. 2019, arXiv 1805.08318); (N, C, H, W) in and out.

    Query and key have C/8 channels, the value C/2. The result is scaled by `gamma` and added to the input; `gamma` is
    learned and starts at 0, so the layer changes nothing at first. spectral: normalize its convolutions spectrally.
    """

    def __init__(self, channels: int, spectral: bool = False):
        super().__init__()

        def _conv(inputs, outputs):
            conv = nn.Conv2d(inputs, outputs, 1, bias=False)
            return spectral_norm(conv) if spectral else conv

        self.query, self.key = _conv(channels, channels // 8), _conv(channels, channels // 8)
        self.value, self.out = _conv(channels, channels // 2), _conv(channels // 2, channels)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return x + gamma * attention(x)."""
        query, key, value = (tokens(layer(x)) for layer in (self.query, self.key, self.value))  # (N, HW, C/8 or C/2)
        seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # (N, HW, C/2); SAGAN does not scale
        return x + self.gamma * self.out(seen.mT.unflatten(2, x.shape[-2:]))

    def maps(self, x: Tensor) -> Tensor:
        """Return the attention weights, (N, 1, HW, HW)."""
        return attention_maps(tokens(self.query(x)), tokens(self.key(x)), 1.0)[:, None]


class ViTBlock(nn.Module):
    """Multi-head attention, then a perceptron per pixel, each normalized before and added to its input.

    (N, C, H, W) in and out; see Vaswani et al. 2017 (arXiv 1706.03762) and Dosovitskiy et al. 2021 (arXiv 2010.11929).
    """

    def __init__(self, channels: int, heads: int = 8):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def _query_key_value(self, x: Tensor) -> list[Tensor]:
        """Return three tensors (N, heads, HW, C / heads) of tokens (N, HW, C)."""
        return [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm1(x)).chunk(3, 2)]

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus attention, plus the perceptron's output."""
        size, x = x.shape[-2:], tokens(x)  # (N, HW, C)
        seen = F.scaled_dot_product_attention(*self._query_key_value(x))  # (N, heads, HW, C / heads)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        x = x + self.mlp(self.norm2(x))
        return x.mT.unflatten(2, size)

    def maps(self, x: Tensor) -> Tensor:
        """Return the attention weights, (N, heads, HW, HW)."""
        query, key, _ = self._query_key_value(tokens(x))
        return attention_maps(query, key, query.shape[-1] ** -0.5)


class Positions(nn.Module):
    """Positional encoding of a map (N, C, H, W) of any size.

    kind "conv": add a depthwise 3x3 convolution, whose zero padding reveals the border (CPVT, Chu et al. 2021, arXiv
    2102.10882); "learned": add a learned 8x8 map, interpolated.
    """

    def __init__(self, channels: int, kind: str = "conv"):
        super().__init__()
        learned = kind == "learned"
        self.table = nn.Parameter(0.02 * torch.randn(1, channels, 8, 8)) if learned else None
        self.conv = None if learned else nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with its positions added."""
        if self.table is None:
            return x + self.conv(x)
        return x + F.interpolate(self.table, size=x.shape[-2:], mode="bicubic").to(x.dtype)


def vit_bottleneck(channels: int = 512, depth: int = 6, heads: int = 8, positions: str = "conv") -> nn.Sequential:
    """Return positions and Vision Transformer blocks as a bottleneck, (N, C, H, W) in and out."""
    return nn.Sequential(Positions(channels, positions), *[ViTBlock(channels, heads) for _ in range(depth)])
