"""A colorizer as a curve: gray at its beginning, known answers on the way; a slider gains nothing on itself."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.color import rgb_to_L_ab
from helpers.evaluation import metrics
from helpers.evaluation.frontier import SATURATIONS, at_share, frontier, gain, over_slider


@pytest.fixture
def photos(sample_photos):
    return sample_photos.load("test")


@pytest.fixture
def half_right(photos):
    """A colorizer that knows the photos and says half of their true colors, and how often it was asked."""
    truth, asked = rgb_to_L_ab(photos.float() / 255), []

    def colorize(L):
        asked.append(len(L))
        return torch.stack([truth[1][(truth[0] - each).abs().flatten(1).sum(1).argmin()] for each in L]) / 2

    return colorize, asked


def test_it_begins_at_gray_and_reaches_the_truth_where_the_saturation_is_right(photos, half_right):
    curve = frontier(half_right[0], photos)
    gray = metrics.measure_all(metrics.colorize_all(metrics.gray, photos), photos)["PSNR"].mean()
    assert list(curve.index) == list(SATURATIONS) and curve["PSNR"][0.0] == pytest.approx(gray)
    assert curve["of truth"][0.0] < 0.02 and curve["of truth"][2.0] == pytest.approx(1.0, abs=0.01)
    assert curve["L1"][2.0] < 1e-3 < curve["L1"][1.0] and curve["PSNR"].is_monotonic_increasing
    assert sum(half_right[1]) == len(photos)  # the network looks at each photo once
    as_it_is = metrics.measure_all(metrics.colorize_all(half_right[0], photos), photos)
    assert curve["PSNR"][1.0] == pytest.approx(as_it_is["PSNR"].mean(), abs=1e-3)


def test_one_number_of_a_curve_is_interpolated_at_equal_colorfulness_and_unknown_beyond():
    points = {"one": ([0.0, 0.5, 1.0], [20.0, 23.0, 19.0]), "slider": ([0.0, 0.4, 0.8], [20.0, 22.0, 21.0])}
    points |= {"better": ([0.0, 0.6, 1.2], [20.0, 22.5, 20.0])}
    curves = {name: pd.DataFrame({"of truth": x, "PSNR": y}, index=[0.0, 1.0, 2.0]) for name, (x, y) in points.items()}
    assert at_share(curves["one"], 0.75) == pytest.approx(21.0) and gain(curves["one"]) == pytest.approx(1.0)
    assert np.isnan(at_share(curves["one"], 1.2))
    assert over_slider(curves["better"], curves["slider"]) == pytest.approx(22.5 - 21.5)
    assert over_slider(curves["slider"], curves["slider"]) == 0
