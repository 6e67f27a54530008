"""From a folder to a prepared set: rules, split, what is repeated, what is refused; Kaggle's photos if there."""

import hashlib
import io
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import odd_photos
import pandas as pd
import pytest
import skimage
import torch

from helpers.config import Config
from helpers.data import dataset
from helpers.data.batches import Batches
from helpers.data.photos import read_rgb

SHIPPED = Path(skimage.__file__).parent / "data"
PHOTOS = ["chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png"]
CHELSEA, COFFEE, *_ = ALL = [cv2.imread(str(SHIPPED / name)) for name in PHOTOS]


def color_photo(number, height=90, width=120):
    """A photo of soft colored patches that no other number gives, uint8 BGR."""
    patches = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)


def gray_of(bgr):
    return cv2.cvtColor(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)


def paler(bgr, share):
    """A photo with this share of its colors; its hash hardly changes, its color thumbnail does."""
    return cv2.addWeighted(bgr, share, gray_of(bgr), 1 - share, 0)


# the rules


def rules_of(folder, cfg, photos, **changes):
    """Write photos (BGR), a dict by file name; return the rule that drops each."""
    for name, bgr in photos.items():
        cv2.imwrite(str(folder / name), bgr, [cv2.IMWRITE_JPEG_QUALITY, 60] if name.endswith("jpg") else [])
    facts = pd.DataFrame([dataset.inspect(folder / name) for name in photos])
    return list(dataset.apply_rules(facts, cfg.replace(**changes)))


def test_what_looks_like_an_earlier_photo_is_a_near_duplicate(tmp_path, cfg):
    photos = {f"{number}.png": bgr for number, bgr in enumerate(ALL)}
    for number, bgr in enumerate(ALL):  # no part is like the whole or another one
        quarters = [part for half in np.array_split(bgr, 2) for part in np.array_split(half, 2, axis=1)]
        photos |= {f"{number} {i}.png": part for i, part in enumerate(quarters)}
    photos["pale.png"] = paler(CHELSEA, 0.6)  # thumbnails differ by 10 of 255
    alike = {"again.jpg": CHELSEA, "again.bmp": COFFEE, "center.jpg": cv2.resize(CHELSEA[:, 75:375], (255, 255))}
    alike["paler.png"] = paler(COFFEE, 0.85)  # by 6
    alike |= {f"{factor}.jpg": cv2.resize(CHELSEA, None, fx=factor, fy=factor) for factor in (0.5, 1.1)}
    rules = rules_of(tmp_path, cfg, photos | alike, min_colorfulness=0.0)
    assert rules == [""] * len(photos) + ["near-duplicate"] * len(alike)


ROWS, COLUMNS = np.mgrid[:96, :96, :1][:2] / 96
TINT = (ROWS * COLUMNS + 0.2 * np.sin(40 * ROWS)).clip(0, 1) ** np.array([1.6, 1.0, 0.7])  # of a toned print


def test_small_and_gray_photos_are_dropped_by_their_rule(tmp_path, cfg):
    cut, toned = CHELSEA[:100, :200], (255 * TINT).astype(np.uint8)  # toned: colorful, but of one tint
    photos = {"a.png": cut, "b.png": cut[:99], "c.png": gray_of(COFFEE), "d.png": paler(CHELSEA, 0.05), "e.png": toned}
    strict = rules_of(tmp_path, cfg, photos, size=100)
    assert strict[:4] == ["", "smaller than 100 px", "near-gray", "near-gray"]
    assert rules_of(tmp_path, cfg, photos, min_colorfulness=0.5)[2:] == ["near-gray", "", "near-gray"]


# the split


@pytest.mark.parametrize("count", [10, 24, 101, 1500])
def test_a_split_is_80_10_10_and_repeats_with_its_seed_in_any_order(count):
    groups = [f"photo{i:04d}" for i in range(count)]
    sides = dataset.split(groups, 0)
    assert sides.count("validation") == sides.count("test") == round(count / 10)
    assert sides == dataset.split(groups[::-1], 0)[::-1] != dataset.split(groups, 1)
    assert sides != sorted(sides, key=["train", "validation", "test"].index)  # not by name


def test_parts_of_one_picture_are_never_parted_and_the_dropped_can_be_looked_at(sample_photos):
    manifest, dropped = sample_photos.manifest, sample_photos.dropped
    assert len(manifest) >= 16 and (manifest.groupby("group").size() > 1).any()
    assert manifest.groupby("group")["split"].nunique().max() == 1
    assert manifest.groupby("split")["group"].nunique()[["validation", "test"]].tolist() == [2, 2]
    assert {source.split("/")[0] for source in dropped["source"]} == {"camera", "moon"}
    assert set(dropped["rule"]) == {"near-gray"} and sample_photos.examples("cannot be read") == []
    assert {example.shape for example in sample_photos.examples("near-gray", size=32)} == {(3, 32, 32)}


# a prepared set


@pytest.fixture
def photos_folder(tmp_path):
    """A folder of twenty good photos, some in a folder below, none square."""
    folder = tmp_path / "my photos"
    (folder / "below").mkdir(parents=True)
    for i in range(20):
        cv2.imwrite(str(folder / ("below" if i % 3 == 0 else "") / f"good{i:02d}.jpg"), color_photo(i))
    return folder


@pytest.fixture
def own(cfg, photos_folder):
    """The configuration for the photos of that folder."""
    return cfg.replace(data_source="folder", photos_folder=str(photos_folder), n_photos=100)


def test_a_set_holds_the_center_of_each_photo_and_where_it_comes_from(own, photos_folder):
    before = sorted(photos_folder.rglob("*"))
    photos = dataset.prepare(own)
    assert sorted(photos_folder.rglob("*")) == before  # on Colab and Kaggle it is a read-only mount
    shapes = {split: tuple(photos.load(split).shape) for split in dataset.SPLITS}
    assert shapes == {"train": (16, 3, 64, 64), "validation": (2, 3, 64, 64), "test": (2, 3, 64, 64)}
    with pytest.raises(ValueError, match=r"valid.*train, validation, test"):
        photos.load("valid")
    assert len(photos.load("train", 3)) == 3 and photos.manifest["source"].str.startswith("below/").sum() == 7
    assert len({name for split in dataset.SPLITS for name in photos.names(split)}) == 20
    for row in photos.manifest.itertuples():
        center = cv2.imread(str(photos_folder / row.source))[:, 15:105, ::-1]
        assert np.array_equal(read_rgb(photos.folder / row.name), cv2.resize(center, (64, 64)))
        assert row.sha256 == hashlib.sha256((photos_folder / row.source).read_bytes()).hexdigest()
        assert (row.width, row.height) == (120, 90) and row.colorfulness > own.min_colorfulness


def test_preparing_again_reads_no_photo_and_on_another_machine_gives_the_same(own, monkeypatch, tmp_path):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # interrupted while it writes photos
        patch.setattr("PIL.Image.Image.save", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
        dataset.prepare(own)
    first = dataset.prepare(own)
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "inspect", lambda path: pytest.fail("a photo was read again"))
        second = dataset.prepare(own)
    monkeypatch.setenv("COLORIZE_WORKSPACE", str(tmp_path / "another"))
    monkeypatch.setenv("HOME", str(tmp_path))
    third = dataset.prepare(own.replace(photos_folder="~/my photos"))
    assert first.folder == second.folder != third.folder
    for other in (second, third):
        pd.testing.assert_frame_equal(first.manifest, other.manifest)
        pd.testing.assert_frame_equal(first.dropped, other.dropped)


def test_exchanged_or_added_photos_and_another_seed_make_a_new_set(own, photos_folder):
    sets = [dataset.prepare(own)]
    for number, name in ((500, "good01.jpg"), (501, "new.jpg")):
        cv2.imwrite(str(photos_folder / name), color_photo(number))
        sets.append(dataset.prepare(own))
    sets += [*(dataset.prepare(own.replace(n_photos=12, seed=seed)) for seed in (0, 1))]
    assert len({photos.folder for photos in sets}) == 5
    assert [len(photos.manifest) for photos in sets] == [20, 20, 21, 12, 12]
    assert len({frozenset(photos.manifest["sha256"]) for photos in sets}) == 5


def test_memory_mapped_photos_make_the_same_batches(sample_photos):
    large, inside = replace(sample_photos, memory_gb=0.0), sample_photos.load("train", None)
    for photos in (large.load("train", None), large.load("train", None)):  # made, and from the file of before
        assert photos.untyped_storage().filename
        pair = [Batches(each, 4, augment=[lambda rgb: rgb.flip(-1)], seed=3) for each in (inside, photos)]
        assert all(torch.equal(ours.rgb, theirs.rgb) for ours, theirs in zip(*pair, strict=True))


def test_originals_are_the_centers_of_the_files_that_are_large_enough(own, photos_folder):
    for i in range(20):
        cv2.imwrite(str(photos_folder / f"large{i}.png"), color_photo(200 + i, 130, 100 + i))
    photos = dataset.prepare(own)
    large = dataset.originals(photos, 100)
    assert set(large.manifest["source"]) == {f"large{i}.png" for i in range(20)}
    for row in large.manifest.itertuples():
        rgb = read_rgb(photos_folder / row.source)
        top, left = (rgb.shape[0] - 100) // 2, (rgb.shape[1] - 100) // 2  # its own pixels, not resized
        assert np.array_equal(read_rgb(large.folder / row.name), rgb[top : top + 100, left : left + 100])
    with pytest.raises(ValueError, match="original_size"):
        dataset.originals(photos, 131)


# what is refused


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"photos_folder": "nowhere"}, FileNotFoundError, "nowhere"),
        ({"photos_folder": ""}, FileNotFoundError, "photos_folder"),  # and the current folder is not taken instead
        ({"photos_folder": "no photos"}, FileNotFoundError, r"no photos.*\.jpg"),
        ({"size": 4096}, ValueError, "20.*size.*add photos"),
        ({"photos_folder": "../gray"}, ValueError, "Only 0 .*near-gray': 12"),
        ({"data_source": "kaggle"}, RuntimeError, 'no network.*"folder".*"sample"'),
    ],
)
def test_what_cannot_be_prepared_is_named_with_what_to_do(own, photos_folder, monkeypatch, changes, error, says):
    monkeypatch.setattr("kagglehub.dataset_download", lambda handle: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.chdir(photos_folder)
    for name in ("no photos", "../gray"):
        (photos_folder / name).mkdir()
    for i in range(12):
        cv2.imwrite(f"../gray/{i}.png", gray_of(color_photo(i)))
    with pytest.raises(error, match=f"(?s){says}"):
        dataset.prepare(own.replace(**changes))


# photos to show


def test_of_a_folder_what_can_be_read_is_shown_and_the_rest_named(tmp_path, capsys):
    bad = odd_photos.write_bad(tmp_path)
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        dataset.show_photos(str(tmp_path))
    for i in range(3):
        odd_photos.color((120, 60 + i)).save(tmp_path / f"photo{i}.png")
    assert [path.name for path in dataset.show_photos(str(tmp_path))] == [f"photo{i}.png" for i in range(3)]
    printed = capsys.readouterr().out
    assert all(name in printed for name in bad) and "skipped" in printed
    odd_photos.color((60, 121)).save(tmp_path / "upright.png")
    square, *_, upright = dataset.load_squares(str(tmp_path), 60).permute(0, 2, 3, 1)
    assert np.array_equal(square, np.asarray(odd_photos.color((120, 60)))[:, 30:90])
    assert np.array_equal(upright, np.asarray(odd_photos.color((60, 121)))[30:90])
    shown = dataset.load_squares("", 48)  # without a folder the watch photos are shown
    assert shown.shape == (8, 3, 48, 48) and (shown.amax(1) - shown.amin(1)).float().mean((1, 2)).min() > 5


# Kaggle's photos


def test_kaggle_is_asked_for_one_version_and_only_color_is_read(cfg, monkeypatch, photos_folder, tmp_path):
    asked = []
    for folder in ("train_color", "train_black", "test_color"):
        shutil.copytree(photos_folder, tmp_path / "kaggle" / "data" / folder)
    monkeypatch.setattr("kagglehub.dataset_download", lambda handle: (asked.append(handle), tmp_path / "kaggle")[1])
    folder, paths = dataset.find_photos(cfg.replace(data_source="kaggle"))
    assert asked == ["aayush9753/image-colorization-dataset/versions/1"]
    assert len(paths) == 20 and all("train_color" in path.parts for path in paths)


def test_a_downloaded_archive_cannot_write_outside_its_folder(tmp_path, monkeypatch):
    """The archive is unpacked by kagglehub, with Python's tarfile."""
    with tarfile.open(tmp_path / "archive", "w") as archive:
        archive.addfile(tarfile.TarInfo("../escaped.txt"), io.BytesIO())

    def download(handle):
        with tarfile.open(tmp_path / "archive") as archive:
            archive.extractall(tmp_path / "out")

    monkeypatch.setattr("kagglehub.dataset_download", download)
    monkeypatch.setattr("tarfile.TarFile.extraction_filter", None, raising=False)
    with pytest.raises(RuntimeError, match="outside"):
        dataset.download_kaggle()
    monkeypatch.setattr("kagglehub.dataset_download", lambda handle: str(tmp_path))  # half a download
    with pytest.raises(RuntimeError, match=f"{tmp_path} holds no data/train_color"):
        dataset.download_kaggle()


KAGGLE = Path(os.environ.get("KAGGLEHUB_CACHE", "/nowhere"))


@pytest.mark.skipif(not (KAGGLE / "manifest.csv").exists(), reason="KAGGLEHUB_CACHE says not which photos are spoiled")
def test_kaggle_spoiled_photos_are_found_and_no_other_is_lost(tmp_path):
    """On 400 photos of KAGGLEHUB_CACHE, whose manifest.csv says which were spoiled on purpose."""
    table, folder = pd.read_csv(KAGGLE / "manifest.csv", keep_default_na=False), dataset.download_kaggle()
    table = table[table["split"] == "train"].set_index("name")
    table["sha256"] = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in table.index]
    twin = table["sha256"].isin(table.loc[table["poor"] == "duplicate", "sha256"])
    table["good"] = (table["poor"] == "") & ~twin
    table = table.sort_values("good", kind="stable")[:400]
    for name in table.index:
        (tmp_path / name).symlink_to(folder / name)
    photos = dataset.prepare(Config(data_source="folder", photos_folder=tmp_path, size=128, n_photos=10_000))
    dropped = table.index.isin(photos.dropped["source"])
    assert len(photos.manifest) + dropped.sum() == 400 and photos.manifest["sha256"].is_unique
    assert dropped[table["poor"] == "greyscale"].mean() >= 0.95 and dropped[table["good"]].mean() <= 0.02
