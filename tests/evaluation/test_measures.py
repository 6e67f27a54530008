"""Measures of the benches and notebooks 07 and 09: hints without a network, the curve of hints, detail."""

import pytest
import torch
from bench.measures import detail, hint_curve, spectrum, spread_colors

from helpers.evaluation import metrics


def test_of_two_hints_the_nearer_and_the_more_alike_one_wins_and_without_hints_all_stays_gray():
    photo, hints = torch.full((1, 3, 64, 64), 100, dtype=torch.uint8), torch.zeros(1, 3, 64, 64)
    photo[..., 32:] = 180
    assert torch.equal(spread_colors(photo, hints), metrics.colorize_all(metrics.gray, photo))
    hints[0, :, 30:33, 4:7] = torch.tensor([0.2, 0, 1]).view(3, 1, 1)
    hints[0, :, 30:33, 57:60] = torch.tensor([-0.2, 0, 1]).view(3, 1, 1)
    a = metrics.ab_of(spread_colors(photo, hints))[0, 0]
    assert a[31, 28] > 20 and a[31, 35] < -20  # the border lies in the middle


def test_hints_of_true_colors_help_a_baseline_and_the_curve_measures_it(sample_photos):
    curve = hint_curve(lambda L, hints: metrics.gray(L), sample_photos.load("train", 4), (0, 10))
    assert curve.loc[10, "no network"] > curve.loc[0, "no network"] + 1 and (curve["gain"] == 0).all()


def test_a_wave_has_its_energy_at_its_frequency():
    columns = torch.arange(128)
    for frequency in (0.1, 0.3, 0.45):
        wave = (0.5 + 0.3 * torch.cos(2 * torch.pi * frequency * columns)).expand(1, 3, 128, 128)
        assert abs((spectrum(wave).argmax().item() + 0.5) / 128 - frequency) < 1 / 64
        assert (detail(wave) > 0.9) == (frequency > 0.25)
    noise = torch.rand(8, 1, 96, 64).expand(-1, 3, -1, -1)  # three quarters of its energy are in the outer half
    assert detail(noise) == pytest.approx(0.75, abs=0.03)
