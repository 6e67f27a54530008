"""Photos to show: those of a folder that can be read, or those that scikit-image ships."""

import numpy as np
import odd_photos
import pytest
import torch

from helpers.data import dataset


def test_without_a_folder_the_color_photos_of_scikit_image_are_shown():
    squares = dataset.load_squares("", 48)
    assert squares.shape == (5, 3, 48, 48) and squares.dtype == torch.uint8
    assert all((photo.float().amax(0) - photo.float().amin(0)).mean() > 5 for photo in squares)


def test_of_a_folder_what_can_be_read_is_shown_and_the_rest_named(tmp_path, capsys):
    bad = odd_photos.write_bad(tmp_path)
    for i in range(4):
        odd_photos.color((90 + i, 60)).save(tmp_path / f"photo{i}.png")
    assert [path.name for path in dataset.show_photos(str(tmp_path))] == [f"photo{i}.png" for i in range(4)]
    printed = capsys.readouterr().out
    assert all(name in printed for name in bad) and "skipped" in printed
    assert [path.name for path in dataset.show_photos(str(tmp_path), 2)] == ["photo0.png", "photo1.png"]


def test_squares_hold_the_center_of_each_photo_red_first(tmp_path):
    odd_photos.color((120, 60)).save(tmp_path / "photo.png")
    (square,) = dataset.load_squares(str(tmp_path), 60)
    assert np.array_equal(square.permute(1, 2, 0), np.asarray(odd_photos.color((120, 60)))[:, 30:90])


def test_a_folder_of_which_nothing_can_be_read_is_named(tmp_path):
    odd_photos.write_bad(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"None of the photos in {tmp_path} can be read"):
        dataset.show_photos(str(tmp_path))
