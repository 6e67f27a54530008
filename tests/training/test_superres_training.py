"""The task of super-resolution under the trainer: both phases, damage, the loss on features."""

from pathlib import Path

import kornia.augmentation as K
import pytest
import torch
from tiny import TinyGenerator

from helpers.data import dataset
from helpers.data.photos import read_rgb
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.models.superres import SRResNet, bicubic
from helpers.runs.run import Run, find_run, runs
from helpers.training.losses import LossTerm, gan_loss
from helpers.training.superres import EncoderFeatures, SuperResolution, compress, gray_photo, l1_of_L
from helpers.training.trainer import Trainer

L1 = [LossTerm("L1", 1.0, l1_of_L)]


@pytest.fixture(scope="module")
def originals(sample_photos, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLORIZE_WORKSPACE", str(tmp_path_factory.mktemp("originals")))
        return dataset.originals(sample_photos, 96)


@pytest.fixture
def train(cfg, accelerator, originals):
    def _train(task, network=None, terms=L1, discriminator=None, **changes):
        augment = [K.RandomCrop((64, 64)), K.RandomHorizontalFlip()]
        changed = cfg.replace(**{"superres_lr": 2e-3} | changes)
        network = network or SRResNet(1, channels=8)
        parts = changed, accelerator, network, terms, originals, augment
        return Trainer(*parts, discriminator=discriminator, task=task)

    return _train


def test_originals_are_the_files_own_pixels_and_too_small_a_set_is_said_so(sample_photos, originals):
    row = originals.manifest.query("split == 'train'").iloc[0]
    file = read_rgb(Path((sample_photos.folder / "source.txt").read_text()) / row.source)
    top, left = ((length - 96) // 2 for length in file.shape[:2])
    assert (originals.load("train", 1)[0].permute(1, 2, 0).numpy() == file[top : top + 96, left : left + 96]).all()
    with pytest.raises(ValueError, match="lower `original_size`"):
        dataset.originals(sample_photos, 5000)


def test_a_batch_is_reduced_by_bicubic_and_damage_comes_before_and_after(originals):
    rgb = originals.load("train", 4).float() / 255
    pair = SuperResolution().batch(rgb)
    assert pair.small.shape == (4, 1, 24, 24) and pair.L.shape == (4, 1, 96, 96)
    torch.testing.assert_close(pair.small, bicubic(pair.L, 1 / 4).clamp(-1, 1), atol=1e-5, rtol=0)
    white, black = torch.ones_like, torch.zeros_like
    assert SuperResolution(before=[white]).batch(rgb).small.min() > 1 - 1e-5
    assert (SuperResolution(before=[white], after=[black]).batch(rgb).small == -1).all()
    assert torch.equal(SuperResolution(before=[white]).batch(rgb).L, pair.L)  # the truth stays whole


def test_compression_costs_detail_and_more_of_it_where_quality_is_low(originals):
    gray = SuperResolution().batch(originals.load("train", 4).float() / 255).L / 2 + 0.5
    off = [(compress(gray, quality, quality) - gray).abs().mean() for quality in (95, 30)]
    assert 0 < off[0] < off[1] < 0.1


def test_phase_1_learns_to_beat_bicubic_and_is_kept(train, originals):
    trainer = train(SuperResolution(), superres_epochs=40)
    start = trainer.validate()
    history = trainer.fit()
    assert start["val PSNR"] < history["val PSNR"].iloc[-1] and history["val L1"].iloc[-1] < start["val L1"]
    saved = Run("smoke").load("superres")
    small = torch.rand(1, 1, 16, 16)
    torch.testing.assert_close(saved(small), trainer.final_generator()(small))
    assert not runs() and not Run("smoke").phases()  # it is no colorizer
    with pytest.raises(FileNotFoundError):
        find_run()


def test_validation_damages_alike_every_time(train, originals):
    task = SuperResolution("superres", [], [K.RandomGaussianNoise(std=0.1, p=1.0), compress])
    photos, network = originals.load("validation"), SRResNet(1)
    state = torch.get_rng_state()
    first, second = (task.outputs(network, photos, torch.device("cpu")) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, SuperResolution().outputs(network, photos, torch.device("cpu")))


def test_phase_2_against_a_discriminator_goes_on_where_it_was_stopped_with_the_same_result(train, monkeypatch):
    content = EncoderFeatures(Generator(weights=None, res_blocks=0))
    terms = [LossTerm("GAN", 0.1, gan_loss), LossTerm("content", 1.0, content.loss), *L1]

    def again(run):
        torch.manual_seed(0)
        network, judge = SRResNet(1, channels=8), Discriminator(1)
        options = {"run": run, "keep": "last", "superres_gan_epochs": 2}
        return train(SuperResolution("superres_gan"), network, terms, judge, **options)

    torch.manual_seed(5)
    whole = again("whole")
    history = whole.fit()
    assert {"GAN", "content", "L1", "D real"} <= set(whole.steps) and len(history) == 2
    broken = again("broken")
    step, count = broken.training_step, []

    def stop(*batches):
        count.append(1)
        if len(count) == 3:
            broken.request.asked = True
        return step(*batches)

    monkeypatch.setattr(broken, "training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        broken.fit()
    resumed = again("broken")
    resumed.fit()
    for ours, theirs in zip(resumed.final_generator().parameters(), whole.final_generator().parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_features_are_frozen_zero_for_the_truth_and_lead_to_it():
    content = EncoderFeatures(Generator(weights=None, res_blocks=0)).train()
    assert not content.encoder.training and not any(weights.requires_grad for weights in content.parameters())
    L = torch.rand(2, 1, 64, 64)
    task = SuperResolution()

    class Same(torch.nn.Module):
        def forward(self, small):
            return made

    made = L.clone().requires_grad_(True)
    batch = task.batch(gray_photo(L))
    batch.L = L
    assert content.loss(task.predict(Same(), batch)) == 0
    made = (L + 0.1 * torch.randn_like(L)).requires_grad_(True)
    loss = content.loss(task.predict(Same(), batch))
    loss.backward()
    assert loss > 0 and made.grad.abs().max() > 0
    with pytest.raises(ValueError, match="TinyGenerator has no encoder"):
        EncoderFeatures(TinyGenerator())
