"""Photos of every kind are used correctly or skipped, counted and named; none stops a preparation."""

import os
import pickle
import re

import numpy as np
import odd_photos
import pytest
from bench.common import write_photos
from PIL import Image

from helpers.apps.photo_files import JPEG_SIDE, encode
from helpers.data import dataset
from helpers.data.photos import list_photos, read_photo, read_rgb
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


def test_a_folder_of_all_kinds_is_prepared_and_every_file_accounted_for(cfg, folder):
    write_photos(folder, 12, 80)  # so that the preparation has what it needs
    good, small = odd_photos.write_good(folder), odd_photos.write_small(folder)
    bad = odd_photos.write_bad(folder)
    odd_photos.color().save(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"), format="png")  # no Unicode
    photos = dataset.prepare(cfg.replace(data_source="folder", photos_folder=str(folder), size=64))
    dropped = photos.dropped.set_index("source")["rule"]
    names = [path.name.encode(errors="backslashreplace").decode() for path in folder.iterdir()]
    assert sorted([*photos.manifest["source"], *dropped.index]) == sorted(names)
    for rule, files in {dataset.UNREADABLE: bad, "smaller than 64 px": small}.items():
        assert set(dropped[dropped == rule].index) == set(files)
    for name in bad:
        with pytest.raises(OSError, match=re.escape(name)):
            read_rgb(folder / name)
    assert {"gray.jpg", "16 bit.png"} <= set(dropped[dropped == "near-gray"].index)
    assert dropped.reindex(good).dropna().isin(["near-gray", "near-duplicate"]).all()


def test_linked_folders_are_followed_once_loops_end_and_a_closed_folder_is_named(folder, monkeypatch, capsys):
    elsewhere, scandir = folder.parent / "elsewhere", os.scandir
    for name in ("a.PNG", "below/b.jpg", "../elsewhere/cat.png", "notes.txt", "no/c.png"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    links = {"below/up": folder, "self.jpg": folder / "self.jpg", "gone.jpg": folder / "none.jpg", "linked": elsewhere}
    for name, target in links.items():
        (folder / name).symlink_to(target)

    def refuse(path):  # a test may run as root, who may open anything
        if str(path).endswith("no"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    names = [path.relative_to(folder).as_posix() for path in list_photos(folder)]
    assert names == ["a.PNG", "below/b.jpg", "linked/cat.png"]
    assert str(folder / "no") in capsys.readouterr().out


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
            fits = max(photo.rgb.shape) <= JPEG_SIDE  # a damaged header may tell of a larger one
            target = path.with_suffix(".jpg" if fits else ".png")
            assert encode(photo.rgb, photo.details, target, 90).startswith(b"\xff\xd8" if fits else b"\x89PNG")
    return counts
