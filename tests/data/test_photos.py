"""Photos of every kind are used correctly or skipped, counted and named; none stops a preparation."""

import os
import pickle
import re

import cv2
import numpy as np
import odd_photos
import pytest
from PIL import Image

from helpers.apps.photo_files import encode
from helpers.data import dataset
from helpers.data.photos import center_square, list_photos, read_photo, read_rgb
from helpers.runs import load_network


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def test_every_good_kind_is_read_as_it_looks(folder):
    for name, looks in odd_photos.write_good(folder).items():
        rgb = read_rgb(folder / name)
        assert rgb.shape == (200, 300, 3) and rgb.dtype == np.uint8, name
        assert np.abs(rgb.astype(float) - np.asarray(looks)).mean() < 4, name


UNUSUAL = odd_photos.unusual()


@pytest.mark.parametrize("name", UNUSUAL)
def test_a_file_is_read_as_a_viewer_shows_it_and_what_is_lost_is_noted(name):
    content, looks, note = UNUSUAL[name]
    limit, photo = Image.MAX_IMAGE_PIXELS, read_photo(content, max_pixels=None)
    off = np.abs(photo.rgb.astype(float) - looks)
    assert off.mean() < 1 and off.max() < 4
    assert re.search(note, "".join(photo.notes)) and bool(photo.notes) == bool(note)
    assert photo.details.get("icc_profile") == {"sRGB.png": odd_photos.STANDARD}.get(name)
    assert limit == Image.MAX_IMAGE_PIXELS > 0
    assert (photo.opacity is not None) == name.startswith("transparent")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "pillow-heif"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>" + b"x" * 999, "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("Großmutter, 1911\n".encode() * 99, "a text"),
        (pickle.dumps({"weights": 1}), "could run code"),
    ],
)
def test_a_file_is_what_its_bytes_say(content, says, folder):
    (folder / "a.jpg").write_bytes(content)
    for read, error in ((read_photo, OSError), (load_network, ValueError)):
        with pytest.raises(error, match=rf"a\.jpg .*{says}") as raised:
            read(folder / "a.jpg")
        assert "again." not in str(raised.value)


def test_every_bad_kind_is_refused_by_name(folder):
    for name in odd_photos.write_bad(folder):
        with pytest.raises(OSError, match=re.escape(name)):
            read_rgb(folder / name)


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


def test_a_folder_of_all_kinds_is_prepared_and_every_file_accounted_for(cfg, folder):
    random = np.random.default_rng(0)
    for i in range(12):  # so that the preparation has what it needs
        small = random.integers(0, 256, (5, 5, 3), np.uint8)
        cv2.imwrite(str(folder / f"enough{i}.png"), cv2.resize(small, (80, 80), interpolation=cv2.INTER_CUBIC))
    good, bad, small = (
        write(folder) for write in (odd_photos.write_good, odd_photos.write_bad, odd_photos.write_small)
    )
    odd_photos.color().save(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"), format="png")  # no Unicode
    photos = dataset.prepare(cfg.replace(data_source="folder", photos_folder=str(folder), size=64))
    dropped = photos.dropped.set_index("source")["rule"]
    names = [path.name.encode(errors="backslashreplace").decode() for path in folder.iterdir()]
    assert sorted([*photos.manifest["source"], *dropped.index]) == sorted(names)
    assert set(dropped[dropped == dataset.UNREADABLE].index) == set(bad)
    assert set(dropped[dropped == "smaller than 64 px"].index) == set(small)
    assert {"gray.jpg", "16 bit.png"} <= set(dropped[dropped == "near-gray"].index)
    assert dropped.reindex(good).dropna().isin(["near-gray", "near-duplicate"]).all()


def test_linked_folders_are_followed_once_and_loops_end(folder):
    (elsewhere := folder.parent / "elsewhere").mkdir()
    (folder / "below").mkdir()
    for path in (folder / "a.PNG", folder / "below" / "b.jpg", elsewhere / "cat.png", folder / "notes.txt"):
        path.touch()
    links = {"below/up": folder, "self.jpg": folder / "self.jpg", "gone.jpg": folder / "none.jpg", "linked": elsewhere}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    names = [path.relative_to(folder).as_posix() for path in list_photos(folder)]
    assert names == ["a.PNG", "below/b.jpg", "linked/cat.png"]


def test_a_folder_that_may_not_be_opened_is_named_and_passed_over(folder, monkeypatch, capsys):
    (folder / "secret").mkdir()
    (folder / "a.png").touch()
    scandir = os.scandir

    def refuse(path):  # a test may run as root, who may open anything
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list_photos(folder) == [folder / "a.png"]
    assert "skipped" in (printed := capsys.readouterr().out) and "secret" in printed


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
