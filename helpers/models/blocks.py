"""What the networks are built of: initial weights, padding, residual blocks, weights from elsewhere."""

import pickle
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

STRIDE = 32


def init_weights(module: nn.Module) -> None:
    """Draw the weights of a convolution from normal(0, 0.02) and zero its bias, as pix2pix does (Isola et al. 2017).

    A transposed one of kernel 4 and stride 2 starts as bilinear interpolation of a random mix of its channels: drawn at
    random it would begin with a checkerboard, and keep some of it (Odena et al. 2016, doi 10.23915/distill.00003).
    """
    if isinstance(module, nn.ConvTranspose2d):
        tent = torch.tensor([0.25, 0.75, 0.75, 0.25])
        mix = torch.randn(module.in_channels, module.out_channels, 1, 1) / module.in_channels**0.5
        with torch.no_grad():
            module.weight.copy_(mix * tent[:, None] * tent)
    elif isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)


@torch.compiler.disable  # what it compiles to takes the gradient for one of another layout (PyTorch 2.14)
def pad_to_stride(x: Tensor) -> Tensor:
    """Pad (N, C, H, W) at the right and bottom, repeating the edge, to the next multiple of 32."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")


def binomial() -> nn.Sequential:
    """Return a fixed filter on (N, C, H, W) or (C, H, W): neighbors weigh 1, 2, 1 along rows and columns, edges repeat.

    It takes away what alternates from pixel to pixel: the checkerboard of transposed convolutions (Odena et al. 2016).
    """
    return nn.Sequential(nn.ReplicationPad2d(1), nn.AvgPool2d(2, stride=1), nn.AvgPool2d(2, stride=1))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to their input; (N, C, H, W) in and out (He et al. 2016).

    norm: whether each is followed by batch normalization.
    """

    def __init__(self, channels: int, norm: bool = True):
        super().__init__()
        normalization = nn.BatchNorm2d if norm else nn.Identity
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=not norm),
            normalization(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=not norm),
            normalization(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return x + body(x)."""
        return x + self.body(x)


class UpBlock(nn.Module):
    """Double the resolution by a transposed convolution, join the encoder's features of that resolution, mix them.

    (N, inputs, H, W), and the skip (N, skips, 2H, 2W) if any, give (N, outputs, 2H, 2W). The 3x3 convolution after the
    joint is the original U-Net's (Ronneberger et al. 2015, arXiv 1505.04597), which has two of them.
    """

    def __init__(self, inputs: int, skips: int, outputs: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.mix = nn.Conv2d(outputs + skips, outputs, 3, padding=1, bias=False)
        self.mix_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Return x at twice its size, mixed with the skip."""
        x = F.relu(self.norm(self.up(x)), inplace=True)
        x = x if skip is None else torch.cat([x, skip], dim=1)
        return F.relu(self.mix_norm(self.mix(x)), inplace=True)


def answers(url: str, seconds: float = 5.0) -> bool:
    """Say whether a server answers within some seconds; names that nobody resolves count in too."""
    answered = []

    def _ask():
        with suppress(OSError):
            urlopen(Request(url, method="HEAD"), timeout=seconds).close()
            answered.append(True)

    asking = Thread(target=_ask, daemon=True)  # left alone when it takes longer
    asking.start()
    asking.join(seconds)
    return bool(answered)


def best_weights(name: str, weights: str | None, field: str) -> dict[str, Any] | None:
    """Return a state dict as `download_weights`; None for no weights, and for "auto" where they cannot be had."""
    if weights != "auto":
        return weights and download_weights(name, weights, field)
    entry = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    cached = Path(torch.hub.get_dir(), "checkpoints", Path(entry.url).name)
    state, reason = None, "no answer from where they are kept"
    if cached.exists() or answers(entry.url):
        try:
            state = download_weights(name, "IMAGENET1K_V1", field)
        except RuntimeError as error:
            reason = error
    print(f"{name:10} {f'from scratch: no trained weights ({reason})' if state is None else 'trained on ImageNet'}")
    return state


def download_weights(name: str, weights: str, field: str) -> dict[str, Any]:
    """Return a state dict of torchvision's, downloaded once; only tensors are read of the file, never code.

    field: the configuration's field that chose them. Raises RuntimeError, with what to do, when they cannot be had.
    """
    try:
        entry = torchvision.models.get_model_weights(name)[weights]
        return entry.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except KeyError as error:
        raise RuntimeError(f"{field}={weights!r}: {name} has no such weights.") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RuntimeError(
            f"The {weights} weights of {name} cannot be downloaded or read ({reason}). Connect to the network, delete "
            f"what is damaged in {torch.hub.get_dir()}/checkpoints, or set {field}=None to do without trained weights."
        ) from error


def freeze_norms(network: nn.Module) -> None:
    """Let batch normalization keep its weights, and in a `Generator` its statistics: see `Generator.train`."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.requires_grad_(False)


def count_parameters(module: nn.Module) -> int:
    """Return how many numbers a network learns."""
    return sum(parameter.numel() for parameter in module.parameters())
