"""Lab and hues against scikit-image, gradients in and out of gamut."""

import cv2
import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from helpers import color


def some_colors():
    """Random colors, all grays, the corners of the cube and the bend of the sRGB curve: (1, 3, N, 1)."""
    corners = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), -1).reshape(-1, 3)
    grays = np.linspace(0, 1, 256)[:, None].repeat(3, 1)
    bend = np.array([[0.0404, 0.0405, 0.0406], [0.001, 0.04045, 0.9]])
    colors = np.concatenate([np.random.rand(10_000, 3), grays, corners, bend])
    return torch.tensor(colors.T[None, :, :, None], dtype=torch.float32)


def lab_cube():
    """Every L and ab in [-1, 1] on a fine grid, most of it out of gamut: L (N, 1, 1, 1) and ab (N, 2, 1, 1)."""
    steps = torch.linspace(-1, 1, 33)
    cube = torch.cartesian_prod(steps, steps, steps)[:, :, None, None]
    return cube[:, :1].clone(), cube[:, 1:].clone()


def jacobian(L, ab):
    """The derivative of each of r, g, b by each of L, a, b, per pixel: (N, 3 outputs, 3 inputs)."""
    L, ab = L.requires_grad_(), ab.requires_grad_()
    rgb = color.L_ab_to_rgb(L, ab)
    rows = [torch.autograd.grad(rgb[:, i].sum(), (L, ab), retain_graph=True) for i in range(3)]
    return torch.stack([torch.cat(row, 1).flatten(1) for row in rows], 1)


def test_lab_agrees_with_scikit_image_is_normalized_as_the_report_says_and_leads_back():
    rgb = some_colors()
    wanted = rgb2lab(rgb[0, :, :, 0].T.double().numpy()[None])[0]
    L, ab = color.rgb_to_L_ab(rgb)
    assert np.abs(color.L_ab_to_lab(L, ab)[0, :, :, 0].T.numpy() - wanted).max() < 1e-3
    assert np.abs(L[0, 0, :, 0].numpy() - (wanted[:, 0] / 50 - 1)).max() < 1e-4
    assert np.abs(ab[0, :, :, 0].T.numpy() - wanted[:, 1:] / 128).max() < 1e-4
    assert L.min() >= -1 and L.max() <= 1 + 1e-6 and ab.abs().max() <= 1
    assert (color.L_ab_to_rgb(L, ab) - rgb).abs().max() < 1e-4
    photos = np.random.randint(0, 256, (130, 4, 4, 3), dtype=np.uint8)
    wanted, found = rgb2lab(photos), color.ab_of(torch.tensor(photos).permute(0, 3, 1, 2))
    assert np.abs(found.permute(0, 2, 3, 1).numpy() - wanted[..., 1:]).max() < 1e-3
    assert np.abs(color.lightness(photos[0]) - wanted[0, ..., 0]).max() < 1e-3


def test_lab_is_computed_in_full_precision_under_autocast_too():
    rgb = torch.rand(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = color.L_ab_to_rgb(*color.rgb_to_L_ab(rgb))
    assert found.dtype == torch.float32 and torch.allclose(found, rgb, atol=1e-4)


def test_colors_of_srgb_come_back_whatever_their_place_in_it():
    """Faces and edges of the cube too, whose last digit may be lost."""
    rgb = torch.randint(0, 256, (3, 20_000, 3))
    for solid, count in zip(rgb[1:], (1, 2), strict=True):  # one channel is 0 or 255, or two are
        ends = torch.rand(solid.shape).argsort(1) < count
        solid[ends] = 255 * torch.randint_like(solid, 2)[ends]
    rgb = rgb.view(-1, 3, 1, 1)
    assert (color.to_photo(*color.rgb_to_L_ab(rgb / 255)).int() - rgb).abs().max() <= 1


@pytest.mark.parametrize("chroma", [60, 100, 180])
def test_what_is_out_of_gamut_keeps_its_hue_and_lightness_and_loses_just_enough_chroma(chroma):
    L, ab = color.rgb_to_L_ab(0.3 + 0.3 * torch.rand(5000, 3, 1, 1))
    ab = ab * (chroma / 128 / ab.norm(dim=1, keepdim=True))
    photo = color.to_photo(L, ab)[..., 0, 0]
    lab, wanted = rgb2lab(photo.numpy()), color.L_ab_to_lab(L, ab)[..., 0, 0].numpy()
    found, asked = np.linalg.norm(lab[:, 1:], axis=1), np.linalg.norm(wanted[:, 1:], axis=1)
    across = (lab[:, 1] * wanted[:, 2] - lab[:, 2] * wanted[:, 1]) / asked  # how far it lies beside its hue's ray
    assert np.abs(lab[:, 0] - wanted[:, 0]).max() < 1 and np.abs(across).max() < 1.5
    less, photo = found < asked - 1.5, photo.int()
    assert less.mean() > 0.1 and ((photo.amin(1) <= 2) | (photo.amax(1) >= 253))[less].all()


def test_grays_black_and_white_are_exact():
    """Any gray is exactly gray, whatever its lightness; so are black and white, and lightness beyond them."""
    L = torch.linspace(-1.2, 1.2, 100_001).view(1, 1, 1, -1)
    photo = color.to_photo(L, torch.zeros(1, 2, 1, 100_001))
    assert (color.gray_rgb(L) * 255 - photo).abs().max() < 0.6
    assert (photo == photo[:, :1]).all() and (photo[..., 1:] >= photo[..., :-1]).all()
    for level, value in ((-1, 0), (1, 255)):
        L, ab = lab_cube()
        assert (color.to_photo(torch.full_like(L, level), ab) == value).all()


@pytest.mark.parametrize("size", [(301, 203), (40_000, 1), (1, 40_000)])
def test_a_photo_is_the_same_to_the_byte_in_strips_and_on_any_number_of_threads(size):
    L, ab = torch.rand(1, 1, *size) * 2 - 1, torch.rand(1, 2, *size) * 2 - 1
    threads, whole = cv2.getNumThreads(), color.to_photo(L, ab)
    for rows, count in ((7_000, 3), (64, 8)):
        cv2.setNumThreads(count)
        parts = [color.to_photo(*part) for part in zip(L.split(rows, 2), ab.split(rows, 2), strict=True)]
        assert torch.equal(torch.cat(parts, dim=2), whole)
    cv2.setNumThreads(threads)
    assert color.to_photo(L.half(), ab.bfloat16().requires_grad_()).dtype == torch.uint8


def test_rgb_stays_in_range_and_gradients_do_not_vanish_however_far_out_of_gamut():
    inside = color.rgb_to_L_ab(torch.rand(1000, 3, 1, 1) * 0.98 + 0.01)
    assert (jacobian(*inside).abs().sum(1) > 0.1).all()
    rgb, reach = color.L_ab_to_rgb(*lab_cube()), jacobian(*lab_cube())
    assert rgb.min() >= 0 and rgb.max() <= 1
    assert reach.isfinite().all() and (reach.abs().sum(1) > 0).all()
