"""Batches: every photo once, and an augmentation that each photo draws for itself and that invents no color."""

import pytest
import torch
from skimage.color import rgb2lab

from helpers.data.batches import Batches, augmentations


def numbered(count, size=8):
    """Photos that are each of one gray of their own, so that they can be told apart after a round trip."""
    return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, 3, size, size).contiguous()


def numbers(batches):
    """The numbers of the photos of each batch."""
    return [(batch.rgb[:, 0, 0, 0] * 255).round().int().tolist() for batch in batches]


def unchanged(rgb):
    """An augmentation that does nothing: it makes `Batches` shuffle as in training."""
    return rgb


@pytest.fixture
def color_photo(sample_photos):
    """One color photo, eight times."""
    return sample_photos.load("train", 1).expand(8, -1, -1, -1)


def augmented(photos, cfg, **changes):
    cfg = cfg.replace(size=photos.shape[-1], **changes)
    (batch,) = Batches(photos, len(photos), augment=augmentations(cfg))
    return batch


def test_without_augmentation_every_photo_comes_once_and_in_order():
    drawn = numbers(Batches(numbered(23), 5))
    assert [len(batch) for batch in drawn] == [5, 5, 5, 5, 3]
    assert sum(drawn, []) == list(range(23))


def test_in_training_no_photo_comes_twice_and_the_incomplete_batch_is_left_out():
    batches = Batches(numbered(23), 5, augment=[unchanged])
    drawn = numbers(batches)
    assert [len(batch) for batch in drawn] == [5] * 4 and len(batches) == 4
    assert len(set(sum(drawn, []))) == 20


def test_in_training_a_full_epoch_draws_every_photo_once():
    assert sorted(sum(numbers(Batches(numbered(20), 5, augment=[unchanged])), [])) == list(range(20))


def test_in_training_every_epoch_has_its_own_order():
    batches = Batches(numbered(40), 5, augment=[unchanged])
    first, second = sum(numbers(batches), []), sum(numbers(batches), [])
    assert first != second and first != list(range(40))


def test_len_is_the_number_of_batches():
    for augment in (None, [unchanged]):
        for count in (5, 8, 9, 10):
            batches = Batches(numbered(count), 5, augment=augment)
            assert len(batches) == len(list(batches))


def test_fewer_training_photos_than_a_batch_are_refused():
    with pytest.raises(ValueError, match=r"3 training photos.*batch of 5"):
        Batches(numbered(3), 5, augment=[unchanged])
    assert len(Batches(numbered(3), 5)) == 1


def test_a_batch_holds_L_and_ab_of_its_photos(sample_photos):
    photos = sample_photos.load("test")
    (batch,) = Batches(photos, 16)
    lab = torch.tensor(rgb2lab(photos.permute(0, 2, 3, 1).numpy())).permute(0, 3, 1, 2).float()
    assert torch.allclose(batch.rgb, photos / 255)
    assert torch.allclose(batch.L, lab[:, :1] / 50 - 1, atol=1e-4)
    assert torch.allclose(batch.ab, lab[:, 1:] / 128, atol=1e-4)


def test_L_and_ab_are_those_of_the_augmented_photo(color_photo, cfg):
    batch = augmented(color_photo, cfg)
    lab = torch.tensor(rgb2lab(batch.rgb.permute(0, 2, 3, 1).numpy())).permute(0, 3, 1, 2).float()
    assert torch.allclose(batch.L, lab[:, :1] / 50 - 1, atol=1e-3)
    assert torch.allclose(batch.ab, lab[:, 1:] / 128, atol=1e-3)


def test_photos_change_nothing_but_the_batch_does(color_photo, cfg):
    before = color_photo.clone()
    batch = augmented(color_photo, cfg)
    assert torch.equal(color_photo, before)
    assert (batch.rgb - color_photo / 255).abs().mean() > 0.01


def test_augmented_values_stay_in_range(cfg):
    extremes = torch.randint(0, 2, (16, 3, 32, 32), dtype=torch.uint8) * 255
    batch = augmented(extremes, cfg)
    assert batch.rgb.min() >= 0 and batch.rgb.max() <= 1 and batch.rgb.isfinite().all()
    assert batch.L.abs().max() <= 1 + 1e-5 and batch.ab.abs().max() <= 1
    assert batch.rgb.shape == extremes.shape


def test_photos_of_a_batch_draw_augmentations_of_their_own(color_photo, cfg):
    rgb = augmented(color_photo, cfg).rgb
    for i in range(8):
        for j in range(i):
            assert (rgb[i] - rgb[j]).abs().mean() > 1e-3


@pytest.mark.parametrize("number", range(4))
def test_each_transform_differs_between_the_photos_of_a_batch(color_photo, cfg, number):
    transform = augmentations(cfg)[number]
    rgb = transform(color_photo / 255)
    assert max((photo - rgb[0]).abs().mean().item() for photo in rgb) > 1e-3, transform


def test_rotation_leaves_no_black_corners(cfg):
    white = torch.full((8, 3, 64, 64), 255, dtype=torch.uint8)
    assert augmented(white, cfg, jitter=0.0, rotation=45.0).rgb.min() > 0.999
    rgb = augmented(white, cfg).rgb  # brightness may change, but evenly
    assert (rgb.amax((2, 3)) - rgb.amin((2, 3))).max() < 1e-3


def test_gray_photos_stay_gray(cfg):
    gray = torch.randint(0, 256, (8, 1, 64, 64), dtype=torch.uint8).expand(-1, 3, -1, -1).contiguous()
    batch = augmented(gray, cfg)
    assert (batch.rgb.amax(1) - batch.rgb.amin(1)).max() < 1e-3
    assert batch.ab.abs().max() < 1e-3


def test_hue_is_never_changed(cfg):
    """A photo of one pure hue keeps the order of its channels, and red stays redder than all else."""
    hue = torch.tensor([200, 60, 60], dtype=torch.uint8).view(1, 3, 1, 1).expand(16, 3, 32, 32).contiguous()
    red, green, blue = augmented(hue, cfg).rgb.unbind(1)
    assert (green - blue).abs().max() < 1e-3 and (red - green).min() > 0.1


def test_a_student_can_leave_out_or_add_a_transform(color_photo):
    batches = Batches(color_photo, 4, augment=[lambda rgb: 1 - rgb])
    assert all(torch.allclose(batch.rgb, 1 - color_photo[:4] / 255, atol=1e-6) for batch in batches)


@pytest.mark.parametrize("augment", [None, [unchanged]])
def test_processes_share_the_photos_of_an_epoch_among_them(augment):
    ranks = [Batches(numbered(24), 4, augment=augment, rank=rank, world_size=3, seed=5) for rank in range(3)]
    for _ in range(2):  # also of the next epoch, in its own order
        drawn = [sum(numbers(batches), []) for batches in ranks]
        assert [len(own) for own in drawn] == [8, 8, 8] and sorted(sum(drawn, [])) == list(range(24))
    with pytest.raises(ValueError, match="11 training photos.*batch of 4 on each of 3 processes"):
        Batches(numbered(11), 4, augment=[unchanged], rank=0, world_size=3)


def test_what_a_batch_holds_can_be_something_else():
    assert [len(batch) for batch in Batches(numbered(7), 5, make=lambda rgb: rgb)] == [5, 2]
