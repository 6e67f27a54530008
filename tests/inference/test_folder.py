"""Folders and files in color: what is begun goes on, what is bad is listed, and nothing is overwritten."""

import os
import subprocess
import sys

import numpy as np
import odd_photos
import pandas as pd
import pytest
from notebook_tools import PROJECT
from PIL import Image, ImageCms

from helpers.inference import __main__ as command
from helpers.inference import folder
from helpers.inference.colorizer import Colorizer
from helpers.models.generator import Generator
from helpers.runs import Run

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def colorizer(loud_generator):
    return Colorizer(loud_generator, "fp32")


@pytest.fixture
def album(tmp_path):
    """A folder of photos of many kinds, some of them bad."""
    source = tmp_path / "album"
    (source / "below").mkdir(parents=True)
    good, bad = odd_photos.write_good(source), odd_photos.write_bad(source)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "grandmother, 1911"
    odd_photos.color((50, 90)).save(source / "below" / "old.jpg", exif=exif, icc_profile=SRGB)
    return source, good, bad


def test_a_folder_is_colorized_and_what_is_bad_is_listed(colorizer, album, tmp_path):
    source, good, bad = album
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    table = folder.colorize_folder(source, tmp_path / "out", colorizer, input_size=64)
    assert set(table["photo"]) == set(bad) and table["reason"].str.startswith("cannot be read").all()
    assert set(pd.read_csv(tmp_path / "out" / "skipped.csv")["photo"]) == set(bad)
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    written = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    same = {name for name in good if name.lower().endswith((".jpg", ".png"))}
    told = {"below/old.jpg", "skipped.csv", "made_with.json"}
    assert written - {"lock"} == same | {f"{name}.png" for name in good.keys() - same} | told
    with Image.open(tmp_path / "out/below/old.jpg") as old:
        assert old.size == (90, 50) and old.getexif()[0x010E] == "grandmother, 1911" and 0x0112 not in old.getexif()
        assert old.info["icc_profile"] == SRGB
    wanted = colorizer(source / "plain.png", input_size=64)
    assert np.abs(np.array(Image.open(tmp_path / "out/plain.png")).astype(int) - wanted).mean() < 0.1


def test_a_folder_goes_on_where_it_stopped(colorizer, album, tmp_path, capsys):
    source, good, _ = album
    folder.colorize_folder(source, tmp_path / "out", colorizer, input_size=64)
    kept = (tmp_path / "out/plain.png").stat().st_mtime_ns
    (tmp_path / "out/plain.jpg").unlink()
    capsys.readouterr()
    folder.colorize_folder(source, tmp_path / "out", colorizer, input_size=64)
    assert f"{len(good)} of them done before" in (printed := capsys.readouterr().out) and "1 colorized" in printed
    assert (tmp_path / "out/plain.png").stat().st_mtime_ns == kept


def test_both_folders_may_be_moved_together_but_not_one_changed_for_another(colorizer, album, tmp_path, capsys):
    source, good, _ = album
    folder.colorize_folder(source, tmp_path / "out", colorizer, input_size=64)
    (tmp_path / "elsewhere").mkdir()
    for name in ("album", "out"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    capsys.readouterr()
    moved = tmp_path / "elsewhere"
    folder.colorize_folder(moved / "album", moved / "out", colorizer, input_size=64)
    assert "0 colorized" in capsys.readouterr().out
    with pytest.raises(ValueError, match="photos, seen from here: ../album then, ../below now"):
        (moved / "album" / "below").rename(moved / "below")
        folder.colorize_folder(moved / "below", moved / "out", colorizer, input_size=64)


def test_a_folder_that_was_made_in_another_way_is_not_mixed(colorizer, album, tmp_path):
    folder.colorize_folder(album[0], tmp_path / "out", colorizer, input_size=64)
    with pytest.raises(ValueError, match="saturation: 1.0 then, 2.0 now"):
        folder.colorize_folder(album[0], tmp_path / "out", colorizer, input_size=64, saturation=2.0)
    other = Generator(weights=None, res_blocks=0)
    with pytest.raises(ValueError, match="weights: [0-9a-f]{8} then, [0-9a-f]{8} now"):
        folder.colorize_folder(album[0], tmp_path / "out", Colorizer(other, "fp32"), input_size=64)


def test_the_target_may_lie_above_the_source(colorizer, album, tmp_path):
    folder.colorize_folder(album[0], tmp_path, colorizer, input_size=64)
    assert (tmp_path / "plain.png").exists()


def test_no_two_photos_have_one_target(tmp_path):
    for name in ("x.webp", "x.webp.png"):
        odd_photos.color((40, 30)).save(tmp_path / name)
    places = [place.name for place in folder.targets_for(tmp_path, tmp_path / "out", "").values()]
    assert places == ["x.webp.png", "x.webp+.png"]


def test_what_goes_wrong_with_one_photo_leaves_the_others(colorizer, tmp_path, monkeypatch):
    source = tmp_path / "in"
    source.mkdir()
    for i in range(3):
        odd_photos.color((60 + i, 50)).save(source / f"{i}.jpg")
    predict = colorizer.predict

    def fail_on_one(L, flip=False):
        if L.shape[-1] == 61:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return predict(L, flip)

    monkeypatch.setattr(colorizer, "predict", fail_on_one)
    table = folder.colorize_folder(source, tmp_path / "out", colorizer, input_size=64)
    assert list(table["photo"]) == ["1.jpg"] and "a smaller one takes less memory" in table["reason"][0]
    assert (tmp_path / "out/0.jpg").exists() and (tmp_path / "out/2.jpg").exists()


def test_a_file_that_cannot_be_read_is_named_and_leaves_nothing(colorizer, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read as a photo"):
        folder.colorize_file(tmp_path / "broken.jpg", tmp_path / "out.jpg", colorizer, colorizer.options())
    assert not (tmp_path / "out.jpg").exists()


def test_the_input_is_never_overwritten(colorizer, album):
    with pytest.raises(ValueError, match="never overwritten"):
        folder.colorize_folder(album[0], album[0], colorizer)


def test_the_target_may_lie_in_the_source(colorizer, album):
    source, good, _ = album
    for _ in range(2):
        folder.colorize_folder(source, source / "color", colorizer, input_size=64, file_format="jpeg", quality=80)
    colorized = [path for path in (source / "color").rglob("*") if path.suffix.lower() == ".jpg"]
    assert len(colorized) == len(good) + 1


def test_the_command_colorizes_a_folder_and_a_photo(loud_generator, cfg, album, tmp_path, capsys):
    run = Run("mine")
    run.path.mkdir(parents=True)
    run.save("adversarial", loud_generator, cfg)
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    call = [sys.executable, "-m", "helpers.inference"]
    done = subprocess.run(
        [*call, album[0], tmp_path / "out", "--input-size", "64"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0 and "skipped (listed in" in done.stdout, done.stderr
    one = [str(album[0] / "plain.jpg"), str(tmp_path / "one.jpg"), "--saturation", "0"]
    command.main(one)
    assert np.ptp(np.array(Image.open(tmp_path / "one.jpg")).astype(int), axis=2).mean() < 2
    for arguments, told in (
        (one, "nothing is overwritten"),
        ([one[0], str(tmp_path / "one.webp")], "ends in .jpg or .png"),
        ([str(album[0] / "half.jpg"), str(tmp_path / "half.jpg")], "half.jpg cannot be read as a photo"),
    ):
        with pytest.raises(SystemExit) as ended:
            command.main(arguments)
        assert ended.value.code == 2 and told in capsys.readouterr().err
