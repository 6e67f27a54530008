"""Films in color: their own times, sound and lightness, hints in their shot, and a killed run that goes on."""

import films
import numpy as np
import odd_photos
import pytest
from bench.measures import pan
from browsing import LONG, needs_browser, served
from films import ab_of, pictures
from skimage.data import coffee

from helpers.apps import __main__ as command
from helpers.apps import film_job
from helpers.apps.film_job import colorize_film
from helpers.apps.film_reader import Film
from helpers.apps.folder import colorize_folder
from helpers.apps.photo_files import COLORED
from helpers.color import rgb_to_L_ab
from helpers.data.photos import to_tensor
from helpers.inference.colorizer import Colorizer
from helpers.inference.user_hints import Hint

SMALL = {"input_size": 48}


def test_a_film_keeps_its_times_its_sound_and_its_lightness_and_gets_color(colorizer, clip, tmp_path):
    assert colorize_film(clip, tmp_path / "out.mp4", colorizer, **SMALL) == [COLORED]
    ours, theirs = pictures(tmp_path / "out.mp4"), pictures(clip)
    for a, b in zip(ours, theirs, strict=True):
        L = [rgb_to_L_ab(to_tensor(rgb))[0].numpy() for rgb in (a, b)]
        assert np.abs(L[0] - L[1]).mean() < 0.06  # of a scale of 2; H.264 costs some
    assert np.mean([np.abs(ab_of(rgb)).mean() for rgb in ours]) > 0.03
    assert films.packets(tmp_path / "out.mp4", "audio") == films.packets(clip, "audio")
    assert not list(tmp_path.glob("*part*")) and not list(tmp_path.glob(".*part*"))


@pytest.mark.parametrize("keep", ["auto", "always", "never"])
@pytest.mark.parametrize("whole", [False, True])
def test_what_is_in_color_stays_as_it_is(keep, whole, colorizer, tmp_path):
    frames = films.shots(10, 12)
    shades = [np.repeat(rgb.mean(2, keepdims=True), 3, 2).astype(np.uint8) for rgb in frames[:10]]
    film = films.write(tmp_path / "film.mp4", frames if whole else [*shades, *frames[10:]], options={"crf": "5"})
    notes = colorize_film(film, tmp_path / "out.mp4", colorizer, **SMALL, keep_color=keep)
    pairs = zip(pictures(tmp_path / "out.mp4"), pictures(film), strict=True)
    same = [np.abs(ab_of(a) - ab_of(b)).mean() < 0.02 for a, b in pairs]
    kept = keep == "always" or (keep == "auto" and not whole)
    assert same[10:] == 12 * [kept] and same[:10] == 10 * [kept and whole]
    assert bool(notes) == (keep != "never") and ("0.4 to 0.8 s" in str(notes)) == (kept and not whole)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_killed_run_goes_on_with_the_same_frames(colorizer, clip, tmp_path, monkeypatch, stop):
    monkeypatch.setattr(film_job, "LONGEST", 8)
    colorize_film(clip, tmp_path / "whole.mp4", colorizer, **SMALL)
    real, calls = film_job.write_film, []

    def killed(*arguments, **named):
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        real(*arguments, **named)

    monkeypatch.setattr(film_job, "write_film", killed)
    with pytest.raises(KeyboardInterrupt):
        colorize_film(clip, tmp_path / "killed.mp4", colorizer, **SMALL)
    assert not (tmp_path / "killed.mp4").exists()
    colorize_film(clip, tmp_path / "killed.mp4", colorizer, **SMALL)
    np.testing.assert_array_equal(pictures(tmp_path / "killed.mp4"), pictures(tmp_path / "whole.mp4"))
    assert len(calls) == 4  # three chunks, and the one that was not written; what was whole is not made again


def test_a_hint_colors_its_shot_alone_and_a_wrong_one_is_named(hinted_generator, clip, tmp_path):
    colorizer, options = Colorizer(hinted_generator, "fp32"), {"input_size": 64}
    colorize_film(clip, tmp_path / "plain.mp4", colorizer, **options)
    colorize_film(clip, tmp_path / "hinted.mp4", colorizer, [Hint(48, 36, "#c02020", at=0.2)], **options)
    pairs = zip(pictures(tmp_path / "plain.mp4"), pictures(tmp_path / "hinted.mp4"), strict=True)
    off = [np.abs(ab_of(a) - ab_of(b))[26:46, 38:58].mean() for a, b in pairs]
    assert min(off[:10]) > 0.01 and max(off[10:]) < 0.005
    for hint, message in (
        (Hint(500, 3, "red"), "outside the film of 96x72"),
        (Hint(-5, 3, "red"), "outside"),
        (Hint(5, 3, "red", at=9), "given at 9 s, but the film ends at 0.84 s"),
    ):
        with pytest.raises(ValueError, match=message):
            colorize_film(clip, tmp_path / "none.mp4", colorizer, [hint])
    colorize_film(clip, tmp_path / "none.mp4", colorizer, **options)  # what failed is not in the way


def test_hints_of_an_upright_film_stay_where_they_were_given(tmp_path):
    frames, _ = pan(coffee(), 4, (320, 192), shift=(0, 0), zoom=0, turn=0)
    film = Film(films.write(tmp_path / "upright.mp4", frames))
    cuts, traveling, *_ = film_job.plan(
        film, [Hint(100, 250, "red", at=0.12)]
    )  # frame 3, though 0.12 < 3 / 25 in binary
    assert cuts == [0] and sorted(traveling) == [0, 1, 2, 3]
    assert all(abs(hint.x - 100) < 2 and abs(hint.y - 250) < 2 for (hint,) in traveling.values())


@pytest.mark.parametrize(
    ("source", "target", "hints", "error"),
    [
        ("text.mp4", "out.mp4", [], "cannot be read as a film"),
        ("nowhere.mp4", "out.mp4", [], "No such file"),
        ("clip.mp4", "out.gif", [], "ends in .mp4 or .mkv"),
        ("clip.mp4", "text.mp4", [], "nothing is overwritten"),
        ("clip.mp4", "out.mp4", [Hint(5, 5, "red")], "take no color hints"),
    ],
)
def test_what_cannot_be_done_is_named_and_leaves_nothing(source, target, hints, error, colorizer, clip, tmp_path):
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises((ValueError, FileExistsError), match=error):
        colorize_film(tmp_path / source, tmp_path / target, colorizer, hints, **SMALL)
    assert {path.name for path in tmp_path.iterdir()} <= {"clip.mp4", "text.mp4", "workspace"}


def test_a_folder_and_the_command_take_films_too(run, colorizer, clip, tmp_path, capsys):
    source = tmp_path / "album"
    source.mkdir()
    clip.rename(source / "clip.mov")
    odd_photos.color().save(source / "photo.jpg")
    (source / "broken.mkv").write_bytes(b"no film")
    skipped = colorize_folder(source, tmp_path / "out", colorizer, **SMALL)
    assert skipped["photo"].tolist() == ["broken.mkv"] and "cannot be read as a film" in skipped["reason"][0]
    assert len(pictures(tmp_path / "out" / "clip.mov.mp4")) == 22 and (tmp_path / "out" / "photo.jpg").exists()
    call = [str(source / "clip.mov"), str(tmp_path / "by command.mp4"), "--input-size", "48", "--steady", "0"]
    command.main(call)
    assert len(pictures(tmp_path / "by command.mp4")) == 22
    with pytest.raises(SystemExit):
        command.main(call)
    assert "nothing is overwritten" in capsys.readouterr().err


@needs_browser
def test_a_film_is_uploaded_played_and_downloaded(browser, tmp_path, clip, loud_generator):
    (tmp_path / "served").mkdir()
    with served(tmp_path / "served", "adversarial", loud_generator) as address:
        page = browser.new_page()
        page.goto(address)
        page.get_by_role("tab", name="Films").click()
        page.locator("#film input[type=file]").first.set_input_files(clip)
        page.locator("a[download='clip.mp4']").wait_for(timeout=LONG)  # until it is uploaded
        page.get_by_role("button", name="Colorize the film").click()
        button = page.get_by_text("Download clip-in-color.mp4")
        button.wait_for(timeout=LONG)
        page.locator("video").first.wait_for(timeout=LONG)
        with page.expect_download() as waiting:
            button.click()
        assert len(pictures(waiting.value.path())) == 22
        page.close()
