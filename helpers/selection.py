"""The rules by which photos are chosen, and the split that keeps what belongs together on one side."""

import hashlib

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps

from helpers.color import colourfulness

UNREADABLE = "cannot be read"
THUMB = 16
HASH_BITS = 8  # of 64: how many may differ in a near-duplicate
UNREADABLE_LOOK = {"readable": False, "width": 0, "height": 0, "colourfulness": 0.0, "sha256": "", "hash": 0}
UNREADABLE_LOOK["thumb"] = np.zeros(THUMB * THUMB * 3, np.uint8)
THUMB_LEVELS = 8.0  # of 255: how far thumbnails of near-duplicates may lie apart


def read_rgb(path):
    """Read a photo as uint8 (H, W, 3); raises as `open_rgb`, naming the file."""
    return open_rgb(path, path)


def open_rgb(photo, name):
    """Return a file, a stream or a Pillow image as uint8 (H, W, 3): turned as EXIF says, over white if transparent.

    Raises OSError that names a photo which cannot be read: damaged, cut off, no photo at all, or of so many pixels
    (over 178 million) that it is more likely made to fill the memory.
    """
    try:
        if isinstance(photo, Image.Image):
            return _to_rgb(ImageOps.exif_transpose(photo))
        with Image.open(photo) as opened:
            ImageOps.exif_transpose(opened, in_place=True)
            return _to_rgb(opened)
    except Exception as error:  # a damaged file can make a decoder fail in any way
        reason = str(error) or type(error).__name__
        raise OSError(f"{name} cannot be read as a photo: {reason}") from error


def _to_rgb(photo):
    """Return a Pillow image of any mode as uint8 (H, W, 3)."""
    if photo.mode.startswith("I"):  # 16 bits a channel
        values = np.asarray(photo).astype(np.int64).clip(0, 65535)
        return np.repeat((values // 257).astype(np.uint8)[..., None], 3, axis=2)
    if photo.mode == "F":
        raise ValueError("its values are floating-point numbers, not those of a photo")
    if photo.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in photo.info:
        photo = photo.convert("RGBA")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    return np.array(photo if photo.mode == "RGB" else photo.convert("RGB"))


def look_at(path):
    """Return what the rules need to know of a photo file: readable, size, colourfulness, sha256, hash and thumbnail."""
    try:
        rgb = read_rgb(path)
    except OSError:
        return UNREADABLE_LOOK
    height, width = rgb.shape[:2]
    small = centre_square(rgb, min(height, width, 256), cv2.INTER_AREA)  # what of it will be in the set
    thumb = cv2.resize(small, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    return {
        "readable": True,
        "width": width,
        "height": height,
        "colourfulness": round(colourfulness(torch.from_numpy(small).permute(2, 0, 1)[None] / 255).item(), 2),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "hash": difference_hash(small),
        "thumb": thumb.ravel(),
    }


def centre_square(rgb, size, interpolation=cv2.INTER_LINEAR):
    """Crop uint8 (H, W, 3) to its centre square, resized to (size, size, 3): OpenCV bilinear, nothing stretched."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return cv2.resize(rgb[top : top + side, left : left + side], (size, size), interpolation=interpolation)


def difference_hash(rgb):
    """Return a 64-bit hash of a uint8 photo (H, W, 3): is each pixel of 8x8 brighter than its right neighbour?

    Photos that look alike have hashes that differ in few bits (Krawetz 2013, "dHash").
    """
    grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes(), "big")


def apply_rules(looks, thumbs, cfg):
    """Return for every photo the first rule that drops it, or "".

    looks: a table of `look_at` rows; thumbs: their thumbnails, (N, D) uint8. The rules, in order: "cannot be read",
    "smaller than N px", "near-grey" (colourfulness below `cfg.min_colourfulness`), "near-duplicate" (of an earlier
    photo that stays).
    """
    small = looks[["width", "height"]].min(axis=1) < cfg.size
    rules = np.select(
        [~looks["readable"], small, looks["colourfulness"] < cfg.min_colourfulness],
        [UNREADABLE, f"smaller than {cfg.size} px", "near-grey"],
        default="",
    ).astype(object)
    kept = np.flatnonzero(rules == "")
    if len(kept):
        again = near_duplicates(np.array(looks["hash"].iloc[kept], np.uint64), thumbs, kept)
        rules[kept[again]] = "near-duplicate"
    return rules


def near_duplicates(hashes, thumbs, rows=None):
    """Return which photos (a mask) look like an earlier one: few hash bits apart, and alike in a colour thumbnail.

    hashes: (N,) uint64 from `difference_hash`; thumbs: (N, D) uint8, or a longer array of which `rows` (N,) are meant.
    """
    rows = np.arange(len(hashes)) if rows is None else rows
    duplicate = np.zeros(len(hashes), bool)
    for i in range(1, len(hashes)):
        near = np.flatnonzero(np.bitwise_count(hashes[:i] ^ hashes[i]) <= HASH_BITS)
        near = near[~duplicate[near]]
        apart = np.abs(thumbs[rows[near]].astype(np.float32) - thumbs[rows[i]]).mean(axis=1)
        duplicate[i] = bool((apart < THUMB_LEVELS).any())
    return duplicate


def shuffled(keys, seed):
    """Return the keys in an order that `seed` and each key's own text decide, whatever order they came in."""
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())


def draw(looks, count, seed):
    """Return a seeded sample of at most `count` rows of a table with unique `sha256`, in the table's order."""
    wanted = set(shuffled(looks["sha256"], seed)[:count])
    return looks[looks["sha256"].isin(wanted)].copy()


def split(groups, seed):
    """Return "train", "validation" or "test" for each photo, 80/10/10, members of one group together.

    groups: one name per photo; photos with the same name (parts of one picture) never part.
    """
    order = shuffled(set(groups), seed)
    tenth = max(1, round(len(order) / 10))
    side = dict.fromkeys(order, "train")
    side |= dict.fromkeys(order[-2 * tenth :], "validation") | dict.fromkeys(order[-tenth:], "test")
    return [side[group] for group in groups]
