"""Files and folders in color: a record holds what is done, what is bad is listed, and nothing is overwritten."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import odd_photos
import pandas as pd
import pytest
from notebook_tools import PROJECT
from PIL import Image, ImageCms

from helpers.apps import __main__ as command
from helpers.apps import folder, photo_files
from helpers.apps.folder import colorize_folder
from helpers.apps.photo_files import colorize_file
from helpers.inference.colorizer import Colorizer, Options
from helpers.runs import save_network

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def fill(colorizer, source, tmp_path, capsys):
    """Colorize the folder "in" into "out"; returns how many were colorized, and the table."""

    def _fill(place=source, **options):
        table = colorize_folder(place, tmp_path / "out", colorizer, input_size=64, **options)
        return int(capsys.readouterr().out.split(" colorized")[0].split()[-1]), table

    return _fill


def small(path, width=60):
    path.parent.mkdir(exist_ok=True)
    odd_photos.color((width, 50)).save(path)


def results(out):
    """The size of each photo in a folder of results, by its name there."""
    photos = [path for path in out.rglob("*") if path.suffix.lower() in (".png", ".jpg")]
    return {path.relative_to(out).as_posix(): Image.open(path).size for path in photos}


def test_a_folder_is_colorized_and_what_is_bad_is_listed(fill, colorizer, source, tmp_path):
    good, bad = odd_photos.write_good(source), odd_photos.write_bad(source)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "grandmother, 1911"
    (source / "below").mkdir()
    odd_photos.color((50, 90)).save(source / "below" / "old.jpg", exif=exif, icc_profile=SRGB, dpi=(600, 600))
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    count, table = fill()
    reasons = table.set_index("photo")["reason"]
    assert count == len(good) + 1 and set(bad) <= set(reasons.index)
    assert reasons[list(bad)].str.contains("skipped.*cannot be read").all()
    assert set(pd.read_csv(tmp_path / "out" / "skipped.csv")["photo"]) == set(reasons.index)
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    same = {name for name in good if name.lower().endswith((".jpg", ".png"))}
    assert set(results(tmp_path / "out")) == same | {f"{name}.png" for name in good.keys() - same} | {"below/old.jpg"}
    with Image.open(tmp_path / "out/below/old.jpg") as old:
        assert old.size == (90, 50) and old.getexif()[0x010E] == "grandmother, 1911" and 0x0112 not in old.getexif()
        assert old.info["icc_profile"] == SRGB and old.info["dpi"] == pytest.approx((600, 600))
    np.testing.assert_array_equal(
        Image.open(tmp_path / "out/plain.png"), colorizer(source / "plain.png", input_size=64)
    )
    (tmp_path / "out/plain.jpg").unlink()
    assert [fill()[0], fill()[0]] == [1, 0]


def test_what_differs_is_done_again_and_nothing_else(fill, source, tmp_path, monkeypatch):
    small(source / "a.png"), small(source / "b.png", 61)
    assert [fill()[0], fill()[0]] == [2, 0]
    small(source / "a.png", 67)  # exchanged
    assert fill()[0] == 1 and results(tmp_path / "out") == {"a.png": (67, 50), "b.png": (61, 50)}
    assert [fill(saturation=2.0)[0], fill(saturation=2.0, steady=0.5, large_scans=True)[0]] == [2, 0]
    moved = source.rename(tmp_path / "moved")
    assert [fill(moved, saturation=2.0)[0], fill(moved, saturation=2.0, file_format="jpeg")[0]] == [0, 2]
    assert set(results(tmp_path / "out")) == {"a.png", "b.png", "a.png.jpg", "b.png.jpg"}
    monkeypatch.setattr(folder.Colorizer, "fingerprint", lambda *_: {"weights": "others"})
    assert fill(moved)[0] == 2


def test_files_of_others_are_never_overwritten_and_no_two_photos_share_a_result(fill, source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("somebody else's")
    small(source / "a.png"), small(source / "x.webp.png", 61)
    fill()
    small(source / "x.webp")  # its result would have the name of another one
    small(tmp_path / "other" / "a.png", 62)  # of the same name, from another folder
    assert [fill()[0], fill(tmp_path / "other")[0], fill()[0], fill(tmp_path / "other")[0]] == [1, 1, 0, 0]
    assert (tmp_path / "out" / "a.png").read_text() == "somebody else's"
    (tmp_path / "out" / "a.png").unlink()
    sizes = {"a+.png": (60, 50), "a++.png": (62, 50), "x.webp.png": (61, 50), "x.webp+.png": (60, 50)}
    assert results(tmp_path / "out") == sizes


def test_every_page_links_long_names_and_unknown_kinds(fill, source, tmp_path):
    pages = [odd_photos.color((50 + i, 40)) for i in range(3)]
    pages[0].save(source / "album.tif", save_all=True, append_images=pages[1:])
    small(source / "album-1.tif"), small(source / ("n" * 250 + ".png")), small(tmp_path / "elsewhere" / "linked.png")
    (source / "link").symlink_to(tmp_path / "elsewhere")
    (source / "loop").symlink_to(source)
    (source / "raw.dng").write_bytes(b"?")
    names = {"album-1.tif.jpg": (60, 50), "album-1.tif+.jpg": (50, 40), "link/linked.png.jpg": (60, 50)}
    names |= {"album-2.tif.jpg": (51, 40), "album-3.tif.jpg": (52, 40)}
    for count in (5, 0):
        made, table = fill(file_format="jpeg")
        assert made == count and results(tmp_path / "out") == names
        assert set(table["photo"]) == {"raw.dng", "n" * 250 + ".png"}


@pytest.mark.parametrize("moment", ["claimed", "written", "torn"])
def test_a_kill_at_any_moment_loses_nothing_and_leaves_no_second_copy(moment, fill, source, tmp_path):
    for i in range(3):
        small(source / f"{i}.png", 60 + i)
    fill()
    record = tmp_path / "out" / "colorized.jsonl"
    lines = record.read_text().split("\n")
    last = next(line for line in lines if '"2.png"' in line and "size" in line)
    lines.remove(last)  # photos are done side by side: it need not be the last line
    record.write_text("\n".join([*lines, last[:40]] if moment == "torn" else lines))
    if moment == "claimed":
        (tmp_path / "out" / "2.png").unlink()
    assert [fill()[0], fill()[0]] == [1, 0]
    assert results(tmp_path / "out") == {f"{i}.png": (60 + i, 50) for i in range(3)}
    assert all(json.loads(line) for line in record.read_text().split("\n") if line.endswith("}"))


def test_a_target_that_cannot_be_written_ends_the_folder_and_is_named(fill, source, monkeypatch):
    small(source / "a.png")

    def full(path, write):
        raise OSError("cannot be written") from OSError(28, "No space left on device", f"{path}.f6c447e5.part")

    monkeypatch.setattr(folder, "write_atomically", full)
    with pytest.raises(OSError, match="out cannot be written: No space left on device$"):
        fill()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="out cannot be written: name another"):
        fill()


def test_one_faulty_file_leaves_the_others(fill, colorizer, source, tmp_path, monkeypatch):
    for i in range(3):
        small(source / f"{i}.jpg", 60 + i)
    (source / "gone.jpg").symlink_to(tmp_path / "nowhere")
    small(source / "below" / "b.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "below").write_text("a file where a folder has to be")
    predict = colorizer.predict

    def fail_on_one(L, flip=False):
        if L.shape[-1] == 61:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return predict(L, flip)

    monkeypatch.setattr(colorizer, "predict", fail_on_one)
    count, table = fill()
    assert count == 2 and set(table["photo"]) == {"1.jpg", "gone.jpg", "below/b.png"}
    assert table.set_index("photo")["reason"]["1.jpg"].endswith("not enough memory")


@pytest.mark.parametrize("keep", ["auto", "always"])
def test_photos_in_color_are_counted_or_kept_and_gray_or_toned_ones_are_not(keep, colorizer, source, tmp_path, capsys):
    gray = odd_photos.color((80, 60)).convert("L")
    sepia = np.stack([np.asarray(gray) * share for share in (1.0, 0.86, 0.66)], 2).astype(np.uint8)
    gray.save(source / "gray.png"), Image.fromarray(sepia).save(source / "sepia.png"), small(source / "color.png")
    colorize_folder(source, tmp_path / "out", colorizer, input_size=64, keep_color=keep)
    assert ("1 were in color already" in capsys.readouterr().out) == (keep == "auto")
    for name in ("gray", "sepia", "color"):
        path, options = source / f"{name}.png", colorizer.options(keep_color=keep)
        assert bool(colorize_file(path, tmp_path / path.name, colorizer, options)) == (name == "color")
        same = np.array_equal(Image.open(tmp_path / path.name).convert("RGB"), Image.open(path).convert("RGB"))
        assert same == (keep == "always" and name == "color")


def test_what_was_transparent_stays_so_and_over_white_looks_as_it_did(colorizer, tmp_path):
    photo = odd_photos.color((80, 60))
    photo.putalpha(Image.linear_gradient("L").resize((80, 60)))
    photo.save(tmp_path / "in.png")
    options = Options(64, saturation=0.1)  # there is no strong color that is nearly transparent
    notes = [colorize_file(tmp_path / "in.png", tmp_path / to, colorizer, options) for to in ("a.png", "a.jpg")]
    assert "transparent" not in str(notes[0]) and "transparent" in str(notes[1])
    result, white = Image.open(tmp_path / "a.png"), Image.new("RGBA", photo.size, "white")
    assert np.array_equal(result.getchannel("A"), photo.getchannel("A"))
    looks = np.asarray(Image.alpha_composite(white, result).convert("RGB")).astype(int)
    assert np.abs(looks - colorizer(tmp_path / "in.png", input_size=64, saturation=0.1)).mean() < 2


def test_a_reference_is_read_once_and_another_one_under_its_name_is_another_result(
    hinted_generator, source, tmp_path, monkeypatch
):
    calls, described = [], photo_files.encode_reference
    monkeypatch.setattr(photo_files, "encode_reference", lambda *given: calls.append(1) or described(*given))
    for i in range(3):
        small(source / f"{i}.png", 60 + i)
    colorizer, options = Colorizer(hinted_generator, "fp32"), {"like": str(tmp_path / "like.png"), "input_size": 64}
    prints = []
    for turn in (0, 180):
        odd_photos.color().rotate(turn).save(options["like"])
        colorize_folder(source, tmp_path / "out", colorizer, **options)
        prints.append(colorizer.fingerprint(colorizer.options(**options)))
    assert len(calls) == 2 and prints[0] != prints[1]


def test_the_source_is_never_overwritten_and_the_target_may_lie_in_it_or_above(colorizer, source, tmp_path):
    small(source / "below" / "a.png")
    with pytest.raises(ValueError, match="never overwritten"):
        colorize_folder(source, source, colorizer)
    for _ in range(2):
        assert len(colorize_folder(source, source / "color", colorizer, input_size=64)) == 0
    assert len(results(source / "color")) == 1
    colorize_folder(source, tmp_path, colorizer, input_size=64)
    assert (tmp_path / "below" / "a.png").exists()
    for nothing in ("", tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match="There is no folder"):
            colorize_folder(nothing, tmp_path / "out", colorizer)


def test_a_file_that_cannot_be_colorized_is_named_and_leaves_nothing(colorizer, tmp_path, monkeypatch):
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    small(tmp_path / "wide.png")
    monkeypatch.setattr(photo_files, "JPEG_SIDE", 59)
    monkeypatch.setattr("helpers.inference.colorizer.MAX_PIXELS", 3100)
    small(tmp_path / "scan.png", 63)
    for name, target, message in (
        ("broken.jpg", "out.jpg", r"broken\.jpg cannot be read as a photo"),
        ("wide.png", "out.jpg", "59 pixels.*PNG"),
        ("scan.png", "out.png", "--large-scans"),
    ):
        with pytest.raises(ValueError, match=message):
            colorize_file(tmp_path / name, tmp_path / target, colorizer, colorizer.options())
        assert not (tmp_path / target).exists()
    colorize_file(tmp_path / "scan.png", tmp_path / "out.png", colorizer, colorizer.options(large_scans=True))


def test_the_command_colorizes_a_photo_and_names_what_is_wrong(run, source, tmp_path, capsys):
    small(source / "a.jpg")
    one = [str(source / "a.jpg"), str(tmp_path / "one.jpg"), "--saturation", "0"]
    command.main(one)
    assert np.ptp(np.array(Image.open(tmp_path / "one.jpg")).astype(int), axis=2).mean() < 2
    for arguments, message in (
        (one, "nothing is overwritten"),
        ([one[0], str(tmp_path / "one.webp")], "ends in .jpg or .png"),
        ([one[0], str(tmp_path / "one.jpg" / "x.jpg")], "one.jpg is a file"),
        ([str(source), str(tmp_path / "one.jpg")], "one.jpg is a file"),
        (["", str(tmp_path / "x")], "must not be empty"),
        ([str(tmp_path / "nofolder"), "out"], "no file or folder .*nofolder"),
        ([one[0], str(tmp_path / "x.jpg"), "--denoise", "99"], "denoise"),
    ):
        with pytest.raises(SystemExit) as ended:
            command.main(arguments)
        error = capsys.readouterr().err
        assert ended.value.code == 2 and re.search(message, error), error


def test_the_stop_button_ends_the_command_soon_and_a_second_call_continues(loud_generator, cfg, source, tmp_path):
    weights, count = tmp_path / "weights.safetensors", 150
    save_network(weights, loud_generator, cfg)
    for i in range(count):
        odd_photos.color((480, 320)).save(source / f"{i:02}.jpg")
    call = [sys.executable, "-m", "helpers.apps", source, tmp_path / "out", "--weights", weights]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # hardly a color out of gamut: fast
    with subprocess.Popen([*call, "--saturation", "0.1"], env=env, **output) as process:
        while not results(tmp_path / "out") and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        printed, errors = process.communicate()
    assert process.returncode == 130 and time.monotonic() - started < 4 and "Traceback" not in errors
    assert f"of {count} files are finished" in printed
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.jpg")}
    left = [path for path in source.iterdir() if not (tmp_path / "out" / path.name).exists()]
    assert times and left
    for path in left[5:]:  # a few are enough for the second call
        path.unlink()
    colorize_folder(source, tmp_path / "out", Colorizer(weights), saturation=0.1)
    assert len(results(tmp_path / "out")) == len(times) + len(left[:5])
    assert sum(path.stat().st_mtime_ns == time for path, time in times.items()) >= len(times) - 2
