"""Hints from a reference photo, what the model asks for, and alternatives, with the model in the box."""

import json
import weakref
from itertools import combinations
from types import SimpleNamespace

import films
import numpy as np
import odd_photos
import pytest
import torch
from PIL import Image
from skimage import data

from helpers.apps import __main__ as command
from helpers.apps import film_questions
from helpers.apps.film_reader import Film
from helpers.color import ab_of
from helpers.inference import suggestions
from helpers.inference.colorizer import Colorizer
from helpers.inference.suggestions import alternatives, questions, reference_hints
from helpers.inference.user_hints import Hint, read_hints
from helpers.models.generator import Generator
from helpers.runs import BOX


@pytest.fixture(scope="module")
def box():
    return Colorizer(BOX / "warmup.safetensors", "fp32")


def ab(photo):
    return ab_of(torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)[None])[0]


def test_cells_match_if_each_is_the_others_nearest_neighbor():
    torch.manual_seed(0)
    ours = torch.nn.functional.normalize(torch.randn(16, 5, 6), dim=0)
    order = torch.randperm(30)
    theirs = ours.flatten(1)[:, order].unflatten(1, (5, 6))
    cells, partners, similarity = suggestions.match(ours, theirs)
    assert len(cells) == 30 and torch.equal(order[partners], cells) and similarity.min() > 0.999


NOTHING = [(np.s_[:], data.chelsea(), 0.0), (np.s_[:128, :128], data.astronaut()[:120, 200:330], 1.0)]


@pytest.mark.parametrize(("part", "reference", "follow"), NOTHING)
def test_a_reference_that_is_not_followed_or_unrelated_changes_nothing(box, part, reference, follow):
    photo = np.ascontiguousarray(data.coffee()[part])
    hints = reference_hints(box, photo, reference, follow)
    assert hints[:, 2].max() == 0
    np.testing.assert_array_equal(box(photo, [hints]), box(photo))


@pytest.mark.parametrize("size", [(1, 1), (700, 40)])
def test_odd_references_are_followed_or_refused(box, size, tmp_path):
    Image.new("CMYK", size, (0, 200, 200, 0)).save(tmp_path / "odd.jpg")
    assert box(data.coffee(), [reference_hints(box, data.coffee(), tmp_path / "odd.jpg")]).shape == (400, 600, 3)
    with pytest.raises(ValueError, match="no colors"):
        reference_hints(box, data.coffee(), odd_photos.color((60, 50)).convert("L"))


def test_alternatives_differ_from_each_other(box):
    lists = alternatives(box, data.astronaut())
    assert lists[0] == [] and len(lists) >= 3
    looks = [ab(box(data.astronaut(), hints)) for hints in lists]
    for i, one in enumerate(looks):
        for other in looks[:i]:
            assert ((one - other).norm(dim=0) > 0.8 * suggestions.DIFFERENT).float().mean() > 0.8 * suggestions.SPREAD


def test_cells_are_chosen_for_what_they_alone_decide():
    influence = torch.tensor([[0.9, 0.8, 0.0, 0.0], [0.8, 0.9, 0.1, 0.0], [0.0, 0.1, 0.9, 0.0], [0.0, 0.0, 0.0, 0.9]])
    worth, left, free = torch.tensor([1.0, 1.0, 1.0, 0.5]), torch.ones(4), torch.tensor([True, True, True, True])
    chosen = suggestions.cover(influence, worth, left, free, 9)
    assert [cell for cell, _ in chosen] == [1, 2, 3, 0]  # the first with its neighbor, which is left for the end
    assert torch.allclose(torch.stack([part for _, part in chosen]).sum(0), 1 - (1 - influence).prod(0))
    # nearly as good as the best of all pairs
    value = lambda pair: worth @ (1 - (1 - influence[list(pair)]).prod(0))  # noqa: E731
    assert value([1, 2]) > 0.98 * max(map(value, combinations(range(4), 2)))
    assert [cell for cell, _ in suggestions.cover(influence, worth, left, free & (torch.arange(4) != 1), 1)] == [0]


def test_questions_lie_in_the_photo_and_each_decides_less_than_the_one_before(box):
    photo = data.astronaut()[:, 30:450]
    asked = questions(box, photo, 6)
    assert len(asked) == 6 and all(0 <= one.x < 420 and 0 <= one.y < 512 for one in asked)
    assert all(len(one.colors) == len(set(one.colors)) for one in asked)
    assert sum(len(one.colors) > 4 for one in asked) >= 5  # in black, all colors look alike
    assert 0 < sum(one.gain for one in asked) < 1 and asked[0].gain > asked[-1].gain
    colored = box(photo)
    for one in asked:
        shown = colored[int(one.y), int(one.x)].astype(int)
        assert np.abs(shown - [*bytes.fromhex(one.colors[0][1:])]).max() < 40  # the predicted color comes first


def test_a_given_hint_moves_the_questions_elsewhere(box):
    photo = data.coffee()
    first, second = questions(box, photo, 2)
    given = [Hint(first.x, first.y, first.colors[0])]
    again = questions(box, photo, 3, given)
    assert min(np.hypot(one.x - first.x, one.y - first.y) for one in again) > 40
    assert sum(one.gain for one in again[:1]) < first.gain
    assert min(np.hypot(one.x - second.x, one.y - second.y) for one in again) < 60


def test_answers_to_questions_help_more_than_the_truth_at_random_places(box):
    gains, random = [], np.random.default_rng(0)
    for photo in (data.coffee(), data.chelsea(), data.astronaut()):
        error = lambda hints, photo=photo: (ab(box(photo, hints)) - ab(photo)).norm(dim=0).mean()  # noqa: E731
        true = lambda x, y, photo=photo: Hint(x, y, "#" + bytes(photo[int(y), int(x)]).hex())  # noqa: E731
        asked = error([true(one.x, one.y) for one in questions(box, photo, 3)])
        anywhere = [error([true(*(random.random(2) * photo.shape[1::-1])) for _ in range(3)]) for _ in range(4)]
        gains.append(np.mean(anywhere) - asked)
    assert np.mean(gains) > 0


def test_a_flat_photo_raises_no_question_and_a_tiny_one_few(box):
    assert questions(box, np.full((50, 60, 3), 120, np.uint8)) == []
    assert alternatives(box, np.full((50, 60, 3), 120, np.uint8)) == [[]]
    tiny = data.coffee()[::90, ::150][:5, :4]
    asked = questions(box, tiny)
    assert 0 < len(asked) <= 5 and all(one.x < 4 and one.y < 5 for one in asked)
    with pytest.raises(ValueError, match="no color hints"):
        questions(Colorizer(Generator("tf_efficientnet_lite0", None, bottleneck="identity"), "fp32"), tiny)


def test_the_command_follows_a_reference_for_photos_and_films(tmp_path):
    Image.fromarray(data.coffee()).save(tmp_path / "reference.png")
    Image.fromarray(data.coffee()).convert("L").save(tmp_path / "gray.png")
    films.write(tmp_path / "film.mp4", [np.ascontiguousarray(data.coffee()[::4, ::4])] * 3)
    box = ["--weights", str(BOX / "warmup.safetensors"), "--like", str(tmp_path / "reference.png")]
    command.main([str(tmp_path / "gray.png"), str(tmp_path / "like.png"), *box])
    command.main([str(tmp_path / "gray.png"), str(tmp_path / "plain.png"), *box[:2]])
    made = [ab(np.array(Image.open(tmp_path / name))) for name in ("like.png", "plain.png")]
    errors = [(colors - ab(data.coffee())).norm(dim=0).mean() for colors in made]
    assert errors[0] < 0.6 * errors[1]
    command.main([str(tmp_path / "film.mp4"), str(tmp_path / "like.mp4"), *box])
    _, frame = next(Film(tmp_path / "like.mp4").frames())
    assert (ab(frame) - ab(data.coffee()[::4, ::4])).norm(dim=0).mean() < 0.7 * errors[1]


def command_asks(source, target, count, capsys):
    """Let the command ask; return the questions, as they are in a file of JSON."""
    command.main([str(source), str(target), "--ask", str(count), "--weights", str(BOX / "warmup.safetensors")])
    (target.parent / "asked.json").write_text(text := capsys.readouterr().out)
    return json.loads(text)


def test_the_command_asks_in_the_json_that_it_reads(tmp_path, capsys):
    Image.fromarray(data.coffee()).convert("L").save(tmp_path / "cup.png")
    asked = command_asks(tmp_path / "cup.png", tmp_path / "places.png", 3, capsys)
    drawn = np.array(Image.open(tmp_path / "places.png")).astype(int)
    changed = [(int(y), int(x)) for y, x, _ in np.argwhere(np.abs(drawn - drawn[..., :1]) > 9)[:1]]
    assert len(asked) == 3 and all(len(one["likely"]) == 5 for one in asked) and not changed  # white in black, on gray
    gray = np.array(Image.open(tmp_path / "cup.png"))
    for one in asked:  # around each place is a ring, which the photo does not have
        here = np.s_[int(one["y"]) - 20 : int(one["y"]) + 20, int(one["x"]) - 20 : int(one["x"]) + 20]
        assert np.abs(drawn[..., 0] - gray)[here].max() > 60
    assert read_hints(tmp_path / "asked.json") == []  # nothing is filled in
    asked[1]["color"] = asked[1]["likely"][2]
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    assert read_hints(tmp_path / "asked.json") == [Hint(asked[1]["x"], asked[1]["y"], asked[1]["likely"][2])]


def test_a_film_of_two_shots_is_asked_about_both_and_most_about_what_is_seen_longest(tmp_path, capsys):
    films.write(tmp_path / "film.mp4", films.shots(30, 10, size=(144, 192)))
    asked = command_asks(tmp_path / "film.mp4", tmp_path / "places.png", 12, capsys)
    times = [one["at"] for one in asked]
    assert times[:2] == [0, 0] and 1.2 in times and set(times) <= {0, 1.2, *np.arange(0.32, 1.2, 0.04).round(2)}
    assert all(0 <= one["x"] < 192 and 0 <= one["y"] < 144 for one in asked)
    assert Image.open(tmp_path / "places.png").size == (512, 384 * len(asked))
    asked[0]["color"] = "#c03020"
    (tmp_path / "asked.json").write_text(json.dumps(asked[:1]))
    arguments = [str(tmp_path / "film.mp4"), str(tmp_path / "red.mp4"), "--hints", str(tmp_path / "asked.json")]
    command.main([*arguments, "--weights", str(BOX / "warmup.safetensors")])
    red = [ab(frame)[0].amax() for frame in films.pictures(tmp_path / "red.mp4")]
    assert min(red[:30]) > 25 > max(red[31:])  # the answer serves its shot, and no other


def test_of_a_long_film_only_a_few_frames_are_kept(monkeypatch):
    made, kept, random = [], [], np.random.default_rng(0)

    def frames(*_):
        for number in range(300):
            if number % 10 == 0:
                shot = random.integers(0, 256, (40, 60, 3), np.uint8)
            frame = shot.copy()
            made.append(weakref.ref(frame))
            yield number, frame
            kept.append(sum(each() is not None for each in made))

    film = SimpleNamespace(height=40, width=60, time_base=0.04, count=300, frames=frames)
    one = lambda *_: [suggestions.Question(20.0, 20.0, ["#808080"], random.random())]  # noqa: E731
    monkeypatch.setattr(film_questions, "questions", one)
    asked, _ = film_questions.film_questions(film, None, 3)
    assert len({one.at for one in asked}) == 3 and max(kept) <= 8
