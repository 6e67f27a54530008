"""The tasks beside colorization: following hints, and enlarging."""

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from helpers.training.tasks import HintedColorization, SuperResolution, common_colors, with_hints
from tiny import L1, TinyGenerator, TinyPhotos, assert_same, crash, outcome
from torch import nn

from helpers.data.batches import lab_batch
from helpers.evaluation.metrics import psnr
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.models.srresnet import SRResNet, bicubic
from helpers.runs import Run, find_run, runs
from helpers.training.losses import LossTerm, gan_loss

CPU = torch.device("cpu")


def loud(**arguments):
    """A generator whose outputs show a change of its inputs."""
    torch.manual_seed(1)
    generator = Generator("test_efficientnet", None, res_blocks=1, **arguments)
    with torch.no_grad():
        generator.head.weight.mul_(20)
    return generator.eval()


@pytest.fixture(scope="module")
def photos():
    return TinyPhotos().load("train")


# hints


@pytest.mark.parametrize("changes", [{}, {"bottleneck": "vit"}, {"bottleneck": "identity", "attention_at": 8}])
@torch.no_grad()
def test_a_generator_that_learned_to_take_hints_colors_as_before_without_them(changes):
    before = loud(**changes)
    after = with_hints(before)
    for conv in after.hint_convs:
        nn.init.normal_(conv.weight)
    for size in ((64, 64), (33, 50), (100, 64)):
        L = torch.rand(2, 1, *size) * 2 - 1
        assert torch.equal(after(L), before(L))  # bit for bit
    hints = torch.rand(2, 3, 100, 64)
    assert (after(L, hints) - before(L)).abs().max() > 1e-2


def test_only_the_hint_layers_can_learn(photos):
    after = with_hints(loud().train(), photos)
    learned = {name for name, weights in after.named_parameters() if weights.requires_grad}
    assert learned == {name for name, _ in after.named_parameters() if name.startswith("hint_")} and len(learned) > 6
    norms = [norm for norm in after.modules() if isinstance(norm, nn.BatchNorm2d)]
    assert after.training and norms and not any(norm.training for norm in norms)
    assert torch.equal(after.palette, common_colors(photos))


@pytest.mark.parametrize("network", [TinyGenerator(), SRResNet(1)])
def test_a_network_that_cannot_take_hints_is_refused_by_its_class(network):
    with pytest.raises(ValueError, match=type(network).__name__):
        with_hints(network)


def test_a_batch_has_the_hints_that_are_drawn(photos):
    rgb, counts = photos[:3].float() / 255, iter([1, 0, 2])
    batch = HintedColorization(draw=lambda height, width: [(3, 10, 4), (30, 20, 5)][: next(counts)]).batch(rgb)
    assert torch.equal(batch.L, lab_batch(rgb).L) and torch.equal(batch.rgb, rgb)
    assert batch.hints[:, 2].sum((1, 2)).tolist() == [16, 0, 16 + 25]
    wanted = batch.ab[2, :, 30:35, 20:25].mean((1, 2))
    assert torch.allclose(batch.hints[2, :2, 32, 22], wanted)
    torch.manual_seed(0)
    one, other = (HintedColorization().batch(rgb).hints for _ in range(2))
    assert not torch.equal(one, other)


@torch.no_grad()
def test_validation_measures_each_number_of_hints_always_at_the_same_places(photos):
    task, generator = HintedColorization(counts=(0, 1, 20)), with_hints(loud())
    first, state = task.outputs(generator, photos[:4], CPU), (torch.rand(1), torch.get_rng_state())[1]
    assert torch.equal(first, task.outputs(generator, photos[:4], CPU)) and torch.equal(torch.get_rng_state(), state)
    assert first.shape == (12, 3, 48, 48)
    table = task.measure(first, photos[:4], None, CPU)
    for i, name in enumerate(["PSNR, 0 hints", "PSNR, 1 hint", "PSNR, 20 hints"]):
        wanted = psnr(first[4 * i : 4 * i + 4] / 255, photos[:4] / 255)
        assert np.allclose(table[name], wanted, atol=1e-4)
    assert np.allclose(table["PSNR"], table.filter(like="PSNR,").mean(axis=1))
    assert table["PSNR, 20 hints"].mean() > table["PSNR, 0 hints"].mean()


def hinted(make, run):
    task = HintedColorization(counts=(0, 1, 10))
    changes = {"run": run, "checkpoint_minutes": 0.0, "ema_decay": 0.5}
    return make(adversarial=False, terms=[L1], generator=with_hints(loud()), task=task, changes=changes)


def test_fine_tuning_is_a_phase_that_resumes_and_leaves_colors_without_hints_alone(make):
    whole = hinted(make, "whole")
    history = whole.fit()
    assert {"val PSNR, 0 hints", "val PSNR, 1 hint", "val PSNR, 10 hints", "val L1"} <= set(history)
    assert history["val PSNR, 0 hints"].nunique() == 1 < history["val PSNR, 10 hints"].nunique()
    assert Run("whole").phases() == ["hints"] and find_run().name == "whole"
    loaded, L, hints = Run("whole").load("hints"), torch.rand(1, 1, 64, 64), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(loaded(L, hints), whole.final_generator()(L, hints), atol=1e-4)
        assert torch.allclose(loaded(L), loud()(L), atol=1e-6)
    assert crash(hinted(make, "broken"), 5)
    again = hinted(make, "broken")
    again.fit()
    assert_same(outcome(whole), outcome(again))


def test_the_proposed_colors_are_the_common_ones():
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
    assert distance.min() > 0  # no color twice


# super-resolution

L1_OF_L = LossTerm("L1", 1.0, lambda p: (p.L_pred.float() - p.L).abs().mean())


@pytest.fixture
def enlarging(make):
    """Return a function that makes a trainer of SRResNet on photos with sharp edges."""

    def _make(phase="superres", **options):
        torch.manual_seed(0)
        values = {"generator": SRResNet(1, channels=8), "terms": [L1_OF_L], "task": SuperResolution(phase)}
        values |= {"photos": TinyPhotos(mode="nearest-exact"), "augment": [K.RandomHorizontalFlip()]}
        return make(adversarial=False, **values | options)

    return _make


def test_pairs_are_reduced_by_bicubic_and_damaged_before_and_after(photos):
    rgb = photos[:4].float() / 255
    pair = SuperResolution().batch(rgb)
    assert pair.small.shape == (4, 1, 12, 12) and pair.L.shape == (4, 1, 48, 48)
    torch.testing.assert_close(pair.small, bicubic(pair.L, 1 / 4).clamp(-1, 1), atol=1e-5, rtol=0)
    white, black = torch.ones_like, torch.zeros_like
    damaged = SuperResolution(before=[white]).batch(rgb)
    assert damaged.small.min() > 1 - 1e-5 and torch.equal(damaged.L, pair.L)  # the truth stays whole
    assert (SuperResolution(before=[white], after=[black]).batch(rgb).small == -1).all()


@torch.no_grad()
def test_validation_damages_alike_every_time_and_measures_lightness(photos):
    task, network = SuperResolution(after=[K.RandomGaussianNoise(std=0.1, p=1.0)]), SRResNet(1)
    first, state = task.outputs(network, photos[:4], CPU), (torch.rand(1), torch.get_rng_state())[1]
    assert torch.equal(first, task.outputs(network, photos[:4], CPU)) and torch.equal(torch.get_rng_state(), state)
    plain = SuperResolution().outputs(network, photos[:4], CPU)
    assert plain.dtype == torch.uint8 and plain.shape == (4, 3, 48, 48) and not torch.equal(first, plain)
    damaged, good = (task.measure(outputs, photos[:4], None, CPU) for outputs in (first, plain))
    assert (good["PSNR"] > damaged["PSNR"]).all() and (good["SSIM"] > damaged["SSIM"]).all()
    gray = photos[:4].float().mean(1, keepdim=True).expand(-1, 3, -1, -1).round().byte()
    perfect = task.measure(gray, gray, None, CPU)
    assert perfect["PSNR"].min() > 45 and perfect["SSIM"].min() > 0.999 and perfect["L1"].max() < 0.01


def test_an_enlarger_learns_to_beat_bicubic_and_is_no_colorizer(enlarging):
    trainer = enlarging(epochs=30, lr=4e-3)
    start = trainer.validate()
    history = trainer.fit()
    assert history["val PSNR"].iloc[-1] > start["val PSNR"] + 0.5 and history["val L1"].iloc[-1] < start["val L1"]
    saved, small = Run("tiny").load("superres"), torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(saved(small), trainer.final_generator()(small))
    assert not runs() and not Run("tiny").phases()


def test_its_second_phase_has_a_discriminator_of_lightness_and_resumes(enlarging):
    def again(run):
        terms = [LossTerm("GAN", 0.1, gan_loss), L1_OF_L]
        changes = {"run": run, "keep": "last", "checkpoint_minutes": 0.0}
        torch.manual_seed(0)
        return enlarging("superres_gan", discriminator=Discriminator(1), terms=terms, changes=changes)

    whole = again("whole")
    whole.fit()
    assert {"GAN", "L1", "D real"} <= set(whole.steps) and whole.run.file("superres_gan").exists()
    assert crash(again("broken"), 3)
    resumed = again("broken")
    resumed.fit()
    assert_same(outcome(whole), outcome(resumed))
