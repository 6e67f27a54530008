"""How good an enlargement is: PSNR and SSIM of luma Y, and how much fine detail it has."""

import numpy as np
import pandas as pd
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

BORDER = 4  # pixels on each side that are left out, as is usual at a scale of 4


def luma(rgb: Tensor) -> Tensor:
    """Return Y of photos (N, 3, H, W) in [0, 1], rounded to 8 bits: (N, H, W) from 16 to 235 (ITU-R BT.601)."""
    weights = rgb.new_tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)
    return (16 + (weights * (rgb.clamp(0, 1) * 255).round() / 255).sum(1)).round()


def quality(rgb: Tensor, truth: Tensor) -> pd.DataFrame:
    """Return PSNR (dB) and SSIM of Y, a row a photo, without `BORDER`; both (N, 3, H, W) in [0, 1]."""
    inner = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    ours, theirs = (luma(photos)[inner].double().cpu().numpy() for photos in (rgb, truth))
    error = np.square(ours - theirs).mean((1, 2)).clip(1e-4)
    # the window of Wang et al. 2004, which the published numbers have
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    similar = [structural_similarity(a, b, **window) for a, b in zip(ours, theirs, strict=True)]
    return pd.DataFrame({"PSNR": 10 * np.log10(255**2 / error), "SSIM": similar})


def spectrum(photos: Tensor, bins: int = 64) -> Tensor:
    """Return the mean energy of Y in rings of equal frequency: (bins,), from 0 to half the sampling rate.

    photos: (N, 3, H, W) in [0, 1]. A Hann window keeps the borders from looking like detail.
    """
    Y = luma(photos) - luma(photos).mean((1, 2), keepdim=True)
    window = torch.hann_window(Y.shape[1])[:, None] * torch.hann_window(Y.shape[2])
    energy = torch.fft.rfft2(Y * window).abs().square().mean(0)
    rows, columns = torch.fft.fftfreq(Y.shape[1]), torch.fft.rfftfreq(Y.shape[2])
    frequency = (rows[:, None].square() + columns.square()).sqrt()
    inside = frequency < 0.5
    ring = (frequency[inside] * 2 * bins).long()
    return torch.zeros(bins).index_add_(0, ring, energy[inside])


def detail(photos: Tensor) -> float:
    """Return the share of the energy of Y that lies above a quarter of the sampling rate; (N, 3, H, W) in [0, 1]."""
    rings = spectrum(photos)
    return (rings[len(rings) // 2 :].sum() / rings.sum()).item()
