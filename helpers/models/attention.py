"""Attention: every pixel of a feature map attends to all others."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def tokens(x: Tensor) -> Tensor:
    """Return a map (N, C, H, W) as tokens, one per pixel: (N, HW, C)."""
    return x.flatten(2).mT


class SelfAttention2d(nn.Module):
    """Self-attention of SAGAN (Zhang et al. 2019, arXiv 1805.08318); (N, C, H, W) in and out, C a multiple of 8.

    Query and key have C/8 channels, the value C/2. The result is scaled by `gamma` and added to the input; `gamma` is
    learned and starts at 0, so the layer changes nothing at first.
    """

    def __init__(self, channels: int):
        super().__init__()
        conv = partial(nn.Conv2d, kernel_size=1, bias=False)
        self.query, self.key = conv(channels, channels // 8), conv(channels, channels // 8)
        self.value, self.out = conv(channels, channels // 2), conv(channels // 2, channels)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return x + gamma * attention(x)."""
        query, key, value = (tokens(layer(x)) for layer in (self.query, self.key, self.value))  # (N, HW, C/8 or C/2)
        seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # (N, HW, C/2); SAGAN does not scale
        return x + self.gamma * self.out(seen.mT.unflatten(2, x.shape[-2:]))

    def maps(self, x: Tensor) -> Tensor:
        """Return the attention weights (N, 1, HW, HW), each row of sum 1; for figures, as they take much memory."""
        return (tokens(self.query(x)) @ tokens(self.key(x)).mT).softmax(-1)[:, None]
