"""Lab against scikit-image, the gamut against bisection, gradients in and out of gamut, colorfulness by its formula."""

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


def test_lightness_alone_is_a_gray_photo_of_that_lightness():
    L = torch.linspace(-1, 1, 50).view(1, 1, 50, 1)
    rgb = color.gray_rgb(L)
    assert rgb.shape == (1, 3, 50, 1) and (rgb - rgb.mean(1, keepdim=True)).abs().max() < 1e-3
    assert torch.allclose(color.rgb_to_L_ab(rgb)[0], L, atol=1e-4)


def test_lab_is_computed_in_full_precision(monkeypatch):
    """Under autocast too, and without TF32, which would round a convolution on a GPU to ten bits."""
    rgb, seen, mixed = torch.rand(1, 3, 8, 8), [], color.mixed

    def watched(*args):
        seen.append(torch.backends.cudnn.allow_tf32)
        return mixed(*args)

    monkeypatch.setattr(color, "mixed", watched)
    with torch.autocast("cpu", torch.bfloat16):
        found = color.L_ab_to_rgb(*color.rgb_to_L_ab(rgb))
    assert found.dtype == torch.float32 and torch.allclose(found, rgb, atol=1e-4) and seen == [False, False]


def by_bisection(L, ab):
    """`to_photo` by twenty bisections of each color's chroma: L (N, 1, 1, 1), ab (N, 2, 1, 1)."""

    def inside(share):
        rgb = color.linear_to_rgb(color.L_ab_to_linear(L, ab * share))
        return ((rgb >= -1e-4) & (rgb <= 1 + 1e-4)).all(1, keepdim=True)

    low, high = torch.zeros_like(L), torch.ones_like(L)
    low[inside(high)] = 1
    for _ in range(20):
        middle = (low + high) / 2
        low, high = torch.where(inside(middle), middle, low), torch.where(inside(middle), high, middle)
    return (color.L_ab_to_rgb(L, ab * low) * 255).round().int()


def colors_around_the_gamut(saturation):
    """Random colors, and colors on the faces and edges of the RGB cube, of a saturation: L (N, 1, 1, 1), ab."""
    rgb = torch.rand(3, 20_000, 3)
    for solid, count in zip(rgb[1:], (1, 2), strict=True):  # one channel is 0 or 1, or two are
        ends = torch.rand_like(solid).argsort(1) < count
        solid[ends] = torch.rand_like(solid).round()[ends]
    L, ab = color.rgb_to_L_ab(rgb.view(-1, 3, 1, 1))
    return L, ab * saturation


@pytest.mark.parametrize("saturation", [1, 1.02, 1.5, 3])
def test_the_gamut_is_what_bisection_finds(saturation):
    """Two places are left out, where a ray from gray leaves sRGB by a little and comes back: bright yellow, near black.

    There bisection stops at the first way out, so a yellow that is a little too vivid becomes nearly white. The table
    goes on to the last one; red loses up to 2% to the clip.
    """
    L, ab = colors_around_the_gamut(saturation)
    off = (color.to_photo(L, ab).int() - by_bisection(L, ab).int()).abs().amax(1, keepdim=True)
    hue, lightest = torch.atan2(ab[:, 1:], ab[:, :1]).rad2deg(), (L + 1) * 50
    twice = ((lightest > 80) & (hue > 80) & (hue < 112)) | (lightest < 3)
    assert off[~twice].max() <= 2 and twice.float().mean() < 0.1
    assert off.max() <= 1 or saturation > 1  # colors in gamut are kept, there too


def test_grays_black_and_white_are_exact():
    """Any gray is exactly gray, whatever its lightness; so are black and white, and lightness beyond them."""
    L = torch.linspace(-1.2, 1.2, 100_001).view(1, 1, 1, -1)
    photo = color.to_photo(L, torch.zeros(1, 2, 1, 100_001))
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


@pytest.mark.parametrize(("measure", "absolute"), [(color.colorfulness, False), (color.ddcolor_cf, True)])
def test_colorfulness_follows_its_formula(measure, absolute):
    photos = np.random.randint(0, 256, (4, 20, 30, 3)) * np.array([1.0, 0.8, 0.3])
    photos[3] = photos[3, :, :, :1]  # a gray one
    red, green, blue = np.moveaxis(photos.reshape(4, -1, 3), 2, 0)
    rg, yb = red - green, 0.5 * (red + green) - blue
    rg, yb = (np.abs(rg), np.abs(yb)) if absolute else (rg, yb)
    wanted = np.hypot(rg.std(1), yb.std(1)) + 0.3 * np.hypot(rg.mean(1), yb.mean(1))
    found = measure(torch.tensor(photos / 255).permute(0, 3, 1, 2)).numpy()
    assert np.allclose(found, wanted, rtol=1e-4, atol=1e-3) and wanted[3] == 0
