"""FID against the closed form of Gaussians, KID of equal and of different sets, and whether both see missing color."""

import numpy as np
import pytest
import skimage
import torch

from helpers.data.photos import to_tensor
from helpers.evaluation.distances import efficientnet, frechet_distance, kernel_distance
from helpers.plots.images import grayed


def test_frechet_distance_of_gaussians_is_the_closed_form():
    torch.manual_seed(0)
    ours, truth = 2 * torch.randn(50_000, 3) + 1, torch.randn(50_000, 3)
    assert frechet_distance(ours, truth) == pytest.approx(3 + 3 * (2 - 1) ** 2, rel=0.03)
    assert frechet_distance(truth, truth) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_is_unbiased_and_grows_with_the_difference():
    torch.manual_seed(0)
    values = [kernel_distance(torch.randn(40, 8), torch.randn(40, 8)) for _ in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5  # a biased estimate would be positive
    near, far = (kernel_distance(torch.randn(200, 8) + shift, torch.randn(200, 8)) for shift in (0.5, 1.0))
    assert 0 < near < far


def test_features_see_missing_color():
    photos = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
    crops = torch.cat(
        [
            to_tensor(np.ascontiguousarray(p[y : y + 96, x : x + 96]))
            for p in photos
            for y in (0, 96, 190)
            for x in (0, 96, 190)
        ]
    )
    features = efficientnet()
    true, gray, half = (features(rgb) for rgb in (crops, grayed(crops), (crops + grayed(crops)) / 2))
    assert true.shape == (36, 1280)
    assert kernel_distance(gray, true) > 2 * max(kernel_distance(half, true), 0)
