"""A user's hints: read, placed on the network's pixels, followed; bad ones are refused with what is wrong."""

import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2lab
from skimage.data import astronaut

from helpers.apps.__main__ import main
from helpers.inference.colorizer import Colorizer
from helpers.inference.user_hints import Hint, hint_maps, read_hints, suggest_colors

RED = "#c03020"


def lab_of(color):
    return rgb2lab(np.array([[color]], dtype=np.uint8))[0, 0]


@pytest.fixture(scope="module")
def colorizer(hinted_generator):
    return Colorizer(hinted_generator, "fp32")


@pytest.fixture(scope="module")
def photo():
    return cv2.resize(astronaut(), (300, 200))


@pytest.mark.parametrize(
    ("precision", "options"),
    [("fp32", {}), ("fp32", {"flip": True, "saturation": 1.4}), ("bf16", {"input_size": 200, "saturation": 0.5})],
)
def test_a_hinted_pixel_gets_the_hints_color(hinted_generator, photo, precision, options):
    colored = Colorizer(hinted_generator, precision)(photo, [Hint(150, 60, "#907060")], **options)
    difference = rgb2lab(colored)[60, 150] - lab_of((0x90, 0x70, 0x60))
    assert np.hypot(*difference[1:]) < 1.5
    assert colored.shape == photo.shape


def test_hints_change_what_is_near_them_and_an_empty_list_nothing(colorizer, photo):
    plain = colorizer(photo)
    assert np.array_equal(colorizer(photo, []), plain)
    assert not np.array_equal(colorizer(photo, [Hint(150, 60, RED)]), plain)
    lightness = [rgb2lab(rgb)[..., 0] for rgb in (photo, colorizer(photo, [Hint(150, 60, "#808080")]))]
    assert np.abs(lightness[0] - lightness[1]).mean() < 0.5


def test_a_point_is_a_square_of_the_networks_pixels_and_the_last_one_wins():
    maps = hint_maps([Hint(0, 0, RED), Hint(250, 120, RED), Hint(250, 120, "blue")], (200, 300), (64, 96))
    assert maps.shape == (1, 3, 64, 96)
    assert maps[0, 2, 38, 80] == 1 and maps[0, 2, 0, 0] == 1 and maps[0, 2].sum() == 25 + 9
    blue = lab_of((0, 0, 255))[1:] / 128
    assert np.allclose(maps[0, :2, 38, 80], blue, atol=1e-3)
    assert maps[0, :2, maps[0, 2] == 0].abs().max() == 0


def test_strokes_count_where_they_are_opaque_whatever_the_layers_size():
    layer = np.zeros((400, 600, 4), np.uint8)
    layer[100:140, 100:500] = (192, 48, 32, 255)
    layer[140:160, 100:500] = (0, 0, 255, 120)  # a brush's half transparent border
    maps = hint_maps([layer], (200, 300), (64, 96))
    painted = maps[0, 2].nonzero()
    assert painted[:, 0].min() == 16 and painted[:, 0].max() == 22
    assert painted[:, 1].min() == 16 and painted[:, 1].max() in (79, 80)
    red = torch.tensor(lab_of((192, 48, 32))[1:] / 128, dtype=torch.float32)
    assert torch.allclose(maps[0, :2, maps[0, 2] > 0], red[:, None].expand(2, len(painted)), atol=1e-3)
    assert hint_maps([np.zeros((5, 7, 4), np.uint8)], (200, 300), (64, 96)).abs().max() == 0


def test_hints_are_read_from_the_command_line_and_from_a_file(tmp_path):
    assert Hint.parse("12, 30.5, #c03020") == Hint(12, 30.5, RED)
    assert Hint.parse("1,2,rgb(1, 2, 3)").color == "rgb(1, 2, 3)"
    assert Hint.parse("3,4,#102030@1.5").at == 1.5
    for encoding in ("utf-8", "utf-8-sig"):  # some editors write a byte order mark
        (tmp_path / "hints.json").write_text(json.dumps([{"x": 12, "y": 30.5, "color": RED}]), encoding)
        assert read_hints(tmp_path / "hints.json") == [Hint(12, 30.5, RED)]


@pytest.mark.parametrize("text", ["", "1,2", "1,2,", "a,2,#c03020", "1,2,#c0302", "nan,2,red", "1,inf,red", "1,2,3,4"])
def test_what_is_no_hint_is_refused(text):
    with pytest.raises(ValueError, match="is not X,Y,#rrggbb"):
        Hint.parse(text)


BAD = ["", "{}1", "[1]", '["ab"]', '[{"x": 1}]', '[{"x": 1, "y": "2", "color": "red"}]', '{"x": 1}']


@pytest.mark.parametrize("text", BAD)
def test_a_file_of_something_else_is_named(tmp_path, text):
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(ValueError, match=r"odd\.json holds no hints"):
        read_hints(tmp_path / "odd.json")


@pytest.mark.parametrize("place", [(-1, 5), (300, 5), (5, 200), (1e9, 1e9)])
def test_a_hint_outside_the_photo_is_refused_with_the_photos_size(colorizer, photo, place):
    with pytest.raises(ValueError, match="outside the photo of 300x200 pixels"):
        colorizer(photo, [Hint(*place, RED)])


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(st.tuples(st.floats(0, 0.999), st.floats(0, 0.999), st.integers(0, 2**24 - 1)), max_size=8),
)
@settings(max_examples=20, deadline=None)
def test_any_hints_on_any_photo_give_a_photo(colorizer, height, width, points):
    photo = np.full((height, width), 90, np.uint8)
    hints = [Hint(x * width, y * height, f"#{color:06x}") for x, y, color in points]
    assert colorizer(photo, hints).shape == (height, width, 3)


def test_weights_that_know_no_hints_say_so(photo, loud_generator):
    with pytest.raises(ValueError, match="takes no hints: notebook 07"):
        Colorizer(loud_generator, "fp32")(photo, [Hint(1, 1, RED)])


def test_suggested_colors_begin_with_the_predicted_one_and_differ(hinted_generator, loud_generator, photo):
    colored = photo[::-1].copy()
    own, *common = suggest_colors(hinted_generator, photo, colored, 150, 60)
    assert own == "#" + bytes(colored[60, 150]).hex() and len(set(common)) == len(common) > 2
    lightness = [rgb2lab(np.array([[tuple(bytes.fromhex(each[1:]))]], np.uint8))[0, 0, 0] for each in common]
    assert np.ptp(lightness) < 2  # only hue and chroma differ
    assert suggest_colors(Colorizer(loud_generator, "fp32").generator, photo, colored, 0, 199)[0].startswith("#")


@pytest.fixture
def trained(kept, hinted_generator):
    """A run whose last phase left a generator with hints."""
    kept("mine", "hints", hinted_generator)


def test_the_command_takes_points_and_a_file(trained, tmp_path, photo):
    cv2.imwrite(str(tmp_path / "in.png"), photo[..., ::-1])
    (tmp_path / "hints.json").write_text(json.dumps([{"x": 20, "y": 180, "color": "#507050"}]))
    source, target = str(tmp_path / "in.png"), tmp_path / "out.png"
    main([source, str(target), "--hint", "150,60,#907060", "--hints", str(tmp_path / "hints.json")])
    lab = rgb2lab(cv2.imread(str(target))[..., ::-1])
    assert np.hypot(*(lab[60, 150] - lab_of((0x90, 0x70, 0x60)))[1:]) < 2
    assert np.hypot(*(lab[180, 20] - lab_of((0x50, 0x70, 0x50)))[1:]) < 2


WRONG = [
    ("in.png", "--hint", "1,2"),
    ("in.png", "--hint", "900,2,red"),
    (".", "--hint", "1,2,red"),
    (".", "--ask", "3"),
]


@pytest.mark.parametrize(("source", "option", "value"), WRONG)
def test_what_is_no_hint_and_hints_for_a_folder_are_refused(trained, tmp_path, photo, source, option, value, capsys):
    cv2.imwrite(str(tmp_path / "in.png"), photo[..., ::-1])
    with pytest.raises(SystemExit):
        main([str(tmp_path / source), str(tmp_path / "out.png"), option, value])
    assert "hint" in capsys.readouterr().err and not (tmp_path / "out.png").exists()
