"""The rules by which photos are chosen, and the split that keeps what belongs together on one side."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from helpers.color import colorfulness
from helpers.config import Config
from helpers.data.photos import center_square, read_rgb, to_tensor

UNREADABLE = "cannot be read"
THUMB = 16  # pixels on a side of a thumbnail
HASH_BITS = 8  # of 64: how many may differ in a near-duplicate
THUMB_LEVELS = 8.0  # of 255: how far thumbnails of near-duplicates may lie apart


def inspect(path: Path) -> dict[str, Any]:
    """Return what the rules need to know of a photo file: readable, size, colorfulness, sha256, hash and thumbnail."""
    facts = {"readable": False, "width": 0, "height": 0, "colorfulness": 0.0, "sha256": "", "hash": 0}
    facts["thumb"] = np.zeros(THUMB * THUMB * 3, np.uint8)
    try:
        rgb = read_rgb(path)
        facts["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return facts
    height, width = rgb.shape[:2]
    small = center_square(rgb, min(height, width, 256), cv2.INTER_AREA)  # what of it will be in the set
    facts |= {"readable": True, "width": width, "height": height, "hash": difference_hash(small)}
    facts["colorfulness"] = round(colorfulness(to_tensor(small)).item(), 2)
    facts["thumb"] = cv2.resize(small, (THUMB, THUMB), interpolation=cv2.INTER_AREA).ravel()
    return facts


def difference_hash(rgb: np.ndarray) -> int:
    """Return a 64-bit hash of a uint8 photo (H, W, 3): is each pixel of 8x8 brighter than its right neighbor?

    Photos that look alike have hashes that differ in few bits (Krawetz 2013, "dHash").
    """
    gray = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(gray[:, :-1] > gray[:, 1:]).tobytes(), "big")


def apply_rules(facts: pd.DataFrame, cfg: Config) -> np.ndarray:
    """Return for every photo the first rule that drops it, or "".

    facts: a table of `inspect` rows. The rules, in order: "cannot be read", "smaller than N px", "near-gray"
    (colorfulness below `cfg.min_colorfulness`), "near-duplicate" (of an earlier photo that stays).
    """
    small = facts[["width", "height"]].min(axis=1) < cfg.size
    rules = np.select(
        [~facts["readable"], small, facts["colorfulness"] < cfg.min_colorfulness],
        [UNREADABLE, f"smaller than {cfg.size} px", "near-gray"],
        default="",
    ).astype(object)
    left = facts[rules == ""]
    if len(left):
        again = near_duplicates(left["hash"].to_numpy(np.uint64), np.stack(left["thumb"]))
        rules[np.flatnonzero(rules == "")[again]] = "near-duplicate"
    return rules


def near_duplicates(hashes: np.ndarray, thumbs: np.ndarray) -> np.ndarray:
    """Return which photos (a mask) look like an earlier one: few hash bits apart, and alike in a color thumbnail.

    hashes: (N,) uint64 from `difference_hash`; thumbs: (N, D) uint8.
    """
    duplicate = np.zeros(len(hashes), bool)
    for i in range(1, len(hashes)):
        near = np.flatnonzero(np.bitwise_count(hashes[:i] ^ hashes[i]) <= HASH_BITS)
        near = near[~duplicate[near]]
        apart = np.abs(thumbs[near].astype(np.float32) - thumbs[i]).mean(axis=1)
        duplicate[i] = bool((apart < THUMB_LEVELS).any())
    return duplicate


def shuffled(keys: Iterable[str], seed: int) -> list[str]:
    """Return the keys in an order that `seed` and each key's own text decide, whatever order they came in."""
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode(errors="backslashreplace")).digest())


def draw(facts: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Return a seeded sample of at most `count` rows of a table with unique `sha256`, in the table's order."""
    wanted = set(shuffled(facts["sha256"], seed)[:count])
    return facts[facts["sha256"].isin(wanted)].copy()


def split(groups: list[str], seed: int) -> list[str]:
    """Return "train", "validation" or "test" for each photo, 80/10/10, members of one group together.

    groups: one name per photo; photos with the same name (parts of one picture) never part.
    """
    order = shuffled(set(groups), seed)
    tenth = max(1, round(len(order) / 10))
    side = dict.fromkeys(order, "train")
    side |= dict.fromkeys(order[-2 * tenth :], "validation") | dict.fromkeys(order[-tenth:], "test")
    return [side[group] for group in groups]
