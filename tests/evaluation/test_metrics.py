"""The metrics against scikit-image, the two baselines, and the summary that is printed."""

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from skimage import metrics as reference
from skimage.color import lab2rgb, rgb2lab

from helpers.color import L_ab_to_rgb
from helpers.data.photos import center_square, read_rgb
from helpers.evaluation import metrics


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


def test_psnr_is_scikit_images(pair):
    assert metrics.psnr(*pair).tolist() == pytest.approx(each(reference.peak_signal_noise_ratio, *pair), abs=1e-3)


WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def test_psnr_of_a_known_error():
    truth = torch.full((1, 3, 8, 8), 0.5)
    assert metrics.psnr(truth + 0.1, truth).item() == pytest.approx(20, abs=1e-4)
    assert metrics.psnr(truth, truth).isfinite().all()


def test_ssim_is_scikit_images(pair):
    wanted = each(reference.structural_similarity, *pair, channel_axis=0, **WANG)
    assert metrics.ssim(*pair) == pytest.approx(wanted, abs=1e-4)


def test_ab_error_is_that_of_scikit_images_lab(pair):
    rgb, truth = pair
    wanted = np.abs(lab_of(rgb)[..., 1:] - lab_of(truth)[..., 1:]).mean((1, 2, 3)) / 128
    assert metrics.ab_error(rgb, truth).tolist() == pytest.approx(wanted.tolist(), abs=1e-5)


def test_measure_rounds_to_8_bits_as_a_file_does(pair):
    rgb, truth = pair
    rgb = rgb + 0.4  # some of it out of range, too
    as_file = torch.tensor(np.rint(np.clip(rgb.numpy(), 0, 1) * 255)).float() / 255
    table = metrics.measure(rgb, truth)
    assert table["PSNR"].tolist() == pytest.approx(each(reference.peak_signal_noise_ratio, as_file, truth), abs=1e-3)
    assert table["SSIM"].tolist() == pytest.approx(
        each(reference.structural_similarity, as_file, truth, channel_axis=0, **WANG), abs=1e-4
    )
    assert metrics.measure(truth + 0.4 / 255, truth.mul(255).round() / 255).PSNR.min() > 40


def test_an_error_below_half_a_step_of_8_bits_is_none():
    truth = torch.randint(5, 250, (1, 3, 16, 16)) / 255
    row = metrics.measure(truth + 0.3 / 255, truth).iloc[0]
    assert row["L1"] < 1e-6 and row["SSIM"] > 1 - 1e-6


def test_measure_has_the_columns_it_is_asked_for(pair, perceptual):
    columns = ["L1", "PSNR", "SSIM", "colorfulness", "truth", "delta CF"]
    assert list(metrics.measure(*pair)) == columns
    assert set(metrics.measure(*pair, perceptual)) == {*columns, "LPIPS"}
    assert "SSIM" not in metrics.measure(*pair, with_ssim=False)


def test_measure_all_in_batches_equals_measure_at_once(photos):
    colorized = photos.flip(-1)
    at_once = metrics.measure(colorized / 255, photos / 255)
    pd.testing.assert_frame_equal(metrics.measure_all(colorized, photos, batch_size=3), at_once, rtol=1e-4)


def test_colorize_all_gives_back_photos_whose_ab_is_known(photos):
    """A colorizer that returns each photo's true ab (by scikit-image) gives the photos back, to the byte."""
    true_ab = torch.tensor(lab_of(photos / 255)[..., 1:] / 128).permute(0, 3, 1, 2).float()
    asked = []

    def colorize(L):
        asked.append(L)
        return true_ab[sum(map(len, asked[:-1])) :][: len(L)]

    colorized = metrics.colorize_all(colorize, photos, batch_size=3)
    assert colorized.dtype == torch.uint8 and colorized.shape == photos.shape
    assert (colorized.int() - photos.int()).abs().max() <= 1
    assert torch.cat(asked).shape == photos[:, :1].shape


def test_gray_has_no_colorfulness_and_the_psnr_of_lightness_alone(photos):
    colorized = metrics.colorize_all(metrics.gray, photos)
    table = metrics.measure_all(colorized, photos)
    assert table["colorfulness"].max() < 0.5  # 8 bits cannot say it more exactly
    lab = lab_of(photos / 255)
    lab[..., 1:] = 0
    by_skimage = torch.tensor(np.rint(lab2rgb(lab) * 255) / 255).permute(0, 3, 1, 2)
    wanted = each(reference.peak_signal_noise_ratio, by_skimage, photos / 255)
    assert table["PSNR"].tolist() == pytest.approx(wanted, abs=0.02)


def test_mean_color_predicts_the_mean_ab_of_the_photos(sample_photos):
    train = sample_photos.load("train")
    wanted = lab_of(train / 255)[..., 1:].mean((0, 1, 2)) / 128
    ab = metrics.mean_color(train)(torch.zeros(2, 1, 5, 7))
    assert ab.shape == (2, 2, 5, 7)
    assert np.allclose(ab.permute(0, 2, 3, 1).numpy(), wanted, atol=1e-5)


def test_mean_color_is_the_better_constant(sample_photos):
    """On the photos that it is the mean of, it beats gray in squared error of ab."""
    train = sample_photos.load("train")
    ab = torch.tensor(lab_of(train / 255)[..., 1:] / 128).permute(0, 3, 1, 2).float()
    L = torch.zeros(len(train), 1, *train.shape[-2:])
    assert (metrics.mean_color(train)(L) - ab).square().mean() < (metrics.gray(L) - ab).square().mean()


def test_summary_knows_which_direction_is_better():
    columns = {"L1": [0.1, 0.2, 0.6], "PSNR": [20.0, 25.0, 33.0], "SSIM": [0.8, 0.9, 0.95], "LPIPS": [0.1, 0.3, 0.8]}
    table = pd.DataFrame({**columns, "colorfulness": [10.0, 20, 30], "truth": [40.0, 40, 40]})
    row = metrics.summary({"model": table}).loc["model"]
    assert (row["L1 mean"], row["L1 median"], row["L1 best"], row["L1 worst"]) == pytest.approx((0.3, 0.2, 0.1, 0.6))
    assert (row["PSNR mean"], row["PSNR median"], row["PSNR best"], row["PSNR worst"]) == (26, 25, 33, 20)
    assert (row["SSIM best"], row["SSIM worst"], row["LPIPS best"], row["LPIPS worst"]) == (0.95, 0.8, 0.1, 0.8)
    assert row["colorfulness"] == 20 and row["of truth"] == 0.5


def test_summary_has_a_row_for_each_colorizer_in_order(pair):
    table = metrics.measure(*pair)
    assert list(metrics.summary({"gray": table, "mean color": table, "model": table}).index) == [
        "gray",
        "mean color",
        "model",
    ]


def test_gray_scores_on_200_landscapes_what_was_measured_before(kaggle_cache):
    """The figures beside which every PSNR of this series is read; measured once with scikit-image alone."""
    paths = sorted(kaggle_cache.glob("datasets/aayush9753/*/versions/1/data/test_color/*.jpg"))
    assert len(paths) == 200
    photos = np.stack([center_square(read_rgb(path), 255) for path in paths])
    photos = torch.from_numpy(photos).permute(0, 3, 1, 2)
    cv2.setNumThreads(0)
    table = metrics.measure_all(metrics.colorize_all(metrics.gray, photos), photos)
    row = metrics.summary({"gray": table}).loc["gray"]
    assert row["PSNR mean"] == pytest.approx(21.84, abs=0.05)
    assert row["PSNR median"] == pytest.approx(21.10, abs=0.05)
    assert row["PSNR best"] == pytest.approx(33.5, abs=0.1)
    assert row["SSIM mean"] == pytest.approx(0.937, abs=0.002)


def test_differentiable_lab_and_metrics_agree_on_a_perfect_prediction(photos):
    rgb = photos / 255
    ab = torch.tensor(lab_of(rgb)[..., 1:] / 128).permute(0, 3, 1, 2).float()
    L = torch.tensor(lab_of(rgb)[..., :1] / 50 - 1).permute(0, 3, 1, 2).float()
    assert metrics.measure(L_ab_to_rgb(L, ab), rgb, with_ssim=False)["L1"].max() < 1e-4
