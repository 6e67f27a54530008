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
    reasons = table.set_index("photo")["reason"]
    assert set(bad) <= set(reasons.index) and reasons[list(bad)].str.contains("cannot be read").all()
    assert set(pd.read_csv(tmp_path / "out" / "skipped.csv")["photo"]) == set(reasons.index)
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    written = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    same = {name for name in good if name.lower().endswith((".jpg", ".png"))}
    ours = {"below/old.jpg", "skipped.csv", "colorized.jsonl"}
    assert written - {"lock"} == same | {f"{name}.png" for name in good.keys() - same} | ours
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
    assert f"{len(good)} done before" in (printed := capsys.readouterr().out) and "1 colorized" in printed
    assert (tmp_path / "out/plain.png").stat().st_mtime_ns == kept


def small(path, seed=0):
    odd_photos.color((60 + seed, 50)).save(path)


def test_what_changed_is_done_again_and_nothing_else(colorizer, tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    small(source / "a.png"), small(source / "b.png", 1)

    def colorized(**options):
        folder.colorize_folder(source, out, colorizer, input_size=64, **options)
        return int(capsys.readouterr().out.split(" colorized")[0].split()[-1])

    assert [colorized(), colorized()] == [2, 0]
    small(source / "a.png", 7)  # exchanged
    assert colorized() == 1 and Image.open(out / "a.png").size == (67, 50)
    assert [colorized(saturation=2.0), colorized(saturation=2.0)] == [2, 0]
    source.rename(tmp_path / "moved")
    source = tmp_path / "moved"
    assert colorized(saturation=2.0) == 0


def test_files_of_others_are_never_overwritten_and_no_two_photos_share_a_target(colorizer, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir(), out.mkdir()
    (out / "a.png").write_text("somebody else's")
    small(source / "a.png"), small(source / "x.webp"), small(source / "x.webp.png", 1)
    for _ in range(2):
        folder.colorize_folder(source, out, colorizer, input_size=64)
    assert (out / "a.png").read_text() == "somebody else's" and (out / "a+.png").exists()
    assert {Image.open(out / name).size for name in ("x.webp.png", "x.webp+.png")} == {(60, 50), (61, 50)}


def test_pages_links_names_and_unknown_kinds(colorizer, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    pages = [odd_photos.color((50 + i, 40)) for i in range(3)]
    pages[0].save(source / "album.tif", save_all=True, append_images=pages[1:])
    odd_photos.color((40, 30)).save(source / "dpi.jpg", dpi=(600, 600))
    (tmp_path / "elsewhere").mkdir()
    small(tmp_path / "elsewhere" / "linked.png")
    (source / "link").symlink_to(tmp_path / "elsewhere")
    (source / "raw.dng").write_bytes(b"?")
    small(source / ("n" * 250 + ".png"))
    for _ in range(2):
        table = folder.colorize_folder(source, tmp_path / "out", colorizer, input_size=64, file_format="jpeg")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.jpg")}
    assert names == {"album-1.tif.jpg", "album-2.tif.jpg", "album-3.tif.jpg", "dpi.jpg", "link/linked.png.jpg"}
    assert Image.open(tmp_path / "out" / "dpi.jpg").info["dpi"] == pytest.approx((600, 600))
    assert set(table["photo"]) == {"raw.dng", "n" * 250 + ".png"} and table["reason"].str.startswith("skipped").all()


def test_a_target_that_cannot_be_written_ends_the_folder_and_is_named(colorizer, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    small(tmp_path / "in" / "a.png")

    def full(path, write):
        raise OSError("cannot be written") from OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "write_atomically", full)
    with pytest.raises(OSError, match="out cannot be written: .*No space left"):
        folder.colorize_folder(tmp_path / "in", tmp_path / "out", colorizer, input_size=64)


def test_the_stop_button_ends_it_soon_and_a_second_call_continues(colorizer, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    for i in range(12):
        small(tmp_path / "in" / f"{i:02}.png", i)
    work, calls = folder.colorize_file, []

    def stopping(*args, **more):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return work(*args, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folder, "colorize_file", stopping)
        folder.colorize_folder(tmp_path / "in", tmp_path / "out", colorizer, input_size=64)
    assert "run the same command again" in capsys.readouterr().out.lower() and len(calls) < 12
    folder.colorize_folder(tmp_path / "in", tmp_path / "out", colorizer, input_size=64)
    done = len(list((tmp_path / "out").glob("*.png")))
    assert done == 12 and "0 colorized" not in capsys.readouterr().out


def test_the_target_may_lie_above_the_source(colorizer, album, tmp_path):
    folder.colorize_folder(album[0], tmp_path, colorizer, input_size=64)
    assert (tmp_path / "plain.png").exists()


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
    assert list(table["photo"]) == ["1.jpg"] and "a smaller one needs less memory" in table["reason"][0]
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
    assert done.returncode == 0 and "skipped" in done.stdout, done.stderr
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
