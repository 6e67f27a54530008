"""The generator: a U-Net on a ResNet encoder."""

import torch
import torch.nn.functional as F
import torchvision
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from helpers.models.attention import SelfAttention2d, vit_bottleneck
from helpers.models.blocks import ResidualBlock, UpBlock, best_weights, binomial, init_weights, pad_to_stride
from helpers.models.hints import HintAttention, hint_conv

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
GRAY_MEAN, GRAY_STD = 0.449, 0.226
PALETTE = (3, 8, 6, 2)  # ab of six common colors for each third of a photo's height and eighth of the lightness


def fold_conv1(conv: nn.Conv2d) -> nn.Conv2d:
    """Fold an RGB convolution and ImageNet's normalization into one that takes a gray channel.

    conv: a convolution (64, 3, k, k) that expects (x - mean) / std per channel. Returns one (64, 1, k, k) with
    a bias that expects (x - 0.449) / 0.226: for a gray photo x in [0, 1] it gives what `conv` gives for x in
    all three channels, except where the zero padding of the border is seen (there nearly).
    """
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    gray = nn.Conv2d(1, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)
    with torch.no_grad():
        gray.weight.copy_((conv.weight * GRAY_STD / std).sum(1, keepdim=True))
        gray.bias.copy_((conv.weight * (GRAY_MEAN - mean) / std).sum((1, 2, 3)))
    return gray


def load_resnet(name: str, weights: str | None) -> nn.Module:
    """Return torchvision's ResNet `name` with `weights`; raises RuntimeError when they cannot be downloaded."""
    resnet, state = torchvision.models.get_model(name, weights=None), best_weights(name, weights, "encoder_weights")
    if state is None:
        return resnet.apply(init_weights)
    resnet.load_state_dict(state)
    return resnet


class Encoder(nn.Module):
    """The convolutional part of a ResNet, fed with lightness (He et al. 2016).

    name: "resnet18" or "resnet34"; weights: a torchvision name such as "IMAGENET1K_V1", None for weights that were
    never trained, or "auto" for trained ones where they can be had; hints: whether it takes color hints too. Takes L
    (N, 1, H, W) in [-1, 1], H and W multiples of 32, and hints (N, 3, H, W) or None; returns five feature maps, from
    (N, 64, H/2, W/2) to (N, 512, H/32, W/32).

    Raises RuntimeError when pretrained weights can neither be found nor downloaded.
    """

    channels = (64, 64, 128, 256, 512)

    def __init__(self, name: str = "resnet18", weights: str | None = "IMAGENET1K_V1", hints: bool = False):
        super().__init__()
        resnet = load_resnet(name, weights)
        self.conv1 = fold_conv1(resnet.conv1)
        self.hint_conv = hint_conv(64) if hints else None
        self.bn1, self.maxpool = resnet.bn1, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4

    def forward(self, L: Tensor, hints: Tensor | None = None) -> list[Tensor]:
        """Return the five feature maps, the largest first."""
        gray = (L + 1) / 2  # L*/100 stands for the gray value that ImageNet's statistics speak of
        x = self.conv1((gray - GRAY_MEAN) / GRAY_STD)
        if hints is not None:
            x = x + self.hint_conv(hints)
        x = F.relu(self.bn1(x), inplace=True)
        features = [x]
        x = self.maxpool(x)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features


def make_bottleneck(kind: str, res_blocks: int, positions: str) -> nn.Sequential:
    """Return what stands between encoder and decoder, (N, 512, H/32, W/32) in and out.

    kind: "residual" (`res_blocks` of them), "attention" (the same and one self-attention), "vit" (six blocks of a
    Vision Transformer; positions: "conv" or "learned", see `Positions`) or "identity" (nothing).
    """
    if kind == "vit":
        return vit_bottleneck(512, positions=positions)
    residual = [ResidualBlock(512) for _ in range(0 if kind == "identity" else res_blocks)]
    return nn.Sequential(*residual, *([SelfAttention2d(512)] if kind == "attention" else []))


class Generator(nn.Module, PyTorchModelHubMixin):
    """Predict chrominance from lightness: ResNet encoder, bottleneck, decoder with skips (U-Net).

    L (N, 1, H, W) in [-1, 1], H and W at least 33, gives ab (N, 2, H, W) in [-1, 1]. Sizes that are no
    multiple of 32 are padded and cropped back. See Ronneberger et al. 2015 and Isola et al. 2017. bottleneck and
    positions: see `make_bottleneck`; attention_at: 16, 8 or 4 puts a self-attention into the decoder, at 1/16, 1/8 or
    1/4 of the size; hints: it takes color hints too, (N, 3, H, W), see `hint_conv`, and carries a
    `palette` of colors to propose. The mixin remembers the constructor's arguments, so that a file of weights can make
    it again.
    """

    def __init__(
        self,
        encoder: str = "resnet18",
        weights: str | None = "IMAGENET1K_V1",
        res_blocks: int = 9,
        bottleneck: str = "residual",
        attention_at: int = 0,
        positions: str = "conv",
        hints: bool = False,
    ):
        super().__init__()
        self.bottleneck = make_bottleneck(bottleneck, res_blocks, positions)
        self.attention_at = attention_at
        self.attention = SelfAttention2d(16 * attention_at) if attention_at else None
        # in, skip, out; small to large
        sizes = ((512, 256, 256), (256, 128, 128), (128, 64, 64), (64, 64, 64), (64, 0, 32))
        self.decoder = nn.ModuleList([UpBlock(*channels) for channels in sizes])
        self.head, self.smooth = nn.Conv2d(32, 2, 3, padding=1), binomial()
        self.apply(init_weights)
        self.look = HintAttention((64, 64, 128, 64, 64, 32)) if hints else None
        if hints:
            self.register_buffer("palette", torch.zeros(PALETTE))
        self.encoder = Encoder(encoder, weights, hints)  # after the initialization, which must not reach it

    def train(self, mode: bool = True) -> "Generator":
        """Switch to training or evaluation; batch normalization whose weights are frozen keeps its statistics too."""
        super().train(mode)
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d) and not norm.weight.requires_grad:
                norm.eval()
        return self

    def forward(self, L: Tensor, hints: Tensor | None = None) -> Tensor:
        """Return the predicted ab; raises ValueError for hints that this generator was not made to take."""
        if hints is not None:
            if self.encoder.hint_conv is None:
                raise ValueError("this generator takes no hints: notebook 07 makes one that does")
            hints = pad_to_stride(hints)
        (height, width), L = L.shape[-2:], pad_to_stride(L)
        *skips, x = self.encoder(L, hints)
        x, maps = self.bottleneck(x), []
        for up, skip, scale in zip(self.decoder, [*reversed(skips), None], (16, 8, 4, 2, 1), strict=True):
            x = up(x, skip)
            if self.attention_at == scale:
                x = self.attention(x)
            maps.append(x)
        ab = torch.tanh(self.smooth(self.head(x)))
        if hints is not None:
            ab = (ab + self.look([*skips[:3], *maps[-3:]], L, ab, hints)).clamp(-1, 1)
            ab = torch.where(hints[:, 2:] > 0, hints[:, :2].to(ab), ab)  # what was said stands
        return ab[..., :height, :width]
