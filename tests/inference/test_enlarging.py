"""Enlarging photos of any size in tiles: no seam, no odd photo that stops it, and nobody's large photo by surprise."""

import numpy as np
import odd_photos
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from helpers.apps import __main__ as command
from helpers.inference.colorizer import Colorizer
from helpers.inference.enlarger import Enlarger, latest_enlarger
from helpers.models.srresnet import SRResNet
from helpers.runs import Run, save_network


def trained(seed=0):
    """A network that adds to bicubic, as if it was trained."""
    torch.manual_seed(seed)
    network = SRResNet(blocks=2, channels=16)
    torch.nn.init.normal_(network.last.weight, std=0.02)
    return network


@pytest.fixture
def colorizer(loud_generator):
    return Colorizer(loud_generator, "fp32", Enlarger(trained(), "fp32"))


@pytest.mark.parametrize(("scale", "precision"), [(2, "fp32"), (4, "fp32"), (4, "bf16")])
def test_tiles_are_the_whole(scale, precision):
    enlarger, photo = Enlarger(trained(), precision), np.array(odd_photos.color((90, 57)))
    whole = enlarger(photo, scale, tile=90)
    for tile in (40, 33):
        assert np.abs(enlarger(photo, scale, tile).astype(int) - whole).max() <= 1
    assert whole.shape == (57 * scale, 90 * scale, 3)


def test_an_untrained_network_gives_pillows_enlargement():
    gray = np.array(odd_photos.color((60, 41)).convert("L"))
    theirs = np.array(Image.fromarray(gray).resize((240, 164), Image.Resampling.BICUBIC)).astype(int)
    ours = Enlarger(SRResNet(1), "fp32")(np.dstack([gray] * 3)).astype(int)
    assert np.abs(ours[..., 0] - theirs).mean() < 1  # one reckons in L, the other in gray values
    assert np.ptp(ours, axis=2).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (700, 3), (64, 49)])
def test_any_size_is_enlarged_first_and_then_colored(colorizer, size):
    photo = np.array(odd_photos.color(size))
    made = colorizer(photo, enlarge=4)
    assert made.shape == (4 * size[1], 4 * size[0], 3)
    assert (made == colorizer(colorizer.enlarger(photo))).all()  # the other way round, small photos come out pale
    assert colorizer(photo, enlarge=2).shape == (2 * size[1], 2 * size[0], 3)
    assert size != (64, 49) or np.abs(rgb2lab(made)[..., 1:]).mean() > 3


def test_what_is_large_already_has_to_be_asked_for_twice(colorizer, monkeypatch):
    photo = np.zeros((40, 50, 3), np.uint8)
    monkeypatch.setattr("helpers.inference.colorizer.ENOUGH", 1000)
    with pytest.raises(ValueError, match="50x40 pixels.*--enlarge-large"):
        colorizer(photo, enlarge=2)
    assert colorizer(photo, enlarge=2, enlarge_large=True).shape == (80, 100, 3)
    assert colorizer(photo).shape == photo.shape


def test_the_gan_that_was_trained_last_is_taken_else_the_l1_network_else_the_box(kept, cfg, tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.inference.enlarger.BOX", tmp_path)
    with pytest.raises(FileNotFoundError, match="09_super_resolution makes it"):
        latest_enlarger()
    save_network(tmp_path / "superres.safetensors", trained(), cfg)
    assert latest_enlarger() == tmp_path / "superres.safetensors"
    for name, phase, found in (
        ("first", "superres", ("first", "superres")),
        ("first", "superres_gan", ("first", "superres_gan")),
        ("later", "superres", ("first", "superres_gan")),
        ("second", "superres_gan", ("second", "superres_gan")),
    ):
        kept(name, phase, trained())
        assert latest_enlarger() == Run(found[0]).file(found[1])


def test_weights_of_the_other_kind_are_refused(kept, loud_generator):
    with pytest.raises(ValueError, match="holds a network for super-resolution, not a colorizer"):
        Colorizer(kept("one", "superres", trained()))
    with pytest.raises(ValueError, match="holds a colorizer, not a network for super-resolution"):
        Enlarger(kept("one", "warmup", loud_generator))


def test_the_command_enlarges_and_says_what_is_missing(kept, loud_generator, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("helpers.inference.enlarger.BOX", tmp_path)
    photo, target = tmp_path / "small.png", tmp_path / "large.png"
    odd_photos.color((40, 30)).convert("L").save(photo)
    kept("one", "adversarial", loud_generator)
    with pytest.raises(SystemExit):
        command.main([str(photo), str(target), "--enlarge", "4"])
    assert "09_super_resolution makes it" in capsys.readouterr().err and not target.exists()
    l1, _ = kept("one", "superres", trained()), kept("one", "superres_gan", trained(1))
    command.main([str(photo), str(target), "--enlarge", "4"])
    command.main([str(photo), str(tmp_path / "l1.png"), "--enlarge", "4", "--enlarger", str(l1)])
    made = [np.array(Image.open(path)) for path in (target, tmp_path / "l1.png")]
    assert made[0].shape == made[1].shape == (120, 160, 3) and (made[0] != made[1]).any()
