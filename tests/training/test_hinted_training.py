"""Hints: their places and colors, the generator that takes them, and the task that trains it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TinyGenerator

from helpers.data.batches import augmentations, lab_batch
from helpers.data.hints import draw_squares, fixed_hints, fixed_squares, hints_of
from helpers.evaluation.hints import colorize_with
from helpers.models.generator import Generator
from helpers.runs.run import Run, find_run
from helpers.training.hints import HintedColorization, common_colors, paste, with_hints
from helpers.training.losses import color_term
from helpers.training.trainer import Trainer


@pytest.fixture(scope="module")
def photos(sample_photos):
    return sample_photos.load("train")


def loud(**arguments):
    """A generator whose outputs a change of its inputs can be seen in."""
    torch.manual_seed(1)
    generator = Generator(weights=None, res_blocks=1, **arguments)
    with torch.no_grad():
        generator.head.weight.mul_(20)
    return generator.eval()


@pytest.mark.parametrize("bottleneck", ["residual", "identity", "attention", "vit"])
@torch.no_grad()
def test_a_generator_that_is_given_hints_answers_as_before_bit_for_bit(bottleneck):
    before = loud(bottleneck=bottleneck, attention_at=8)
    after = with_hints(before)
    for height, width in ((64, 64), (33, 50), (255, 64)):
        L = torch.rand(2, 1, height, width) * 2 - 1
        assert torch.equal(after(L), before(L))
        assert torch.equal(after(L, torch.zeros(2, 3, height, width)), before(L))
        size = (64 * (height // 32), 32 * (width // 32 + 1))
        L, hints = torch.rand(2, 1, *size), torch.rand(2, 3, *size)
        pairs = zip(after.encoder(L, hints), before.encoder(L), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)  # the new weights are zero


@torch.no_grad()
def test_hints_of_zeros_are_no_hints_whatever_was_learned():
    generator = with_hints(loud())
    torch.nn.init.normal_(generator.encoder.hint_conv.weight)
    L, hints = torch.rand(1, 1, 64, 64), torch.zeros(1, 3, 64, 64)
    assert torch.equal(generator(L, hints), generator(L))
    hints[:, :, 20:26, 20:26] = 1
    assert (generator(L, hints) - generator(L)).abs().max() > 1e-3


def test_the_first_gradient_reaches_the_new_weights():
    generator = with_hints(loud()).train()
    hints = torch.rand(2, 3, 64, 64)
    hints[..., :32] = 0  # what was said is taken over as it is, and has no gradient
    generator(torch.rand(2, 1, 64, 64), hints).sum().backward()
    assert generator.encoder.hint_conv.weight.grad.abs().max() > 0


def test_a_generator_without_hints_says_so():
    with pytest.raises(ValueError, match="takes no hints: notebook 07"):
        loud()(torch.zeros(1, 1, 64, 64), torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="TinyGenerator cannot be given hints"):
        with_hints(TinyGenerator())


@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 70))
@settings(max_examples=50, deadline=None)
def test_squares_lie_in_the_photo_whatever_its_size(seed, height, width):
    torch.manual_seed(seed)
    for top, left, side in draw_squares(height, width):
        assert 0 <= top <= height - side and 0 <= left <= width - side and 1 <= side <= 9


def test_the_number_of_hints_is_geometric_and_their_places_are_half_central():
    torch.manual_seed(0)
    counts = np.array([len(draw_squares(128, 128)) for _ in range(3000)])
    expected = [1 / 8 * (7 / 8) ** k for k in range(5)]
    assert np.allclose([(counts == k).mean() for k in range(5)], expected, atol=0.02)
    assert abs(counts.mean() - 7) < 0.5
    tops = {
        share: np.array([t for _ in range(500) for t, _, _ in draw_squares(128, 128, centered=share)])
        for share in (0, 1)
    }
    assert abs(tops[0].std() / 128 - 12**-0.5) < 0.03  # uniform
    assert abs(tops[1].std() / 128 - 0.24) < 0.03  # normal, cut off at the border
    assert abs(tops[1].mean() / 124 - 0.5) < 0.03


def test_a_hint_says_the_mean_color_of_its_square_and_nothing_elsewhere(photos):
    ab = lab_batch(photos[:2].float() / 255).ab
    hints = hints_of(ab, [[(3, 10, 4), (40, 20, 9)], []])
    assert hints[1].abs().max() == 0 and hints[0, 2].sum() == 16 + 81
    assert torch.allclose(hints[0, :2, 5, 12], ab[0, :, 3:7, 10:14].mean((1, 2)))
    assert hints[0, :2, hints[0, 2] == 0].abs().max() == 0


def test_the_places_to_measure_with_are_always_the_same_and_grow(photos):
    table = fixed_squares(3, (64, 64), 50)
    assert table.equals(fixed_squares(3, (64, 64), 50)) and not table.equals(fixed_squares(3, (64, 64), 50, seed=1))
    assert table["top"].between(0, 58).all() and table["left"].between(0, 58).all() and len(table) == 150
    few, many = (fixed_hints(photos[:3], table, count) for count in (5, 50))
    assert ((many[:, 2] >= few[:, 2]).all()) and few[:, 2].sum() < many[:, 2].sum()
    assert fixed_hints(photos[:3], table, 0).abs().max() == 0


def fine_tuned(cfg, accelerator, photos, epochs=2, **values):
    cfg = cfg.replace(hints_epochs=epochs, hints_lr=1e-3, val_photos=4, run="painted", **values)
    generator, task = with_hints(loud()), HintedColorization(counts=(0, 1, 10))
    trainer = Trainer(cfg, accelerator, generator, [color_term(cfg)], photos, augmentations(cfg), task=task)
    return trainer, trainer.fit()


def test_fine_tuning_is_a_phase_of_its_own(cfg, accelerator, sample_photos):
    trainer, history = fine_tuned(cfg, accelerator, sample_photos)
    assert {"val PSNR, 0 hints", "val PSNR, 1 hint", "val PSNR, 10 hints"} <= set(history)
    assert history["val PSNR, 0 hints"].iloc[-1] != history["val PSNR, 10 hints"].iloc[-1]
    assert trainer.validated.shape[0] == 3 * len(trainer.validation)
    run = Run("painted")
    assert run.phases() == ["hints"] and find_run("").name == "painted"
    loaded, L = run.load("hints"), torch.rand(1, 1, 64, 64)
    hints = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(loaded(L, hints), trainer.final_generator()(L, hints), atol=1e-4)
    assert trainer.final_generator().encoder.hint_conv.weight.abs().max() > 0


def test_a_fine_tuning_goes_on_where_it_stopped(cfg, accelerator, sample_photos):
    whole, _ = fine_tuned(cfg, accelerator, sample_photos)
    weights = {name: value.clone() for name, value in whole.final_generator().state_dict().items()}
    Run("painted").path.rename(Run("whole").path)

    def _stop(trainer):
        if trainer.epoch == 2:
            raise KeyboardInterrupt

    cfg = cfg.replace(hints_epochs=2, hints_lr=1e-3, val_photos=4, run="painted", checkpoint_minutes=0.0)
    torch.manual_seed(0)
    generator, task = with_hints(loud()), HintedColorization(counts=(0, 1, 10))
    parts = ([color_term(cfg)], sample_photos, augmentations(cfg))
    with pytest.raises(KeyboardInterrupt):
        Trainer(cfg, accelerator, generator, *parts, task=task).fit(show=_stop)
    again = Trainer(cfg, accelerator, with_hints(loud()), *parts, task=HintedColorization(counts=(0, 1, 10)))
    again.fit()
    for name, value in again.final_generator().state_dict().items():
        assert torch.equal(value, weights[name]), name


@torch.no_grad()
def test_photos_are_colored_from_their_lightness_and_hints(photos):
    generator = with_hints(loud())
    torch.nn.init.normal_(generator.encoder.hint_conv.weight, std=0.1)
    hints = fixed_hints(photos[:3], fixed_squares(3, (64, 64)), 10)
    colored = colorize_with(generator, photos[:3], hints, batch_size=2)
    assert colored.dtype == torch.uint8 and colored.shape == photos[:3].shape
    assert not torch.equal(colored, colorize_with(generator, photos[:3], torch.zeros_like(hints)))


def test_the_colors_that_are_proposed_are_those_that_photos_have():
    photos = torch.zeros(4, 3, 60, 60, dtype=torch.uint8)
    blue, green, brown = ((60, 110, 220), (60, 140, 60), (130, 90, 60))
    for rows, color in ((slice(0, 20), blue), (slice(20, 60), green), (slice(20, 25), brown)):
        photos[:, :, rows] = torch.tensor(color, dtype=torch.uint8).view(3, 1, 1)
    palette = common_colors(photos)
    assert palette.shape == (3, 8, 6, 2)
    for third, color in ((0, blue), (1, green), (2, green)):
        pixel = lab_batch(torch.tensor(color).view(1, 3, 1, 1) / 255)
        lightness = int((pixel.L.item() + 1) / 2 * 8)
        assert (palette[third, lightness, 0] - pixel.ab.flatten()).abs().max() < 6 / 128, third
    distance = (palette[..., None, :] - palette[..., None, :, :]).abs().amax(-1) + torch.eye(6)
    assert distance[1, 4].min() > 0  # no color twice


def test_what_was_learned_without_hints_stays_bit_for_bit(cfg, accelerator, sample_photos):
    before, L = loud().to(memory_format=torch.channels_last), torch.rand(2, 1, 64, 64) * 2 - 1
    trainer, _ = fine_tuned(cfg, accelerator, sample_photos, ema_decay=0.5)
    after = trainer.final_generator()
    with torch.no_grad():
        assert torch.equal(after(L), before(L))
    learned = {name for name, value in after.named_parameters() if value.requires_grad}
    assert learned == {name for name, _ in after.named_parameters() if name.startswith(("look.", "encoder.hint_conv"))}
    start = with_hints(loud())
    assert all(not torch.equal(after.get_parameter(name), start.get_parameter(name)) for name in learned)


def test_a_network_that_may_learn_on_is_another_training(cfg, accelerator, sample_photos):
    fine_tuned(cfg, accelerator, sample_photos, epochs=1)
    free = with_hints(loud()).requires_grad_(True)
    assert all(norm.training for norm in free.train().modules() if isinstance(norm, torch.nn.BatchNorm2d))
    cfg = cfg.replace(hints_epochs=1, hints_lr=1e-3, val_photos=4, run="painted")
    parts = ([color_term(cfg)], sample_photos, augmentations(cfg))
    with pytest.raises(ValueError, match="generator"):
        Trainer(cfg, accelerator, free, *parts, task=HintedColorization(counts=(0, 1, 10))).fit()


@torch.no_grad()
def test_a_hinted_pixel_has_the_color_that_was_said():
    generator, hints = with_hints(loud()), torch.zeros(1, 3, 64, 64)
    hints[:, :, 10:14, 20:26] = torch.tensor([0.3, -0.2, 1]).view(3, 1, 1)
    ab = generator(torch.rand(1, 1, 64, 64), hints)
    assert torch.equal(ab[0, :, 10:14, 20:26], hints[0, :2, 10:14, 20:26])


def test_objects_are_pasted_from_other_photos_in_other_hues(photos):
    rgb = photos[:8].float() / 255
    pasted = paste(rgb, share=1.0)
    inside = (pasted != rgb).any(1)
    assert inside.any((1, 2)).sum() >= 6 and not inside.all((1, 2)).any()
    ours, other = lab_batch(pasted), lab_batch(rgb.roll(1, 0))
    assert ((ours.L - other.L)[inside[:, None]].abs() < 0.05).float().mean() > 0.9  # but for colors out of gamut
    near = (ours.ab - other.ab).norm(dim=1)[inside] < 0.01
    assert near.float().mean() < 0.6  # only what is gray, or hardly turned
    assert torch.equal(paste(rgb, share=0.0), rgb)
