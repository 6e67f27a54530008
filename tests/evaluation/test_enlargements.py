"""Measures of enlarging: luma, PSNR, SSIM and detail against scikit-image, Pillow and known spectra."""

import numpy as np
import pytest
import torch
from bench.measures import detail, spectrum
from odd_photos import color
from PIL import Image
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

from helpers.data.photos import read_rgb, to_tensor
from helpers.evaluation.metrics import luma, quality

CAT = np.array(color((120, 90)))


def test_luma_is_scikit_images():
    theirs = rgb2ycbcr(CAT)[..., 0]
    assert np.abs(luma(to_tensor(CAT))[0].numpy() - theirs.round()).max() <= 1


def test_quality_leaves_the_border_out_and_agrees_with_scikit_image():
    noisy = (CAT + np.random.default_rng(0).normal(0, 12, CAT.shape)).clip(0, 255).astype(np.uint8)
    found = quality(to_tensor(noisy), to_tensor(CAT)).iloc[0]
    inner = [rgb2ycbcr(photo)[4:-4, 4:-4, 0].round() for photo in (CAT, noisy)]
    assert pytest.approx(peak_signal_noise_ratio(*inner, data_range=255), abs=0.05) == found.PSNR
    assert 0.3 < found.SSIM < 0.99
    framed = CAT.copy()
    framed[:4] = framed[-4:] = 0
    framed[:, :4] = framed[:, -4:] = 255
    same = quality(to_tensor(framed), to_tensor(CAT)).iloc[0]
    assert pytest.approx(1) == same.SSIM and same.PSNR > 80


def test_a_wave_has_its_energy_at_its_frequency():
    columns = torch.arange(128)
    for frequency in (0.1, 0.3, 0.45):
        wave = 0.5 + 0.3 * torch.cos(2 * torch.pi * frequency * columns)
        rings = spectrum(wave.expand(1, 3, 128, 128))
        assert abs((rings.argmax().item() + 0.5) / 128 - frequency) < 1 / 64
        assert (detail(wave.expand(1, 3, 128, 128)) > 0.9) == (frequency > 0.25)


def test_noise_has_three_quarters_of_its_energy_in_the_outer_half_of_the_rings():
    noise = torch.rand(8, 1, 96, 64).expand(-1, 3, -1, -1)
    assert detail(noise) == pytest.approx(0.75, abs=0.03)


def test_the_reference_of_kodak24(kodak):
    rows = []
    for path in kodak:
        photo = Image.fromarray(read_rgb(path))
        small = photo.resize((photo.width // 4, photo.height // 4), Image.Resampling.BICUBIC)
        large = np.array(small.resize(photo.size, Image.Resampling.BICUBIC))
        rows.append(quality(to_tensor(large), to_tensor(np.array(photo))).iloc[0].to_numpy())
    assert np.mean(rows, axis=0) == pytest.approx([27.22, 0.719], abs=0.01)
