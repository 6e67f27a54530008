"""The metrics against scikit-image and Pillow, the two baselines, and the summary that is printed."""

import numpy as np
import pandas as pd
import pytest
import skimage
import torch
from odd_photos import color
from skimage import metrics as reference
from skimage.color import rgb2lab, rgb2ycbcr

from helpers.color import to_photo
from helpers.data.photos import to_tensor
from helpers.evaluation import metrics

WINDOW = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}  # Wang et al. 2004


@pytest.fixture
def pair():
    """Three photos and three noisy copies of them, each worse than the one before: (3, 3, 48, 40) in [0, 1]."""
    truth = torch.rand(3, 3, 12, 10).repeat_interleave(4, 2).repeat_interleave(4, 3)
    noise = torch.randn_like(truth) * torch.tensor([0.02, 0.1, 0.3]).view(3, 1, 1, 1)
    return (truth + noise).clamp(0, 1), truth


@pytest.fixture
def photos(sample_photos):
    return sample_photos.load("test")


def each(function, rgb, truth, **options):
    """A scikit-image metric of each photo."""
    pairs = zip(rgb.double().numpy(), truth.double().numpy(), strict=True)
    return [function(theirs, ours, data_range=1.0, **options) for ours, theirs in pairs]


def lab_of(rgb):
    """Photos (N, 3, H, W) in CIE Lab by scikit-image: (N, H, W, 3)."""
    return rgb2lab(rgb.double().permute(0, 2, 3, 1).numpy())


def ab_of(rgb):
    """The normalized ab (N, 2, H, W) of photos (N, 3, H, W), by scikit-image."""
    return torch.tensor(lab_of(rgb)[..., 1:] / 128).permute(0, 3, 1, 2).float()


def test_psnr_ssim_and_ab_error_are_scikit_images(pair):
    rgb, truth = pair
    assert metrics.psnr(*pair).tolist() == pytest.approx(each(reference.peak_signal_noise_ratio, *pair), abs=1e-3)
    wanted = each(reference.structural_similarity, *pair, channel_axis=0, **WINDOW)
    assert metrics.psnr(truth, truth).isfinite().all()
    assert metrics.ssim(*pair) == pytest.approx(wanted, abs=1e-4)
    error = np.abs(lab_of(rgb)[..., 1:] - lab_of(truth)[..., 1:]).mean((1, 2, 3)) / 128
    assert metrics.ab_error(rgb, truth).tolist() == pytest.approx(error.tolist(), abs=1e-5)


def test_measure_rounds_to_8_bits_as_a_file_does(pair):
    rgb, truth = pair
    rgb = rgb + 0.4  # some of it out of range, too
    as_file = torch.tensor(np.rint(np.clip(rgb.numpy(), 0, 1) * 255)).float() / 255
    wanted = each(reference.peak_signal_noise_ratio, as_file, truth)
    assert metrics.measure(rgb, truth)["PSNR"].tolist() == pytest.approx(wanted, abs=1e-3)


def test_colorfulness_is_the_papers_and_ddcolors_on_known_photos():
    for photo, wanted in ((skimage.data.astronaut(), (72.6, 71.4)), (skimage.data.rocket(), (38.6, 29.0))):
        rgb = to_tensor(photo)
        row = metrics.measure(torch.zeros_like(rgb), rgb, with_ssim=False).iloc[0]
        assert row[["truth", "truth's CF (DDColor)"]].tolist() == pytest.approx(wanted, abs=0.05)
        assert row[["colorfulness", "CF (DDColor)"]].tolist() == [0, 0]


def test_measure_all_in_batches_equals_measure_at_once(photos):
    def perceptual(rgb, truth):
        return (rgb - truth).abs().amax((1, 2, 3))

    many, colorized = photos.repeat(9, 1, 1, 1), photos.flip(-1).repeat(9, 1, 1, 1)
    at_once = metrics.measure(colorized / 255, many / 255, perceptual, with_ssim=False)
    pd.testing.assert_frame_equal(metrics.measure_all(colorized, many, perceptual, with_ssim=False), at_once, rtol=1e-4)
    assert len(many) > 32 and at_once["LPIPS"].tolist() == perceptual(colorized / 255, many / 255).tolist()


def test_colorize_all_gives_photos_back_whose_ab_is_known(photos):
    """A colorizer that gets each photo's true ab (by scikit-image) as its hints gives the photos back, to the byte."""
    hints = torch.cat([ab_of(photos / 255), torch.ones(len(photos), 1, *photos.shape[-2:])], dim=1)
    colorized = metrics.colorize_all(lambda L, hints: hints[:, :2], photos, batch_size=3, hints=hints)
    assert colorized.dtype == torch.uint8 and (colorized.int() - photos.int()).abs().max() <= 1


def test_mean_color_is_the_best_constant(sample_photos):
    train = sample_photos.load("train")
    true, L = ab_of(train / 255), torch.zeros(len(train), 1, *train.shape[-2:])
    ab = metrics.mean_color(train)(L)
    assert torch.allclose(ab, true.mean((0, 2, 3)).view(1, 2, 1, 1), atol=1e-5) and ab.shape == true.shape


def test_summary_knows_which_direction_is_better():
    columns = {"L1": [0.1, 0.2, 0.6], "PSNR": [20.0, 25.0, 33.0], "colorfulness": [10.0, 20, 30], "truth": [40.0] * 3}
    columns |= {"CF (DDColor)": [10.0, 50, 30], "truth's CF (DDColor)": [50.0, 10, 42]}
    table = metrics.summary({"gray": pd.DataFrame(columns), "model": pd.DataFrame(columns)})
    wanted = {"L1 mean": 0.3, "L1 median": 0.2, "L1 best": 0.1, "L1 worst": 0.6, "PSNR best": 33, "PSNR worst": 20}
    wanted |= {"colorfulness": 20, "of truth": 0.5}
    wanted |= {"CF (DDColor)": 30, "|delta CF| (DDColor)": 4}  # of the means, not 30.7
    assert list(table.index) == ["gray", "model"]
    assert table.loc["model", list(wanted)].to_dict() == pytest.approx(wanted)


def test_colors_that_are_blurred_lose_contrast_at_edges_and_their_error_is_there():
    """A gray photo with a red square; in the second one the red fades over 4 pixels on each side of its border."""
    sharp, soft = torch.zeros(2, 48, 48).unbind(0)
    sharp[16:32, 16:32] = 1
    soft = torch.nn.functional.avg_pool2d(sharp[None], 9, 1, 4, count_include_pad=False)[0]
    L = torch.zeros(1, 1, 48, 48)
    truth, ours = (to_photo(L, torch.stack([red * 0.3, red * 0.2])[None]) for red in (sharp, soft))
    same, blurred = (metrics.edge_report(photos, truth).iloc[0] for photos in (truth, ours))
    assert same["error near edges"] == 0 and same["edge contrast kept"] == pytest.approx(1)
    assert blurred["error near edges"] > 20 * blurred["error elsewhere"] and blurred["edge contrast kept"] < 0.5


def test_luma_and_quality_are_scikit_images_without_the_border():
    cat = np.array(color((120, 90)))
    noisy = (cat + np.random.default_rng(0).normal(0, 12, cat.shape)).clip(0, 255).astype(np.uint8)
    inner = [rgb2ycbcr(photo)[4:-4, 4:-4, 0].round() for photo in (cat, noisy)]
    assert np.abs(metrics.luma(to_tensor(cat))[0, ..., 4:-4, 4:-4].numpy() - inner[0]).max() <= 1
    framed = np.pad(noisy[4:-4, 4:-4], ((4, 4), (4, 4), (0, 0)))
    found = metrics.quality(to_tensor(framed), to_tensor(cat)).iloc[0]
    assert found["PSNR"] == pytest.approx(reference.peak_signal_noise_ratio(*inner, data_range=255), abs=0.05)
    wanted = reference.structural_similarity(*inner, data_range=255, **WINDOW)
    assert found["SSIM"] == pytest.approx(wanted, abs=5e-3)


def test_an_untrained_lpips_is_not_reported(photos, perceptual):
    assert "LPIPS" not in metrics.measure_all(photos, photos, perceptual)
