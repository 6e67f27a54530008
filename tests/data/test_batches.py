"""Batches: every photo once, and an augmentation that each photo draws for itself and that invents no color."""

import pytest
import torch
from skimage.color import rgb2lab

from helpers.data.batches import Batches, augmentations


def numbered(count):
    """Photos that are each of one gray of their own, so that they can be told apart after a round trip."""
    return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, 3, 8, 8).contiguous()


def numbers(batches):
    """The numbers of the photos of each batch."""
    return [(batch.rgb[:, 0, 0, 0] * 255).round().int().tolist() for batch in batches]


TRAINING = {"augment": [lambda rgb: rgb]}  # an augmentation that does nothing: photos are shuffled as in training


@pytest.fixture
def color_photo(sample_photos):
    """One color photo, eight times."""
    return sample_photos.load("train", 1).expand(8, -1, -1, -1)


def augmented(photos, cfg, **changes):
    cfg = cfg.replace(size=photos.shape[-1], **changes)
    (batch,) = Batches(photos, len(photos), augment=augmentations(cfg))
    return batch


@pytest.mark.parametrize("count", [5, 8, 23])
def test_every_photo_comes_once_in_order_or_in_training_in_an_order_of_its_epoch(count):
    batches, training = Batches(numbered(count), 5), Batches(numbered(count), 5, **TRAINING)
    drawn, epochs = numbers(batches), [numbers(training) for _ in range(2)]
    assert len(drawn) == len(batches) and sum(drawn, []) == list(range(count))
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [5] * (count // 5) and len(training) == count // 5
        assert len(set(sum(epoch, []))) == 5 * (count // 5)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("options", [{}, TRAINING])
def test_processes_share_the_photos_of_an_epoch_among_them(options):
    ranks = [Batches(numbered(24), 4, rank=rank, world_size=3, seed=5, **options) for rank in range(3)]
    for _ in range(2):  # also of the next epoch, in its own order
        drawn = [sum(numbers(batches), []) for batches in ranks]
        assert [len(own) for own in drawn] == [8, 8, 8] and sorted(sum(drawn, [])) == list(range(24))
    with pytest.raises(ValueError, match="11 training photos.*batch of 4"):
        Batches(numbered(11), 4, world_size=3, **TRAINING)


def test_a_batch_holds_L_and_ab_of_its_photos_as_they_are_augmented(color_photo, cfg):
    before = color_photo.clone()
    for augment in (None, [lambda rgb: 1 - rgb], augmentations(cfg)):
        (batch,) = Batches(color_photo, 8, augment=augment)
        lab = torch.tensor(rgb2lab(batch.rgb.permute(0, 2, 3, 1).numpy())).permute(0, 3, 1, 2).float()
        assert torch.allclose(batch.L, lab[:, :1] / 50 - 1, atol=1e-3)
        assert torch.allclose(batch.ab, lab[:, 1:] / 128, atol=1e-3)
        if not augment or len(augment) == 1:
            assert torch.allclose(batch.rgb, (1 - before / 255) if augment else before / 255, atol=1e-6)
    assert torch.equal(color_photo, before)


def test_augmented_values_stay_in_range_whatever_a_students_transform_does(cfg):
    extremes = torch.randint(0, 2, (16, 3, 32, 32), dtype=torch.uint8) * 255
    (brighter,) = Batches(extremes, 16, augment=[lambda rgb: 2 * rgb - 0.5])
    for batch in (augmented(extremes, cfg), brighter):
        assert batch.rgb.min() >= 0 and batch.rgb.max() <= 1 and batch.rgb.isfinite().all()
        assert batch.L.abs().max() <= 1 + 1e-5 and batch.ab.abs().max() <= 1 and batch.rgb.shape == extremes.shape


def test_each_photo_of_a_batch_draws_each_transform_for_itself_and_rotation_leaves_no_black_corners(color_photo, cfg):
    for transform in augmentations(cfg):
        rgb = transform(color_photo / 255)
        assert (rgb - rgb[:1]).abs().mean((1, 2, 3)).max() > 1e-3
    white = torch.full((8, 3, 64, 64), 255, dtype=torch.uint8)
    assert augmented(white, cfg, jitter=0.0, rotation=45.0).rgb.min() > 0.999


def test_gray_stays_gray_and_red_stays_red(cfg):
    """A photo of one pure hue keeps the order of its channels: hue is never changed."""
    gray = torch.randint(0, 256, (8, 1, 64, 64), dtype=torch.uint8).expand(-1, 3, -1, -1).contiguous()
    assert augmented(gray, cfg).ab.abs().max() < 1e-3
    hue = torch.tensor([200, 60, 60], dtype=torch.uint8).view(1, 3, 1, 1).expand(16, 3, 32, 32).contiguous()
    red, green, blue = augmented(hue, cfg).rgb.unbind(1)
    assert (green - blue).abs().max() < 1e-3 and (red - green).min() > 0.1
