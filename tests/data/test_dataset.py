"""From a folder to a prepared set: what is dropped, what is repeated, what is refused; Kaggle's photos if there."""

import hashlib
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest

from helpers.color import colorfulness
from helpers.config import Config
from helpers.data import dataset
from helpers.data.photos import read_rgb, to_tensor


def color_photo(number, height=90, width=120):
    """A photo of soft colored patches that no other number gives, uint8 BGR."""
    patches = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)


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
    return cfg.replace(data_source="folder", photos_folder=str(photos_folder))


def test_a_set_has_square_photos_of_the_wanted_size_in_three_splits(own):
    photos = dataset.prepare(own)
    sizes = {split: photos.load(split).shape for split in ("train", "validation", "test")}
    assert sizes == {"train": (16, 3, 64, 64), "validation": (2, 3, 64, 64), "test": (2, 3, 64, 64)}
    assert photos.load("train", 3).shape[0] == 3
    names = [set(photos.names(split)) for split in sizes]
    assert sum(map(len, names)) == len(set.union(*names)) == 20


def test_the_photos_of_a_set_are_those_of_the_folder(own, photos_folder):
    """Every photo looks like the center square of its source, as OpenCV's bilinear resizing gives it."""
    photos = dataset.prepare(own)
    for row in photos.manifest.itertuples():
        center = cv2.imread(str(photos_folder / row.source))[:, 15:105]
        wanted = cv2.resize(center, (64, 64), interpolation=cv2.INTER_LINEAR)[..., ::-1]
        assert np.array_equal(read_rgb(photos.folder / row.name), wanted)


def test_the_manifest_tells_where_each_photo_comes_from(own, photos_folder):
    manifest = dataset.prepare(own).manifest
    assert len(manifest) == 20 and manifest["source"].str.startswith("below/").sum() == 7
    for row in manifest.itertuples():
        content = (photos_folder / row.source).read_bytes()
        assert row.sha256 == hashlib.sha256(content).hexdigest()
        assert (row.width, row.height) == (120, 90) and row.colorfulness > own.min_colorfulness


def test_preparing_again_reads_no_photo_and_gives_the_same(own, monkeypatch):
    first = dataset.prepare(own)
    monkeypatch.setattr(dataset, "inspect", lambda path: pytest.fail("a photo was read again"))
    second = dataset.prepare(own)
    pd.testing.assert_frame_equal(first.manifest, second.manifest)
    pd.testing.assert_frame_equal(first.dropped, second.dropped)


def test_exchanged_or_added_photos_make_a_new_set(own, photos_folder):
    first = dataset.prepare(own)
    cv2.imwrite(str(photos_folder / "good01.jpg"), color_photo(500))
    exchanged = dataset.prepare(own)
    cv2.imwrite(str(photos_folder / "new.jpg"), color_photo(501))
    added = dataset.prepare(own)
    assert len({first.folder, exchanged.folder, added.folder}) == 3
    assert set(first.manifest["sha256"]) != set(exchanged.manifest["sha256"]) and len(added.manifest) == 21


def test_preparing_on_another_machine_gives_the_same(own, monkeypatch, tmp_path):
    first = dataset.prepare(own)
    monkeypatch.setenv("COLORIZE_WORKSPACE", str(tmp_path / "another"))
    second = dataset.prepare(own)
    assert first.folder != second.folder
    pd.testing.assert_frame_equal(first.manifest, second.manifest)


def test_half_a_set_is_made_anew(own, monkeypatch):
    """A preparation that was interrupted while it wrote photos is not taken for a finished one."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        calls = []

        def interrupted(rgb, target):
            calls.append(1)
            if len(calls) == 5:
                raise KeyboardInterrupt

        patch.setattr(dataset, "_write", interrupted)
        dataset.prepare(own)
    assert len(dataset.prepare(own).load("train")) == 16


def test_another_seed_draws_another_sample(own):
    first, second = (dataset.prepare(own.replace(n_photos=12, seed=seed)).manifest for seed in (0, 1))
    assert len(first) == len(second) == 12
    assert set(first["source"]) != set(second["source"])


def test_bad_files_are_dropped_by_their_rule_and_stop_nothing(own, photos_folder):
    (photos_folder / "text.jpg").write_text("not a photo")
    (photos_folder / "empty.jpg").write_bytes(b"")
    (photos_folder / "notes.txt").write_text("not even named like a photo")
    gray = cv2.cvtColor(color_photo(100), cv2.COLOR_BGR2GRAY)
    cv2.imwrite(str(photos_folder / "gray.png"), gray)
    cv2.imwrite(str(photos_folder / "small.png"), color_photo(101, 63, 200))
    shutil.copy(photos_folder / "good01.jpg", photos_folder / "twin.jpg")
    photos = dataset.prepare(own)
    assert dict(zip(photos.dropped["source"], photos.dropped["rule"], strict=True)) == {
        "text.jpg": "cannot be read",
        "empty.jpg": "cannot be read",
        "gray.png": "near-gray",
        "small.png": "smaller than 64 px",
        "twin.jpg": "near-duplicate",
    }
    assert len(photos.manifest) == 20


def test_the_dropped_can_be_looked_at(own, photos_folder):
    cv2.imwrite(str(photos_folder / "gray.png"), cv2.cvtColor(color_photo(100), cv2.COLOR_BGR2GRAY))
    (photos_folder / "text.jpg").write_text("not a photo")
    photos = dataset.prepare(own)
    (example,) = photos.examples("near-gray", size=32)
    assert example.shape == (3, 32, 32)
    assert photos.examples("cannot be read") == []


def test_a_missing_folder_is_named(cfg, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        dataset.prepare(cfg.replace(data_source="folder", photos_folder=str(tmp_path / "nowhere")))


def test_a_folder_that_was_not_named_is_asked_for(cfg, photos_folder, monkeypatch):
    monkeypatch.chdir(photos_folder)  # the current folder must not be taken instead
    with pytest.raises(FileNotFoundError, match="photos_folder"):
        dataset.prepare(cfg.replace(data_source="folder", photos_folder=""))


def test_a_folder_without_photos_says_what_was_looked_for(cfg, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("no photo")
    with pytest.raises(FileNotFoundError, match=r"notes.*\.jpg"):
        dataset.prepare(cfg.replace(data_source="folder", photos_folder=str(tmp_path / "notes")))


def test_too_few_photos_say_why_and_what_to_do(own):
    with pytest.raises(ValueError, match=r"20.*smaller than 4096 px.*|smaller than 4096 px.*20") as caught:
        dataset.prepare(own.replace(size=4096))
    assert "size" in str(caught.value) and "add photos" in str(caught.value)


def test_an_unknown_split_is_refused_with_the_known_ones(sample_photos):
    with pytest.raises(ValueError, match=r"valid.*train, validation, test"):
        sample_photos.load("valid")


def test_a_home_folder_may_be_written_with_a_tilde(own, photos_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(photos_folder.parent))
    assert len(dataset.prepare(own.replace(photos_folder="~/my photos")).manifest) == 20


def test_when_kaggle_cannot_be_reached_the_other_sources_are_named(cfg, monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr("kagglehub.dataset_download", refuse)
    with pytest.raises(RuntimeError, match="no network") as caught:
        dataset.prepare(cfg.replace(data_source="kaggle"))
    assert '"folder"' in str(caught.value) and '"sample"' in str(caught.value)


def test_kaggle_is_asked_for_one_version_and_only_color_is_read(cfg, monkeypatch, photos_folder, tmp_path):
    asked = []
    for folder in ("train_color", "train_black", "test_color"):
        shutil.copytree(photos_folder, tmp_path / "kaggle" / "data" / folder)
    monkeypatch.setattr("kagglehub.dataset_download", lambda handle: (asked.append(handle), tmp_path / "kaggle")[1])
    folder, paths = dataset.find_photos(cfg.replace(data_source="kaggle"))
    assert asked == ["aayush9753/image-colorization-dataset/versions/1"]
    assert len(paths) == 20 and all("train_color" in path.parts for path in paths)


def test_sample_photos_keep_the_quarters_of_a_picture_together(sample_photos):
    assert (sample_photos.manifest.groupby("group")["split"].nunique() == 1).all()
    assert (sample_photos.manifest.groupby("group").size() > 1).any()


def test_sample_photos_need_no_network_and_drop_the_gray_ones(sample_photos):
    assert len(sample_photos.manifest) >= 16
    assert set(sample_photos.dropped["rule"]) == {"near-gray"}
    assert {source.split("/")[0] for source in sample_photos.dropped["source"]} == {"camera", "moon"}


# From here on with the photos of KAGGLEHUB_CACHE, whose manifest.csv says which were spoiled on purpose.


@pytest.fixture(scope="module")
def kaggle(kaggle_cache, tmp_path_factory):
    """All photos of the cache that pass the rules, prepared at 128 px."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLORIZE_WORKSPACE", str(tmp_path_factory.mktemp("kaggle")))
        return dataset.prepare(Config(profile="laptop", data_source="kaggle", size=128, n_photos=10_000))


@pytest.fixture(scope="module")
def labels(kaggle_cache):
    """A row per photo of train_color: its name, what is wrong with it, the file's sha256."""
    if not (kaggle_cache / "manifest.csv").exists():
        pytest.skip("KAGGLEHUB_CACHE has no manifest.csv that says which photos are bad")
    table = pd.read_csv(kaggle_cache / "manifest.csv", keep_default_na=False)
    table = table[table["split"] == "train"].set_index("name")
    (folder,) = kaggle_cache.glob("datasets/aayush9753/*/versions/1/data/train_color")
    table["file"] = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in table.index]
    return table


def test_kaggle_every_photo_is_either_chosen_or_dropped(kaggle, labels):
    assert sorted([*kaggle.manifest["source"], *kaggle.dropped["source"]]) == sorted(labels.index)


def test_kaggle_grays_are_found(kaggle, labels):
    gray = labels.index[labels["poor"] == "greyscale"]
    assert len(gray) == 20 and np.isin(gray, kaggle.dropped["source"]).mean() >= 0.95


def test_kaggle_duplicates_are_found(kaggle, labels):
    """Of a photo and its twin (a file of the same content) one at most stays."""
    stays = labels.loc[kaggle.manifest["source"], "file"].value_counts()
    twins = labels.loc[labels["poor"] == "duplicate", "file"]
    assert len(twins) == 20 and (labels["file"].isin(twins).sum()) == 40
    assert (stays.reindex(twins, fill_value=0) <= 1).mean() >= 0.95
    assert (stays == 1).all()


def test_kaggle_hardly_any_good_photo_is_lost(kaggle, labels):
    twins = labels.loc[labels["poor"] == "duplicate", "file"]
    good = labels.index[(labels["poor"] == "") & ~labels["file"].isin(twins)]
    lost = kaggle.dropped[kaggle.dropped["source"].isin(good)]
    assert len(lost) <= 0.02 * len(good), lost["rule"].value_counts().to_dict()


def test_kaggle_photos_smaller_than_wanted_are_dropped(kaggle_cache, kaggle, labels):
    (folder,) = kaggle_cache.glob("datasets/aayush9753/*/versions/1/data/train_color")
    short = pd.Series({name: min(cv2.imread(str(folder / name)).shape[:2]) for name in labels.index[:200]})
    rule = kaggle.dropped.set_index("source")["rule"].reindex(short.index)
    assert ((rule == "smaller than 128 px") == (short < 128)).all()


def test_kaggle_no_near_duplicate_straddles_the_split(kaggle):
    """Checked in another way than the selection does it: by the correlation of 32x32 gray thumbnails."""

    def thumbs(splits):
        grays = [kaggle.load(split).float().mean(1).numpy() for split in splits]
        small = np.stack([cv2.resize(g, (32, 32), interpolation=cv2.INTER_AREA).ravel() for g in np.concatenate(grays)])
        small -= small.mean(1, keepdims=True)
        return small / np.linalg.norm(small, axis=1, keepdims=True)

    alike = thumbs(["train"]) @ thumbs(["validation", "test"]).T
    held_out = kaggle.names("validation") + kaggle.names("test")
    pairs = [(kaggle.names("train")[i], held_out[j]) for i, j in np.argwhere(alike > 0.995)]
    assert not pairs
    sides = kaggle.manifest.groupby("sha256")["split"].nunique()
    assert (sides == 1).all()


def test_parts_of_a_picture_stay_together_and_two_pictures_are_tested(sample_photos):
    manifest = sample_photos.manifest
    assert manifest.groupby("group")["split"].nunique().max() == 1
    assert manifest.groupby("split")["group"].nunique()[["validation", "test"]].tolist() == [2, 2]


def test_toned_prints_are_gray_and_photos_are_not():
    rows, columns = np.mgrid[:96, :96] / 96
    gray = (rows * columns + 0.2 * np.sin(40 * rows)).clip(0, 1)[..., None]
    sepia = (255 * gray ** np.array([0.7, 1.0, 1.6])).astype(np.uint8)
    assert colorfulness(to_tensor(sepia)).item() > 20 and dataset.unexplained(sepia) < 2
    assert dataset.unexplained(np.ascontiguousarray(color_photo(3)[..., ::-1])) > 4
