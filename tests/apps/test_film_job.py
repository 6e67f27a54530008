"""Films in color: steady along the motion, nothing over a cut, hints that travel, and a killed run that goes on."""

import films
import numpy as np
import odd_photos
import pytest
from bench.measures import color_change, pan, warping_error
from browsing import LONG, needs_browser, served

from helpers.apps import __main__ as command
from helpers.apps import film_job
from helpers.apps.film_job import colorize_film
from helpers.apps.film_reader import Film
from helpers.apps.folder import colorize_folder
from helpers.apps.optical_flow import propagate_hints, steady, track
from helpers.color import rgb_to_L_ab
from helpers.data.photos import to_tensor
from helpers.inference.colorizer import Colorizer
from helpers.inference.user_hints import Hint
from helpers.runs import Run

SMALL = {"input_size": 48}


@pytest.fixture
def colorizer(loud_generator):
    return Colorizer(loud_generator, "fp32")


@pytest.fixture
def clip(tmp_path):
    """A film of two shots with sound."""
    return films.write(tmp_path / "clip.mp4", films.shots(10, 12), sound=("aac",))


def pictures(path):
    return [rgb for _, rgb in Film(path).frames()]


def ab_of(rgb):
    return rgb_to_L_ab(to_tensor(rgb))[1][0].permute(1, 2, 0).numpy()


def flickering(count=16):
    """A camera that moves over a photo: gray frames, its true colors with noise of their own, and the motion."""
    frames, flows = pan(films.data.coffee(), count, (90, 120))
    noise = np.random.default_rng(0).normal(0, 0.08, (count, 1, 1, 2)).astype(np.float32)
    truth = [ab_of(frame) for frame in frames]
    grays = [frame.mean(2).astype(np.uint8) for frame in frames]
    return grays, truth, [ab + change for ab, change in zip(truth, noise, strict=True)], flows


def test_steadied_colors_flicker_less_keep_their_strength_and_are_nearer_to_the_truth():
    grays, truth, colors, flows = flickering()
    known = [np.ones(gray.shape, np.float32) for gray in grays[1:]]
    off = [np.mean([np.abs(a - b).mean() for a, b in zip(truth, colors, strict=True)])]
    errors, changes = [warping_error(colors, flows, known)], [color_change(colors)]
    for both in (False, True):
        made, _ = steady(grays, colors, backward=both)
        errors.append(warping_error(made, flows, known))
        changes.append(color_change(made))
        off.append(np.mean([np.abs(a - b).mean() for a, b in zip(truth, made, strict=True)]))
        chroma = [np.mean([np.linalg.norm(ab, axis=2).mean() for ab in some]) for some in (truth, made)]
        assert chroma[1] > 0.95 * chroma[0]
    assert errors[0] > 2 * errors[1] > 2 * errors[2] and off[0] > off[1] > off[2]
    assert abs(changes[2] - color_change(truth)) < abs(changes[0] - color_change(truth))
    assert warping_error([ab * 0 for ab in colors], flows, known) == 0  # gray is unbeatable


def test_nothing_is_carried_over_a_cut_and_parts_follow_each_other_as_one():
    grays, _, colors, _ = flickering(12)
    alone, _ = steady(grays[5:], colors[5:])
    both, _ = steady(grays, colors, cuts=[0, 5])
    assert all((a == b).all() for a, b in zip(both[5:], alone, strict=True))
    whole, last = steady(grays, colors, backward=False)
    first, state = steady(grays[:7], colors[:7], backward=False)
    second, end = steady(grays[7:], colors[7:], cuts=[-7], before=state, backward=False)
    assert all((a == b).all() for a, b in zip([*first, *second], whole, strict=True))
    assert all((end[key] == last[key]).all() for key in ("gray", "ab"))
    untouched, _ = steady(grays, colors, weight=0.0)
    assert all((a == b).all() for a, b in zip(untouched, colors, strict=True))


def test_colors_do_not_jump_where_a_chunk_ends():
    grays, _, colors, flows = flickering(40)
    known, length, ahead = [np.ones(gray.shape, np.float32) for gray in grays[1:]], 16, 16
    chunks, state = [], None
    for first in range(0, 40, length):
        some = slice(first, first + length + ahead)
        more = max(0, min(ahead, 40 - first - length))
        made, state = steady(grays[some], colors[some], [-first], state, ahead=more)
        chunks += made
    whole, last = steady(grays, colors)
    assert len(chunks) == 40 and (state["ab"] == last["ab"]).all()
    assert max(np.abs(a - b).max() for a, b in zip(chunks, whole, strict=True)) < 0.03  # flicker is 0.08
    changes = [warping_error(chunks[i : i + 2], [flows[i]], [known[i]]) for i in range(39)]
    assert max(changes[15], changes[31]) < 3 * np.median(changes)


def test_hints_travel_with_what_they_are_on_both_ways_and_end_at_the_cut():
    frames, flows = pan(films.data.coffee(), 12, (90, 120), shift=(-3, 1))
    grays = [frame.mean(2).astype(np.uint8) for frame in frames]
    traveling = propagate_hints([*grays, *grays[::-1]], {5: [Hint(60.0, 40.0, "red")]}, [0, 12])
    assert sorted(number for number, some in traveling.items() if some) == list(range(12))
    x, y = 60.0, 40.0
    for i in range(5, 0, -1):
        move = flows[i - 1][round(y), round(x)]
        x, y = x + move[0], y + move[1]
        assert np.hypot(traveling[i - 1][0].x - x, traveling[i - 1][0].y - y) < 2.5
    assert traveling[11][0].x - traveling[0][0].x > 25  # the camera moved to the left
    assert track([Hint(119.0, 40.0, "red")], grays[0], grays[3]) == []  # it has left the frame


def test_a_film_keeps_its_times_its_sound_and_its_lightness_and_gets_color(colorizer, clip, tmp_path):
    assert colorize_film(clip, tmp_path / "out.mp4", colorizer, **SMALL) == []
    ours, theirs = pictures(tmp_path / "out.mp4"), pictures(clip)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        L = [rgb_to_L_ab(to_tensor(rgb))[0].numpy() for rgb in (a, b)]
        assert np.abs(L[0] - L[1]).mean() < 0.06  # of a scale of 2; H.264 costs some
    assert np.mean([np.abs(ab_of(rgb)).mean() for rgb in ours]) > 0.03
    assert films.packets(tmp_path / "out.mp4", "audio") == films.packets(clip, "audio")
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


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
    calls.extend([1] * 10)
    colorize_film(clip, tmp_path / "killed.mp4", colorizer, **SMALL)
    ours, theirs = pictures(tmp_path / "killed.mp4"), pictures(tmp_path / "whole.mp4")
    assert len(ours) == 22 and all((a == b).all() for a, b in zip(ours, theirs, strict=True))
    assert len(calls) - 10 - stop == 3 - (stop - 1)  # what was whole is not made again


def test_a_hint_colors_its_shot_alone(hinted_generator, clip, tmp_path):
    colorizer = Colorizer(hinted_generator, "fp32")
    options = {"input_size": 64}
    colorize_film(clip, tmp_path / "plain.mp4", colorizer, **options)
    colorize_film(clip, tmp_path / "hinted.mp4", colorizer, [Hint(48, 36, "#c02020", at=0.2)], **options)
    off = [
        np.abs(ab_of(a) - ab_of(b))[26:46, 38:58].mean()
        for a, b in zip(pictures(tmp_path / "plain.mp4"), pictures(tmp_path / "hinted.mp4"), strict=True)
    ]
    assert min(off[:10]) > 0.01 and max(off[10:]) < 0.005
    for hint, message in {
        Hint(500, 3, "red"): "outside the film of 96x72",
        Hint(-5, 3, "red"): "outside",
    }.items():
        with pytest.raises(ValueError, match=message):
            colorize_film(clip, tmp_path / "none.mp4", colorizer, [hint])
    with pytest.raises(ValueError, match="given at 9 s, but the film ends at 0.84 s"):
        colorize_film(clip, tmp_path / "none.mp4", colorizer, [Hint(5, 3, "red", at=9)])
    colorize_film(clip, tmp_path / "none.mp4", colorizer, **options)  # what failed is not in the way
    assert Hint.parse("3,4,#102030@1.5").at == 1.5


def test_hints_of_an_upright_film_stay_where_they_were_given(tmp_path):
    frames, _ = pan(films.data.coffee(), 4, (320, 192), shift=(0, 0), zoom=0, turn=0)
    film = Film(films.write(tmp_path / "upright.mp4", frames))
    cuts, traveling = film_job.plan(film, [Hint(100, 250, "red", at=0.12)])  # frame 3, though 0.12 < 3 / 25 in binary
    assert cuts == [0] and sorted(traveling) == [0, 1, 2, 3]
    assert all(abs(hint.x - 100) < 2 and abs(hint.y - 250) < 2 for some in traveling.values() for hint in some)
    assert all(len(some) == 1 for some in traveling.values())


def test_weights_that_take_no_hints_say_so_at_once(colorizer, clip, tmp_path):
    with pytest.raises(ValueError, match="take no color hints"):
        colorize_film(clip, tmp_path / "out.mp4", colorizer, [Hint(5, 5, "red")])
    assert not list(tmp_path.glob(".*.parts"))


def test_what_is_no_film_leaves_nothing_and_nothing_is_overwritten(colorizer, clip, tmp_path):
    (tmp_path / "text.mp4").write_text("no film")
    for source, target, error in (
        ("text.mp4", "out.mp4", ValueError),
        ("nowhere.mp4", "out.mp4", ValueError),
        ("clip.mp4", "out.gif", ValueError),
        ("clip.mp4", "text.mp4", FileExistsError),
    ):
        with pytest.raises(error):
            colorize_film(tmp_path / source, tmp_path / target, colorizer, **SMALL)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.is_dir()) == ["clip.mp4", "text.mp4"]


def test_a_folder_and_the_command_take_films_too(colorizer, clip, tmp_path, loud_generator, cfg, capsys):
    source = tmp_path / "album"
    source.mkdir()
    clip.rename(source / "clip.mov")
    odd_photos.color().save(source / "photo.jpg")
    (source / "broken.mkv").write_bytes(b"no film")
    skipped = colorize_folder(source, tmp_path / "out", colorizer, **SMALL)
    assert skipped["photo"].tolist() == ["broken.mkv"] and "cannot be read as a film" in skipped["reason"][0]
    assert len(pictures(tmp_path / "out" / "clip.mov.mp4")) == 22 and (tmp_path / "out" / "photo.jpg").exists()
    run = Run("mine")
    run.path.mkdir(parents=True)
    run.save("adversarial", loud_generator, cfg)
    call = [str(source / "clip.mov"), str(tmp_path / "by command.mp4"), "--input-size", "48", "--steady", "0"]
    command.main(call)
    assert len(pictures(tmp_path / "by command.mp4")) == 22
    with pytest.raises(SystemExit):
        command.main(call)
    assert "nothing is overwritten" in capsys.readouterr().err


@needs_browser
def test_a_film_is_uploaded_played_and_downloaded(browser, tmp_path, clip, loud_generator):
    folder = tmp_path / "served"
    folder.mkdir()
    with served(folder, "adversarial", loud_generator) as address:
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
