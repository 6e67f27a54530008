"""The rules that drop photos, near-duplicates, the seeded sample and the split."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import skimage

from helpers.data import dataset

SHIPPED = Path(skimage.__file__).parent / "data"
PHOTOS = ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"]


@pytest.fixture
def photo():
    return cv2.imread(str(SHIPPED / "chelsea.png"))


def facts_of(folder, **photos):
    """Write photos (BGR) as name.ending files, e.g. cat_png=..., and return the table of their facts."""
    paths = []
    for name, bgr in photos.items():
        paths.append(folder / name.replace("_", "."))
        quality = [cv2.IMWRITE_JPEG_QUALITY, 60] if name.endswith("jpg") else []
        cv2.imwrite(str(paths[-1]), bgr, quality)
    return pd.DataFrame([dataset.inspect(path) for path in paths])


def rules_of(facts, cfg, **changes):
    return list(dataset.apply_rules(facts, cfg.replace(**changes)))


def test_a_photo_saved_again_as_jpeg_is_a_near_duplicate(tmp_path, cfg, photo):
    facts = facts_of(tmp_path, a_png=photo, b_jpg=photo)
    assert facts["sha256"].nunique() == 2
    assert rules_of(facts, cfg) == ["", "near-duplicate"]


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1])
def test_a_resized_photo_is_a_near_duplicate(tmp_path, cfg, photo, factor):
    resized = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    assert rules_of(facts_of(tmp_path, a_png=photo, b_jpg=resized), cfg) == ["", "near-duplicate"]


def test_the_first_of_several_near_duplicates_stays(tmp_path, cfg, photo):
    other = cv2.imread(str(SHIPPED / "coffee.png"))
    facts = facts_of(tmp_path, a_png=photo, b_png=other, c_jpg=photo, d_jpg=other, e_bmp=photo)
    assert rules_of(facts, cfg) == ["", "", "near-duplicate", "near-duplicate", "near-duplicate"]


def test_different_photos_are_no_near_duplicates(tmp_path, cfg):
    parts = {}
    for number, name in enumerate(PHOTOS):
        bgr = cv2.imread(str(SHIPPED / name))
        parts[f"{number}whole_png"] = bgr
        for i, half in enumerate(np.array_split(bgr, 2)):
            for j, quarter in enumerate(np.array_split(half, 2, axis=1)):
                parts[f"{number}part{i}{j}_png"] = quarter
    rules = rules_of(facts_of(tmp_path, **parts), cfg, min_colorfulness=0.0)
    assert len(rules) == 25 and set(rules) == {""}


def test_the_same_scene_in_other_colors_is_no_near_duplicate(tmp_path, cfg, photo):
    """Their lightness, and so their hash, is much the same: the color thumbnail tells them apart."""
    lab = cv2.cvtColor(photo, cv2.COLOR_BGR2LAB)
    lab[..., 1:] = 255 - lab[..., 1:]
    facts = facts_of(tmp_path, a_png=photo, b_png=cv2.cvtColor(lab, cv2.COLOR_LAB2BGR))
    assert rules_of(facts, cfg) == ["", ""]


def test_each_rule_has_its_name(tmp_path, cfg, photo):
    facts = facts_of(
        tmp_path,
        a_png=photo,
        b_png=cv2.resize(photo, (200, 99), interpolation=cv2.INTER_AREA),
        c_png=cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR),
        d_jpg=photo,
    )
    (tmp_path / "e.jpg").write_text("not a photo")
    facts = pd.concat([facts, pd.DataFrame([dataset.inspect(tmp_path / "e.jpg")])], ignore_index=True)
    wanted = ["", "smaller than 100 px", "near-gray", "near-duplicate", "cannot be read"]
    assert rules_of(facts, cfg, size=100) == wanted


def test_a_photo_of_exactly_the_wanted_size_is_large_enough(tmp_path, cfg, photo):
    facts = facts_of(tmp_path, a_png=photo[:100, :200], b_png=photo[100:199, :200])
    assert rules_of(facts, cfg, size=100, min_colorfulness=0.0) == ["", "smaller than 100 px"]


def test_near_gray_is_a_matter_of_colorfulness(tmp_path, cfg, photo):
    """A sepia tint is not enough to be called color, and a student may move the limit."""
    gray = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    facts = facts_of(tmp_path, a_png=cv2.addWeighted(photo, 0.05, gray, 0.95, 0), b_png=photo)
    assert rules_of(facts, cfg)[0] == "near-gray"
    assert rules_of(facts, cfg, min_colorfulness=0.5)[0] == ""


def test_rules_stand_even_when_no_photo_passes(tmp_path, cfg, photo):
    facts = facts_of(tmp_path, a_png=photo, b_png=photo)
    assert rules_of(facts, cfg, size=4096) == ["smaller than 4096 px"] * 2


def test_split_of_1500_photos_is_80_10_10_exactly():
    sides = dataset.split([f"photo{i}" for i in range(1500)], seed=0)
    assert {side: sides.count(side) for side in set(sides)} == {"train": 1200, "validation": 150, "test": 150}


@pytest.mark.parametrize("count", [10, 24, 101])
def test_every_side_of_a_small_split_has_photos(count):
    sides = dataset.split([f"photo{i}" for i in range(count)], seed=0)
    assert sides.count("validation") == sides.count("test") == round(count / 10)


def test_split_repeats_with_its_seed_and_differs_with_another():
    groups = [f"photo{i}" for i in range(100)]
    assert dataset.split(groups, 0) == dataset.split(groups, 0) != dataset.split(groups, 1)


def test_split_does_not_depend_on_the_order_of_the_photos():
    groups = [f"photo{i}" for i in range(200)]
    assert dataset.split(groups[::-1], 0) == dataset.split(groups, 0)[::-1]


def test_split_is_not_by_name_or_order():
    sides = dataset.split([f"photo{i:03d}" for i in range(100)], seed=0)
    assert len(set(sides[80:90])) > 1 and len(set(sides[90:])) > 1


def test_parts_of_one_picture_are_never_parted():
    groups = [f"picture{i // 4}" for i in range(80)]
    sides = pd.Series(dataset.split(groups, seed=0)).groupby(groups).nunique()
    assert (sides == 1).all()


def test_a_photo_and_its_own_center_square_are_near_duplicates(tmp_path, cfg, photo):
    """The set holds center squares: in it the two would be one and the same photo."""
    height, width = photo.shape[:2]
    left = (width - height) // 2
    square = cv2.resize(photo[:, left : left + height], (256, 256), interpolation=cv2.INTER_AREA)
    assert rules_of(facts_of(tmp_path, a_png=photo, b_jpg=square), cfg) == ["", "near-duplicate"]
