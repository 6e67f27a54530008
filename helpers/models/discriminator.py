"""The discriminator: a spectrally normalized PatchGAN."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from helpers.models.blocks import init_weights, pad_to_stride


class Discriminator(nn.Module):
    """Score every 70x70 patch of a photo: PatchGAN (Isola et al. 2017), spectrally normalized (Miyato et al. 2018).

    L (N, 1, H, W) and ab (N, 2, H, W) in [-1, 1] give one logit per patch: (N, 1, 30, 30) at 255 or 256 pixels, above 0
    for "real". inputs: the channels of all input maps together; 1 for L alone.
    """

    def __init__(self, inputs: int = 3):
        super().__init__()
        layers = []
        for outputs, stride in ((64, 2), (128, 2), (256, 2), (512, 1)):
            conv = nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4, padding=1))
        self.apply(init_weights)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                spectral_norm(layer)

    def forward(self, *maps: Tensor) -> Tensor:
        """Return the patch scores (N, 1, h, w) of maps of the same size, such as L and ab."""
        x = pad_to_stride(torch.cat(maps, dim=1))  # (N, 3, H, W)
        with parametrize.cached():
            with torch.autocast(x.device.type, enabled=False):  # spectral norm's power iteration needs fp32
                for conv in filter(parametrize.is_parametrized, self.layers):
                    conv.weight  # noqa: B018 - computes and caches it
            return self.layers(x)
