"""Figures of photos: what is drawn where, what is saved, and that no figure is left open."""

import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from helpers import workspace
from helpers.color import rgb_to_L_ab
from helpers.plots import images


@pytest.fixture
def photos():
    return torch.randint(0, 256, (5, 3, 12, 18), dtype=torch.uint8)


@pytest.fixture(autouse=True)
def no_figure_left_open():
    yield
    assert not plt.get_fignums()


def test_photos_of_any_type_become_arrays_for_matplotlib(photos):
    wanted = photos[0].permute(1, 2, 0).numpy() / 255
    assert all(np.allclose(images.as_image(each), wanted, atol=1e-6) for each in (photos[0], photos[0] / 255, wanted))
    assert images.as_image(photos[0, :1]).shape == (12, 18)


def test_a_grid_has_a_cell_for_each_photo_and_leaves_the_rest_empty(photos):
    figure = images.grid([list(photos[:3]), list(photos[3:])], ["a", "b", "c"], ["first", "second"])
    cells = [(len(axis.images), axis.get_title(), axis.get_ylabel()) for axis in figure.axes]
    assert cells == [(1, "a", "first"), (1, "b", ""), (1, "c", ""), (1, "", "second"), (1, "", ""), (0, "", "")]
    images.finish(figure)


def test_a_named_figure_is_saved_in_the_workspace(photos):
    picture = images.photos(photos, ["one"], columns=3, name="five")
    saved = (workspace.folder("figures") / "five.png").read_bytes()
    assert saved == picture.data and Image.open(io.BytesIO(saved)).width > 300


def test_grayed_photos_have_their_lightness_and_no_color(photos):
    gray = images.grayed(photos)
    assert torch.allclose(gray, images.grayed(photos / 255)) and (gray[:, 0] - gray[:, 2]).abs().max() < 1e-3
    assert torch.allclose(rgb_to_L_ab(gray)[0], rgb_to_L_ab(photos / 255)[0], atol=1e-3)


def test_ab_histograms_give_the_share_of_pixels_nearly_gray(photos, monkeypatch):
    shown = []
    monkeypatch.setattr(images, "finish", lambda figure, name: shown.append(figure) or plt.close(figure))
    images.ab_histograms({"noise": photos, "gray": (images.grayed(photos) * 255).byte()})
    lab = rgb2lab(photos.permute(0, 2, 3, 1).numpy())
    noise, gray = shown[0].axes[:2]
    assert f"{(np.hypot(lab[..., 1], lab[..., 2]) < 10).mean():.0%}" in noise.get_title() and "100%" in gray.get_title()
    drawn = noise.collections[0].get_array().reshape(80, 80)  # rows are b*, from -80
    assert drawn.sum() == pytest.approx(((np.abs(lab[..., 1:]) < 80).all(-1)).mean(), abs=0.02)
    assert drawn[40:].sum() == pytest.approx(((lab[..., 2] > 0) & (np.abs(lab[..., 1:]) < 80).all(-1)).mean(), abs=0.02)


def test_heat_gives_maps_a_color_bar_and_photos_none(photos):
    figure = images.heat_figure({"photo": images.as_image(photos[0]), "map": photos[0, 0].numpy()}, (None, "magma"))
    assert len(figure.axes) == 3 and figure.axes[1].images[0].get_cmap().name == "magma"
    images.finish(figure)


@pytest.mark.parametrize(("width", "wanted"), [(640, (18, 12)), (9, (9, 6))])
def test_a_slider_holds_both_photos_at_one_size_and_enlarges_none(photos, width, wanted):
    page = images.slider(*(photo.permute(1, 2, 0).numpy() for photo in photos[:2]), width=width).data
    coded = re.findall(r'base64,([^"]+)"', page)
    assert [Image.open(io.BytesIO(base64.b64decode(each))).size for each in coded] == [wanted] * 2
