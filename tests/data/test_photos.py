"""Photos of every kind are used correctly or skipped, counted and named; none stops a preparation."""

import os

import cv2
import numpy as np
import odd_photos
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.apps.photo_files import encode
from helpers.data import dataset
from helpers.data.photos import center_square, list_photos, read_photo, read_rgb


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def test_every_good_kind_is_read_as_it_looks(folder):
    for name, looks in odd_photos.write_good(folder).items():
        rgb = read_rgb(folder / name)
        assert rgb.shape == (200, 300, 3) and rgb.dtype == np.uint8, name
        assert np.abs(rgb.astype(float) - np.asarray(looks)).mean() < 4, name


def test_every_bad_kind_is_refused_by_name(folder):
    for name in odd_photos.write_bad(folder):
        with pytest.raises(OSError, match="cannot be read as a photo") as caught:
            read_rgb(folder / name)
        assert name in str(caught.value)


def test_read_rgb_gives_red_first_and_reads_gray_files_too(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((4, 6, 3), (0, 10, 200), np.uint8))
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((4, 6), 77, np.uint8))
    red = read_rgb(tmp_path / "red.png")
    assert red.shape == (4, 6, 3) and red.dtype == np.uint8 and tuple(red[0, 0]) == (200, 10, 0)
    assert (read_rgb(tmp_path / "gray.png") == 77).all()


def test_an_unreadable_file_is_named(tmp_path):
    for name, content in {"text.jpg": b"not a photo", "empty.jpg": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(OSError, match=name):
            read_rgb(tmp_path / name)


@pytest.mark.parametrize(("height", "width"), [(100, 300), (300, 100), (201, 150), (99, 99)])
def test_photos_are_cropped_at_the_center_not_stretched(height, width):
    """A disc in the middle stays a disc in the middle."""
    photo = np.zeros((height, width, 3), np.uint8)
    cv2.circle(photo, (width // 2, height // 2), 40, (255, 255, 255), -1)
    disc = center_square(photo, 128)[..., 0] > 127
    assert disc.shape == (128, 128)
    rows, columns = np.flatnonzero(disc.any(1)), np.flatnonzero(disc.any(0))
    assert abs(len(rows) - len(columns)) <= 2
    assert len(rows) == pytest.approx(81 * 128 / min(height, width), abs=2)
    assert rows.mean() == pytest.approx(63.5, abs=1.5) and columns.mean() == pytest.approx(63.5, abs=1.5)


def prepare(cfg, folder):
    return dataset.prepare(cfg.replace(data_source="folder", photos_folder=str(folder), size=64))


def enough(folder, count=12):
    """Different photos, so that a preparation has what it needs."""
    random = np.random.default_rng(0)
    for i in range(count):
        small = random.integers(0, 256, (5, 5, 3), np.uint8)
        cv2.imwrite(str(folder / f"enough{i}.png"), cv2.resize(small, (80, 80), interpolation=cv2.INTER_CUBIC))


def test_a_folder_of_all_kinds_is_prepared_and_every_file_accounted_for(cfg, folder):
    enough(folder)
    good, bad, small = (
        write(folder) for write in (odd_photos.write_good, odd_photos.write_bad, odd_photos.write_small)
    )
    photos = prepare(cfg, folder)
    dropped = photos.dropped.set_index("source")["rule"]
    assert sorted([*photos.manifest["source"], *dropped.index]) == sorted(path.name for path in folder.iterdir())
    assert set(dropped[dropped == dataset.UNREADABLE].index) == set(bad)
    assert set(dropped[dropped == "smaller than 64 px"].index) == set(small)
    assert {"gray.jpg", "16 bit.png"} <= set(dropped[dropped == "near-gray"].index)
    assert dropped.reindex(good).dropna().isin(["near-gray", "near-duplicate"]).all()
    assert photos.load("train", None).shape[1:] == (3, 64, 64)


def test_linked_folders_are_followed_once_and_loops_end(folder):
    enough(folder)
    (folder / "below").mkdir()
    (folder / "below" / "up").symlink_to(folder)
    (folder / "self.jpg").symlink_to(folder / "self.jpg")
    (folder / "dangling.jpg").symlink_to(folder / "gone.jpg")
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (folder / "linked").symlink_to(elsewhere)
    odd_photos.color().save(elsewhere / "cat.png")
    names = [path.relative_to(folder).as_posix() for path in list_photos(folder)]
    assert names == sorted([*(f"enough{i}.png" for i in range(12)), "linked/cat.png"])


def test_a_folder_that_may_not_be_opened_is_named_and_passed_over(folder, monkeypatch, capsys):
    enough(folder)
    (folder / "secret").mkdir()
    scandir = os.scandir

    def refuse(path):  # a test may run as root, who may open anything
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert len(list_photos(folder)) == 12
    assert "skipped" in (printed := capsys.readouterr().out) and "secret" in printed


def test_a_name_that_is_no_unicode_is_no_obstacle(cfg, folder):
    enough(folder)
    odd_photos.color().save(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"), format="png")
    photos = prepare(cfg, folder)
    assert "caf\\udce9.png" in {*photos.manifest["source"], *photos.dropped["source"]}


def test_damaged_photos_never_raise_anything_else(folder):
    """A quick part of what `make stress` does."""
    assert fuzz(folder / "photo.jpg", 300)["read"] > 0


def fuzz(path, count, seed=0):
    """Read photos damaged at random; count those that were read, and those that were refused as they should be."""
    random, originals, counts = np.random.default_rng(seed), odd_photos.originals(), {"read": 0, "refused": 0}
    for _ in range(count):
        path.write_bytes(odd_photos.damaged(random, originals))
        facts = dataset.inspect(path)
        counts["read" if facts["readable"] else "refused"] += 1
        assert facts["thumb"].shape == (768,)
        if facts["readable"]:  # then it can be written too, whatever its EXIF data have become
            photo = read_photo(path)
            assert encode(photo.rgb, photo.details, path.with_name("color.jpg"), 90).startswith(b"\xff\xd8")
    return counts


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(width=st.integers(1, 400), height=st.integers(1, 400), mode=st.sampled_from(["RGB", "L", "RGBA", "CMYK", "P"]))
def test_any_size_and_mode_gives_a_square_or_is_too_small(tmp_path, width, height, mode):
    path = tmp_path / "photo.tif"
    odd_photos.color((width, height)).convert(mode).save(path)
    facts = dataset.inspect(path)
    assert (facts["width"], facts["height"]) == (width, height) and facts["readable"]
    assert center_square(read_rgb(path), 64).shape == (64, 64, 3)
    assert facts["colorfulness"] >= 0 and isinstance(pd.DataFrame([facts])["hash"][0], (int, np.integer))
