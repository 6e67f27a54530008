"""Hints from a reference photo and from the palette, with the model in the box."""

import films
import numpy as np
import odd_photos
import pytest
import torch
from PIL import Image
from skimage import data

from helpers.apps import __main__ as command
from helpers.apps.film_reader import Film
from helpers.color import ab_of
from helpers.inference.colorizer import Colorizer
from helpers.inference.suggestions import DIFFERENT, SPREAD, answers, match, reference_hints
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
    cells, partners, similarity = match(ours, theirs)
    assert len(cells) == 30 and torch.equal(order[partners], cells) and similarity.min() > 0.999


def test_the_photo_itself_as_reference_gives_its_colors(box):
    photo = data.coffee()
    errors = [
        (ab(box(photo, hints)) - ab(photo)).norm(dim=0).mean() for hints in ([], [reference_hints(box, photo, photo)])
    ]
    assert errors[1] < 0.6 * errors[0]


def test_following_not_at_all_changes_nothing(box):
    hints = reference_hints(box, data.coffee(), data.chelsea(), follow=0.0)
    assert hints[:, 2].max() == 0
    np.testing.assert_array_equal(box(data.coffee(), [hints]), box(data.coffee()))


@pytest.mark.parametrize("size", [(1, 1), (700, 40)])
def test_odd_references_are_followed_or_refused(box, size, tmp_path):
    Image.new("CMYK", size, (0, 200, 200, 0)).save(tmp_path / "odd.jpg")
    assert box(data.coffee(), [reference_hints(box, data.coffee(), tmp_path / "odd.jpg")]).shape == (400, 600, 3)
    with pytest.raises(ValueError, match="no colors"):
        reference_hints(box, data.coffee(), odd_photos.color((60, 50)).convert("L"))


def test_answers_differ_from_each_other(box):
    lists = answers(box, data.astronaut())
    assert lists[0] == [] and len(lists) >= 3
    looks = [ab(box(data.astronaut(), hints)) for hints in lists]
    for i, one in enumerate(looks):
        for other in looks[:i]:
            assert ((one - other).norm(dim=0) > 0.8 * DIFFERENT).float().mean() > 0.8 * SPREAD


def test_the_command_follows_a_reference_for_photos_and_films(tmp_path):
    Image.fromarray(data.coffee()).save(tmp_path / "reference.png")
    Image.fromarray(data.coffee()).convert("L").save(tmp_path / "gray.png")
    films.write(tmp_path / "film.mp4", [np.ascontiguousarray(data.coffee()[::4, ::4])] * 3)
    box = ["--weights", str(BOX / "warmup.safetensors"), "--like", str(tmp_path / "reference.png")]
    command.main([str(tmp_path / "gray.png"), str(tmp_path / "like.png"), *box])
    command.main([str(tmp_path / "gray.png"), str(tmp_path / "plain.png"), *box[:2]])
    errors = [
        (ab(np.array(Image.open(tmp_path / name))) - ab(data.coffee())).norm(dim=0).mean()
        for name in ("like.png", "plain.png")
    ]
    assert errors[0] < 0.6 * errors[1]
    command.main([str(tmp_path / "film.mp4"), str(tmp_path / "like.mp4"), *box])
    _, frame = next(Film(tmp_path / "like.mp4").frames())
    assert (ab(frame) - ab(data.coffee()[::4, ::4])).norm(dim=0).mean() < 0.7 * errors[1]


def test_an_unrelated_reference_gives_no_hints(box):
    hints = reference_hints(box, data.coffee()[:128, :128], data.astronaut()[:120, 200:330])
    assert hints[:, 2].max() == 0
