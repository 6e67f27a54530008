"""Any photo at its own size, with its own lightness, however it is handed over; from small ab to every pixel."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import odd_photos
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.color import lab2rgb, rgb2lab

from helpers.color import rgb_to_L_ab, to_photo
from helpers.data.photos import to_tensor
from helpers.inference.colorizer import Colorizer, Options, render, restore


@pytest.fixture
def colorizer(loud_generator):
    return Colorizer(loud_generator, "fp32")


@pytest.fixture
def cat():
    return np.array(odd_photos.color((151, 102)))


@pytest.mark.parametrize("options", [{}, {"saturation": 2.0}, {"input_size": 64}, {"flip": True}])
def test_the_photo_keeps_its_size_and_its_own_lightness(colorizer, cat, options):
    colorized = colorizer(cat, **options)
    assert colorized.shape == cat.shape and colorized.dtype == np.uint8
    assert np.abs(rgb2lab(colorized)[..., 0] - rgb2lab(cat)[..., 0]).mean() < 0.3
    assert np.abs(rgb2lab(colorized)[..., 1:]).mean() > 3  # it did color
    mirrored = np.abs(colorizer(cat[:, ::-1].copy(), **options)[:, ::-1].astype(int) - colorized).mean()
    assert mirrored < 1 if "flip" in options else mirrored > 1


def test_no_saturation_is_gray_and_a_cast_is_removed_by_taking_lightness_alone(colorizer, cat):
    assert np.ptp(colorizer(cat, saturation=0.0).astype(int), axis=2).max() <= 1
    sepia = np.dstack([rgb2lab(cat)[..., 0], np.full(cat.shape[:2], 6.0), np.full(cat.shape[:2], 22.0)])
    difference = colorizer((lab2rgb(sepia) * 255).round().astype(np.uint8)).astype(int) - colorizer(cat)
    assert np.abs(difference).mean() < 2


def test_a_constant_ab_is_that_color_at_every_pixel(cat):
    # so little that it is in gamut nearly everywhere
    ab = torch.tensor([4.0, -6.0]).view(2, 1, 1).expand(2, 5, 7) / 128
    found = rgb2lab(render(cat, ab))[..., 1:]
    assert np.abs(np.median(found, axis=(0, 1)) - [4.0, -6.0]).max() < 0.5


@pytest.mark.parametrize("size", [(151, 102), (3, 200), (40_000, 2), (1, 1)])
def test_small_ab_is_enlarged_bilinearly_in_strips_as_in_one(size, monkeypatch):
    photo, ab = np.array(odd_photos.color(size)), torch.rand(2, 9, 13) * 2 - 1
    whole = render(photo, ab)
    large = F.interpolate(ab[None], photo.shape[:2], mode="bilinear")
    wanted = to_photo(rgb_to_L_ab(to_tensor(photo))[0], large)[0].permute(1, 2, 0).numpy()
    assert np.abs(whole.astype(int) - wanted).max() <= 1
    monkeypatch.setattr("helpers.inference.colorizer.STRIP", 500)
    assert (render(photo, ab) == whole).all()


def test_a_gray_photo_without_color_comes_back_as_it_was():
    gray = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert (render(gray, torch.zeros(2, 3, 3)) == gray).all()


def test_every_way_to_hand_over_a_photo_gives_the_same(colorizer, cat, tmp_path):
    path = tmp_path / "cat.png"
    Image.fromarray(cat).save(path)
    opaque = np.dstack([cat, np.full(cat.shape[:2], 255, np.uint8)])
    wanted = colorizer(cat)
    for photo in (path, str(path), path.read_bytes(), Image.open(path), cat.astype(np.uint16) * 257, cat / 255, opaque):
        assert (colorizer(photo) == wanted).all(), type(photo)


IMPOSSIBLE = {"input_size": 8, "saturation": -1, "denoise": 99, "keep_color": "maybe", "like": "a.jpg"}


def test_what_is_no_photo_and_impossible_options_are_named(colorizer):
    for photo in (np.zeros((3, 4, 5)), np.zeros((0, 4, 3), "u1"), np.zeros((4, 4), int)):
        with pytest.raises(ValueError, match="is no photo"):
            colorizer(photo)
    for name, value in IMPOSSIBLE.items():
        with pytest.raises(ValueError, match=name):
            colorizer(np.zeros((4, 4)), **{name: value})


def test_building_one_in_any_thread_leaves_the_flags_of_a_training_as_they_are(loud_generator):
    def flags():
        cudnn = torch.backends.cudnn
        return torch.get_float32_matmul_precision(), cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32

    for benchmark in (False, True):
        torch.backends.cudnn.benchmark = benchmark
        before = flags()
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda precision: Colorizer(loud_generator, precision), 4 * ["fp32", "bf16"]))
        assert flags() == before and [each.accelerator.mixed_precision for each in made] == 4 * ["no", "bf16"]


def test_denoising_and_contrast_do_what_they_say(cat):
    noisy = (cat + np.random.default_rng(0).normal(0, 20, cat.shape)).clip(0, 255).astype(np.uint8)
    pale = (cat / 4 + 90).astype(np.uint8)
    L, grainy, clean, flat, strong = (
        rgb2lab(photo)[..., 0]
        for photo in (cat, noisy, restore(noisy, Options(denoise=12)), pale, restore(pale, Options(contrast=3)))
    )
    assert np.abs(clean - L).mean() < 0.7 * np.abs(grainy - L).mean() and strong.std() > 1.2 * flat.std()
    assert restore(pale, Options()) is pale


def test_without_a_trained_run_the_box_paints_and_says_so(capsys):
    colorizer = Colorizer()
    assert str(colorizer) == "the model in the box, which comes with the project, trained at 128 px"
    assert "no run of your own yet" in capsys.readouterr().out and colorizer.takes_hints


def test_the_weights_are_those_of_the_last_phase_of_the_run_that_was_trained_last(kept, loud_generator, cfg):
    for name, phase in (("first", "warmup"), ("first", "adversarial"), ("second", "warmup")):
        assert kept(name, phase, loud_generator) == Colorizer().weights
    colorizer = Colorizer()
    assert str(colorizer) == f"second/warmup.safetensors, trained at {cfg.size} px"
    assert colorizer.options().input_size == cfg.size
