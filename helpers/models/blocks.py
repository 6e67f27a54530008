"""Building blocks of the networks: initialization, padding, residual and up blocks, downloaded weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

STRIDE = 32


def init_weights(module: nn.Module) -> None:
    """Draw the weights of a convolution from normal(0, 0.02) and zero its bias, as pix2pix does (Isola et al. 2017).

    A transposed convolution of kernel 4 and stride 2 starts as bilinear interpolation of a random mix of its channels:
    random weights cause a checkerboard that training does not fully remove (Odena et al. 2016).
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


class ReplicationPad2d(nn.ReplicationPad2d):
    """Pad (N, C, H, W) by repeating its edges: PyTorch's layer, with a gradient that torch.compile gets right."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the padded x."""
        # as maps (NC, H, W): of (N, C, H, W) in channels_last, PyTorch 2.14 expects a gradient of another layout
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def pad_to_stride(x: Tensor) -> Tensor:
    """Pad (N, C, H, W) at the right and bottom, repeating the edge, to the next multiple of 32."""
    height, width = x.shape[-2:]
    return ReplicationPad2d((0, -width % STRIDE, 0, -height % STRIDE))(x)


def binomial() -> nn.Sequential:
    """Return a fixed 3x3 filter of weights 1, 2, 1 along rows and columns; (N, C, H, W) in and out, edges repeated.

    It removes the checkerboard of transposed convolutions (Odena et al. 2016, doi 10.23915/distill.00003).
    """
    return nn.Sequential(ReplicationPad2d(1), nn.AvgPool2d(2, stride=1), nn.AvgPool2d(2, stride=1))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to their input; (N, C, H, W) in and out (He et al. 2016).

    norm: whether each is followed by batch normalization.
    """

    def __init__(self, channels: int, norm: bool = True):
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1, bias=not norm) for _ in range(2))
        normed = nn.BatchNorm2d if norm else nn.Identity
        self.body = nn.Sequential(first, normed(channels), nn.ReLU(inplace=True), second, normed(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return x + body(x)."""
        return x + self.body(x)


class UpBlock(nn.Module):
    """Double the resolution by a transposed convolution, concatenate the encoder's features, and mix them.

    (N, inputs, H, W), with a skip (N, skips, 2H, 2W) if skips > 0, gives (N, outputs, 2H, 2W). One 3x3 convolution
    mixes them; the original U-Net has two (Ronneberger et al. 2015, arXiv 1505.04597).
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


@contextmanager
def downloading(weights: str, instead: str) -> Iterator[None]:
    """Turn any error of a `with` block that gets weights into a RuntimeError that says what to do instead."""
    try:
        yield
    except Exception as error:  # every library has errors of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = f"{weights} cannot be downloaded or read ({reason})"
        raise RuntimeError(f"{what}. Connect to the internet, {instead}.") from error


def torchvision_weights(name: str, field: str) -> dict[str, Any]:
    """Return torchvision's ImageNet weights of a network as a state dict; only tensors are unpickled, never code.

    field: the configuration's field that asked for them. Raises RuntimeError when they cannot be had.
    """
    instead = f"delete a damaged file in {torch.hub.get_dir()}/checkpoints, or set {field}=None to go without"
    with downloading(f"ImageNet's weights of {name}", instead):
        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)


def optional(weights: str | None, load: Callable[[], Any], instead: str) -> Any:
    """Return load() for weights="imagenet"; for "auto" print `instead` and return None if that fails; None for None."""
    try:
        return load() if weights else None
    except RuntimeError as error:
        if weights != "auto":
            raise
        print(f"{instead}: {error}")
        return None


def freeze_norms(network: nn.Module) -> None:
    """Freeze the weights of batch normalization, and in a `Generator` its statistics too: see `Generator.train`."""
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.requires_grad_(False)


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
