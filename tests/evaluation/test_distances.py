"""FID against its closed form, KID against its sums, features that see missing color, and weights that are missing."""

import numpy as np
import pytest
import scipy.linalg
import skimage
import torch
import torch.nn.functional as F
import torchvision

from helpers.data.photos import to_tensor
from helpers.evaluation import distances
from helpers.evaluation.distances import efficientnet, frechet_distance, inception, kernel_distance
from helpers.plots.images import grayed


def gaussian(mean, covariance, count):
    """Features (count, D) with exactly this mean and covariance."""
    noise = torch.randn(count, len(mean), dtype=torch.float64)
    white = torch.linalg.qr(noise - noise.mean(0)).Q * (count - 1) ** 0.5
    return white @ torch.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_gaussians_is_the_closed_form():
    (one, other), (a, b) = torch.randn(2, 6, 6, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    one, other = one @ one.T + 0.1 * torch.eye(6), other @ other.T + 0.1 * torch.eye(6)  # they do not commute
    root = np.trace(scipy.linalg.sqrtm((one @ other).numpy()).real)
    wanted = (a - b).square().sum() + one.trace() + other.trace() - 2 * root
    assert frechet_distance(gaussian(a, one, 60), gaussian(b, other, 90)) == pytest.approx(wanted.item(), rel=1e-6)


def test_frechet_distance_with_fewer_photos_than_features():
    ours, truth = torch.randn(12, 40) + 1, torch.randn(9, 40)
    product = np.cov(ours.numpy(), rowvar=False) @ np.cov(truth.numpy(), rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(product).real.clip(0)).sum()
    traces = ours.var(0).sum() + truth.var(0).sum()
    wanted = (ours.mean(0) - truth.mean(0)).square().sum() + traces - 2 * roots
    assert frechet_distance(ours, truth) == pytest.approx(wanted.item(), rel=1e-3)
    assert frechet_distance(ours, ours) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_is_its_sum_over_pairs():
    ours, truth = torch.randn(5, 3) + 1, torch.randn(4, 3)

    def mean(xs, ys, same):
        kernels = [
            (float(x @ y) / 3 + 1) ** 3 for i, x in enumerate(xs) for j, y in enumerate(ys) if not same or i != j
        ]
        return np.mean(kernels)

    wanted = mean(ours, ours, True) + mean(truth, truth, True) - 2 * mean(ours, truth, False)
    assert kernel_distance(ours, truth) == pytest.approx(wanted, rel=1e-4)


def test_kernel_distance_is_unbiased_and_grows_with_the_difference():
    values = [kernel_distance(torch.randn(40, 8), torch.randn(40, 8)) for _ in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / len(values) ** 0.5  # a biased estimate would be positive
    near, far = (kernel_distance(torch.randn(200, 8) + shift, torch.randn(200, 8)) for shift in (0.5, 1.0))
    assert 0 < near < far


def test_gray_photos_are_much_farther_from_photos_than_faded_and_other_photos_are():
    photos = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
    corners = [(y, x) for y in (0, 96, 190) for x in (0, 150)]
    crops = torch.cat([to_tensor(photo[y : y + 96, x : x + 96].copy()) for photo in photos for y, x in corners])
    features, gray = efficientnet(), grayed(crops[::2])
    half, others, without, faded = map(features, (crops[::2], crops[1::2], gray, (gray + crops[::2]) / 2))
    assert half.shape == (12, 1280) and features.name == "EfficientNet-Lite0"
    assert frechet_distance(half, half) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(without, half) > 3 * frechet_distance(faded, half)
    assert kernel_distance(without, others) > kernel_distance(half, others) + 0.02


def test_features_are_those_of_the_network_whatever_the_batch_and_the_type():
    photos = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    own = distances.Features(torch.nn.Flatten(), "pixels", 8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert torch.allclose(own(photos, batch_size=2), (photos / 255 * 4 - 2).flatten(1), atol=1e-5)
    assert torch.equal(own(photos), own(photos / 255))


def test_inception_sees_photos_as_ddcolors_code_does(monkeypatch):
    torch.manual_seed(0)
    network = torchvision.models.inception_v3(init_weights=False, transform_input=False).eval()
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", lambda self, **_: network.state_dict())
    photos, seen = torch.rand(2, 3, 64, 64), []
    network.avgpool.register_forward_hook(lambda module, inputs, output: seen.append(output.flatten(1)))
    scale, offset = torch.tensor([[0.229, 0.224, 0.225], [0.485, 0.456, 0.406]]).view(2, 3, 1, 1)
    large = F.interpolate(photos, (299, 299), mode="bilinear") * 0.5 + 0.5
    with torch.no_grad():
        network(large * scale / 0.5 + (offset - 0.5) / 0.5)
    features = inception()
    assert torch.allclose(features(photos), seen[0], rtol=1e-3, atol=1e-5) and "Inception" in features.name


def test_weights_that_cannot_be_had_are_a_clear_error(offline, monkeypatch):
    with pytest.raises(RuntimeError, match="efficientnet"):
        inception()
    monkeypatch.setattr(distances, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip install"):
        efficientnet()
