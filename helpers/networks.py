"""The generator (a U-Net on a ResNet encoder) and the discriminator (a spectrally normalised PatchGAN)."""

import pickle

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
GREY_MEAN, GREY_STD = 0.449, 0.226
STRIDE = 32


def init_weights(module):
    """Draw the weights of a convolution from normal(0, 0.02) and zero its bias, as pix2pix does (Isola et al. 2017)."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.compiler.disable  # what it compiles to takes the gradient for one of another layout (PyTorch 2.14)
def pad_to_stride(x):
    """Pad (N, C, H, W) at the right and bottom, repeating the edge, to the next multiple of 32."""
    height, width = x.shape[-2:]
    return F.pad(x, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")


def fold_conv1(conv):
    """Fold an RGB convolution and ImageNet's normalisation into one that takes a grey channel.

    conv: a convolution (64, 3, k, k) that expects (x - mean) / std per channel. Returns one (64, 1, k, k) with
    a bias that expects (x - 0.449) / 0.226: for a grey photo x in [0, 1] it gives what `conv` gives for x in
    all three channels, except where the zero padding of the border is seen (there nearly).
    """
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    grey = nn.Conv2d(1, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)
    with torch.no_grad():
        grey.weight.copy_((conv.weight * GREY_STD / std).sum(1, keepdim=True))
        grey.bias.copy_((conv.weight * (GREY_MEAN - mean) / std).sum((1, 2, 3)))
    return grey


class Encoder(nn.Module):
    """The convolutional part of a ResNet, fed with lightness (He et al. 2016).

    name: "resnet18" or "resnet34"; weights: a torchvision name such as "IMAGENET1K_V1", or None for weights
    that were never trained. Takes L (N, 1, H, W) in [-1, 1], H and W multiples of 32; returns five feature
    maps, from (N, 64, H/2, W/2) to (N, 512, H/32, W/32).

    Raises RuntimeError when pretrained weights can neither be found nor downloaded.
    """

    channels = (64, 64, 128, 256, 512)

    def __init__(self, name="resnet18", weights="IMAGENET1K_V1"):
        super().__init__()
        resnet = load_resnet(name, weights)
        if weights is None:
            resnet.apply(init_weights)
        self.conv1 = fold_conv1(resnet.conv1)
        self.bn1, self.maxpool = resnet.bn1, resnet.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4

    def forward(self, L):
        grey = (L + 1) / 2  # L*/100 stands for the grey value that ImageNet's statistics speak of
        x = F.relu(self.bn1(self.conv1((grey - GREY_MEAN) / GREY_STD)), inplace=True)
        features = [x]
        x = self.maxpool(x)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features


def load_resnet(name, weights):
    """Return torchvision's ResNet `name` with `weights`; raises RuntimeError when they cannot be downloaded."""
    resnet = torchvision.models.get_model(name, weights=None)
    if weights is not None:
        resnet.load_state_dict(download_weights(name, weights, "encoder_weights"))
    return resnet


def download_weights(name, weights, field):
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


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to their input; (N, C, H, W) in and out (He et al. 2016)."""

    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x):
        return x + self.body(x)


class UpBlock(nn.Module):
    """Double the resolution by a transposed convolution, then join the encoder's features of that resolution.

    (N, inputs, H, W), and the skip (N, skips, 2H, 2W) if any, give (N, outputs + skips, 2H, 2W).
    """

    def __init__(self, inputs, outputs):
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x, skip=None):
        x = F.relu(self.norm(self.up(x)), inplace=True)
        return x if skip is None else torch.cat([x, skip], dim=1)


class Generator(nn.Module):
    """Predict chrominance from lightness: ResNet encoder, residual bottleneck, decoder with skips (U-Net).

    L (N, 1, H, W) in [-1, 1], H and W at least 33, gives ab (N, 2, H, W) in [-1, 1]. Sizes that are no
    multiple of 32 are padded and cropped back. See Ronneberger et al. 2015 and Isola et al. 2017.
    """

    def __init__(self, encoder="resnet18", weights="IMAGENET1K_V1", res_blocks=9):
        super().__init__()
        self.architecture = {"encoder": encoder, "res_blocks": res_blocks}
        self.bottleneck = nn.Sequential(*[ResidualBlock(512) for _ in range(res_blocks)])
        self.decoder = nn.ModuleList(
            [UpBlock(512, 256), UpBlock(512, 128), UpBlock(256, 64), UpBlock(128, 64), UpBlock(128, 64)]
        )
        self.head = nn.Conv2d(64, 2, 3, padding=1)
        self.apply(init_weights)
        self.encoder = Encoder(encoder, weights)  # after the initialisation, which must not reach it

    def forward(self, L):
        height, width = L.shape[-2:]
        *skips, x = self.encoder(pad_to_stride(L))
        x = self.bottleneck(x)
        for up, skip in zip(self.decoder, [*reversed(skips), None], strict=True):
            x = up(x, skip)
        return torch.tanh(self.head(x))[..., :height, :width]


class Discriminator(nn.Module):
    """Judge every 70x70 patch of a photo: PatchGAN (Isola et al. 2017), spectrally normalised (Miyato et al. 2018).

    L (N, 1, H, W) and ab (N, 2, H, W) in [-1, 1] give logits, one for each patch: (N, 1, 30, 30) at 255 or 256
    pixels. Above 0 means "real".
    """

    def __init__(self):
        super().__init__()
        layers, inputs = [], 3
        for outputs, stride in ((64, 2), (128, 2), (256, 2), (512, 1)):
            conv = nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4, padding=1))
        self.apply(init_weights)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                spectral_norm(layer)

    def forward(self, L, ab):
        return self.layers(pad_to_stride(torch.cat([L, ab], dim=1)))


def count_parameters(module):
    """Return how many numbers a network learns."""
    return sum(parameter.numel() for parameter in module.parameters())
