"""From a folder of photos to a prepared set: found, selected by rules, split, resized, listed in a manifest."""

import hashlib
import json
import math
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import skimage
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from helpers import workspace
from helpers.color import colorfulness, rgb_to_L_ab
from helpers.config import Config
from helpers.data.photos import center, center_square, list_photos, read_rgb, to_tensor
from helpers.files import write_atomically

KAGGLE_HANDLE = "aayush9753/image-colorization-dataset/versions/1"
WATCH = workspace.PROJECT / "notebooks" / "images" / "kodak"  # eight photos that no network is trained on
SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")
SAMPLES += ("ihc.png",)
GRAY_SAMPLES = ("camera.png", "moon.png")  # a rule drops them
SPLITS = ("train", "validation", "test")
UNREADABLE = "cannot be read"
THUMB = 16  # pixels on a side of a thumbnail
HASH_BITS = 8  # of 64: near-duplicates differ in at most this many
THUMB_LEVELS = 8.0  # of 255: mean difference of thumbnails of near-duplicates
ONE_TINT = 0.05  # share of a photo's colorfulness that its lightness does not explain; a toned print has less


def download_kaggle() -> Path:
    """Return the folder with the 5,000 color photos of Kaggle's "Image Colorization Dataset", downloaded if needed.

    Raises RuntimeError, with the alternatives, if Kaggle cannot be reached.
    """
    import kagglehub  # only here: its import looks for credentials

    # older kagglehubs unpack an archive's paths unchecked
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        folder = Path(kagglehub.dataset_download(KAGGLE_HANDLE))
    except Exception as error:  # kagglehub has an error of its own for every way to fail
        raise RuntimeError(
            f"Kaggle's photos cannot be downloaded ({type(error).__name__}: {error}). Connect to the internet, or use "
            'data_source="folder" with photos_folder="your/photos", or data_source="sample".'
        ) from error
    photos = folder / "data" / "train_color"
    if not photos.is_dir():
        raise RuntimeError(
            f"{folder} holds no data/train_color: the download is incomplete. Delete that folder and run this again; "
            "on Colab, where it is read-only, set the environment variable DISABLE_COLAB_CACHE=1 first."
        )
    return photos


def sample_photos() -> Path:
    """Return a folder with the photos that scikit-image ships, each cut into quarters in a folder of its own."""
    folder, shipped = workspace.local("scikit-image"), Path(skimage.__file__).parent / "data"
    for name in (*SAMPLES, *GRAY_SAMPLES):
        (folder / Path(name).stem).mkdir(exist_ok=True)
        for i, half in enumerate(np.array_split(read_rgb(shipped / name), 2)):
            for j, quarter in enumerate(np.array_split(half, 2, axis=1)):
                target = folder / Path(name).stem / f"{i}{j}.png"
                if not target.exists():
                    _write(quarter, target)
    return folder


def find_photos(cfg: Config) -> tuple[Path, list[Path]]:
    """Return the folder of `cfg.data_source` and its photo files, sorted.

    Raises FileNotFoundError for a missing or empty folder, RuntimeError if Kaggle cannot be reached.
    """
    if cfg.data_source == "folder" and not cfg.photos_folder:
        raise FileNotFoundError('data_source="folder" needs photos_folder="the/folder/with/your/photos".')
    sources = {"kaggle": download_kaggle, "sample": sample_photos, "folder": lambda: Path(cfg.photos_folder)}
    folder = sources[cfg.data_source]().expanduser()
    return folder, list_photos(folder)


def show_photos(folder: str, limit: int = 24) -> list[Path]:
    """Return the first readable photos of a folder; without a folder, the watch photos, which come with the project.

    Prints what cannot be read. Raises FileNotFoundError if nothing can.
    """
    readable = []
    for path in list_photos(Path(folder or WATCH).expanduser()):
        try:
            read_rgb(path)
            readable.append(path)
        except OSError as error:
            print(f"skipped: {error}")
        if len(readable) == limit:
            break
    if not readable:
        raise FileNotFoundError(f"None of the photos in {folder} can be read: name another folder.")
    return readable


def load_squares(folder: str, size: int, limit: int = 8) -> Tensor:
    """Return the photos of `show_photos`, center-cropped, as uint8 (N, 3, size, size)."""
    squares = [center_square(read_rgb(path), size) for path in show_photos(folder, limit)]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


def inspect(path: Path) -> dict[str, Any]:
    """Return a photo's facts for the rules: readable, size, colorfulness, one tint, sha256, hash and thumbnail."""
    facts = {"readable": False, "width": 0, "height": 0, "colorfulness": 0.0, "one_tint": False, "sha256": ""}
    facts |= {"hash": 0, "thumb": np.zeros(THUMB * THUMB * 3, np.uint8)}
    try:
        rgb = read_rgb(path)
        facts["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return facts
    height, width = rgb.shape[:2]
    small = center_square(rgb, min(height, width, 256), cv2.INTER_AREA)  # the part that the set will hold
    color = colorfulness(to_tensor(small)).item()
    facts |= {"readable": True, "width": width, "height": height, "hash": difference_hash(small)}
    facts |= {"colorfulness": round(color, 2), "one_tint": unexplained(small) < ONE_TINT * color}
    facts["thumb"] = cv2.resize(small, (THUMB, THUMB), interpolation=cv2.INTER_AREA).ravel()
    return facts


def unexplained(rgb: np.ndarray, bins: int = 16) -> float:
    """Return the standard deviation of ab among pixels of equal lightness, in CIE units; rgb (H, W, 3) uint8.

    A toned print (sepia, cyanotype) is colorful, but its lightness determines its color: about 1. Photos have 2 to 30.
    """
    L, ab = rgb_to_L_ab(to_tensor(cv2.resize(rgb, (64, 64), interpolation=cv2.INTER_AREA)))
    level, ab = ((L + 1) / 2 * (bins - 0.01)).long().flatten(), ab[0].flatten(1) * 128  # (4096,), (2, 4096)
    sums = torch.zeros(2, bins).index_add_(1, level, ab)
    means = sums / torch.bincount(level, minlength=bins).clamp(min=1)
    return (ab - means[:, level]).square().sum(0).mean().sqrt().item()


def difference_hash(rgb: np.ndarray) -> int:
    """Return a 64-bit hash of a photo (H, W, 3) uint8: is each of 8x8 cells brighter than its right neighbor?

    Hashes of photos that look alike differ in few bits (Krawetz 2013, "dHash").
    """
    gray = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(gray[:, :-1] > gray[:, 1:]).tobytes(), "big")


def apply_rules(facts: pd.DataFrame, cfg: Config) -> np.ndarray:
    """Return for every photo, a row of `inspect`, the first rule that drops it, or "".

    The rules: "cannot be read", "smaller than N px", "near-gray" (colorfulness below `cfg.min_colorfulness`, or one
    tint), "near-duplicate" (of an earlier photo that passes).
    """
    small = facts[["width", "height"]].min(axis=1) < cfg.size
    gray = (facts["colorfulness"] < cfg.min_colorfulness) | facts["one_tint"]
    names = [UNREADABLE, f"smaller than {cfg.size} px", "near-gray"]
    rules = np.select([~facts["readable"], small, gray], names, default="").astype(object)
    left = facts[rules == ""]
    if len(left):
        again = near_duplicates(left["hash"].to_numpy(np.uint64), np.stack(left["thumb"]))
        rules[np.flatnonzero(rules == "")[again]] = "near-duplicate"
    return rules


def near_duplicates(hashes: np.ndarray, thumbs: np.ndarray) -> np.ndarray:
    """Return a mask of the photos that look like an earlier one: similar hash and similar thumbnail.

    hashes: (N,) uint64 of `difference_hash`; thumbs: (N, D) uint8.
    """
    duplicate = np.zeros(len(hashes), bool)
    for i in range(1, len(hashes)):
        near = (np.bitwise_count(hashes[:i] ^ hashes[i]) <= HASH_BITS) & ~duplicate[:i]
        difference = np.abs(thumbs[:i][near].astype(np.float32) - thumbs[i]).mean(axis=1)
        duplicate[i] = (difference < THUMB_LEVELS).any()
    return duplicate


def shuffled(keys: Any, seed: int) -> list[str]:
    """Return keys in an order that depends on `seed` and each key's text, not on the order they came in."""
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode(errors="backslashreplace")).digest())


def split(groups: list[str], seed: int, least: int = 1) -> list[str]:
    """Return "train", "validation" or "test" for each photo, 80/10/10; photos of one group stay together.

    least: groups in validation and in test.
    """
    order = shuffled(set(groups), seed)
    tenth = max(least, round(len(order) / 10))
    side = dict.fromkeys(order, "train")
    side |= dict.fromkeys(order[-2 * tenth :], "validation") | dict.fromkeys(order[-tenth:], "test")
    return [side[group] for group in groups]


@dataclass
class PhotoSet:
    """A prepared set: a folder of PNG files, `manifest` (a row per photo), `dropped` (the other photos, and why)."""

    folder: Path
    manifest: pd.DataFrame
    dropped: pd.DataFrame
    source: Path = Path()  # the folder with the files that the photos were made from
    memory_gb: float = 4.0  # larger splits are memory-mapped

    def names(self, split: str) -> list[str]:
        """Return the file names of a split, in the manifest's order."""
        return self.manifest.loc[self.manifest["split"] == split, "name"].tolist()

    def load(self, split: str, limit: int | None = 2000) -> Tensor:
        """Return photos of a split, uint8 (N, 3, size, size): `limit` of them at equal distances, or all with None.

        All photos are memory-mapped if they need more than `memory_gb`. Raises ValueError for an unknown or empty
        split, OSError for a missing file.
        """
        names = self.names(split)
        if limit and len(names) > limit:
            names = [names[i * len(names) // limit] for i in range(limit)]
        if not names:
            raise ValueError(f"No photos in split {split!r} of {self.folder}; its splits are {', '.join(SPLITS)}.")
        shape = (len(names), *read_rgb(self.folder / names[0]).shape)
        if limit or math.prod(shape) <= 1e9 * self.memory_gb:
            return torch.from_numpy(self._fill(np.empty(shape, np.uint8), names)).permute(0, 3, 1, 2)
        file = self.folder / f"{split}.bytes"
        if not file.exists():
            print(f"{split}: {math.prod(shape) / 1e9:.1f} GB exceed memory_gb={self.memory_gb:g}, so they stay on disk")
            write_atomically(file, lambda path: self._fill(np.memmap(path, np.uint8, "w+", shape=shape), names).flush())
        stored = torch.from_file(str(file), shared=True, size=math.prod(shape), dtype=torch.uint8)
        return stored.view(shape).permute(0, 3, 1, 2)

    def _fill(self, array: np.ndarray, names: list[str]) -> np.ndarray:
        """Read files into an array (N, H, W, 3)."""
        for i, rgb in enumerate(workspace.in_parallel(lambda name: read_rgb(self.folder / name), names)):
            array[i] = rgb
        return array

    def examples(self, rule: str, count: int = 4, size: int = 128) -> list[Tensor]:
        """Return up to `count` photos that a rule dropped, uint8 (3, size, size); none for unreadable files."""
        names = self.dropped.loc[self.dropped["rule"] == rule, "source"].head(count)
        paths = [self.source / name for name in names if rule != UNREADABLE and (self.source / name).exists()]
        return [torch.from_numpy(center_square(read_rgb(path), size)).permute(2, 0, 1) for path in paths]


def prepare(cfg: Config) -> PhotoSet:
    """Return the prepared set of a configuration, made at the first call and again if the source's files change.

    Photos are selected by `apply_rules`, `cfg.n_photos` of them are drawn, split 80/10/10, center-cropped to a square,
    resized to `cfg.size` (OpenCV bilinear) and written as PNG. Raises as `find_photos` does, and ValueError if fewer
    than ten photos pass the rules.
    """
    source, paths = find_photos(cfg)
    states = [(path.relative_to(source).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    values = cfg.data_source, cfg.n_photos, cfg.size, cfg.min_colorfulness, cfg.seed
    recipe = json.dumps([*values, str(source), states])
    key = hashlib.sha256(recipe.encode(errors="backslashreplace")).hexdigest()[:8]
    folder = workspace.local(f"{cfg.data_source}-{cfg.size}px-{key}")
    if not (folder / "manifest.csv").exists():
        _make(cfg, folder, source, paths)
    tables = [pd.read_csv(folder / name, keep_default_na=False) for name in ("manifest.csv", "dropped.csv")]
    return PhotoSet(folder, *tables, source, cfg.memory_gb)


def _make(cfg: Config, folder: Path, source: Path, paths: list[Path]) -> None:
    """Select, split and write the photos of a set; the manifest comes last and marks it as complete."""
    facts = pd.DataFrame(_with_bar(inspect, paths, "inspecting photos"))
    facts["source"] = [path.relative_to(source).as_posix() for path in paths]
    facts["rule"] = apply_rules(facts, cfg)
    facts["group"] = [Path(s).parts[0] for s in facts["source"]] if cfg.data_source == "sample" else facts["source"]
    passed = facts[facts["rule"] == ""]
    chosen = passed[passed["sha256"].isin(set(shuffled(passed["sha256"], cfg.seed)[: cfg.n_photos]))].copy()
    if len(chosen) < 10:
        raise ValueError(
            f"Only {len(chosen)} photos of {source} pass the rules ({facts['rule'].value_counts().to_dict()}); "
            "at least 10 are needed. Lower `size` or `min_colorfulness`, or add photos."
        )
    least = 2 if cfg.data_source == "sample" else 1  # one picture says little
    chosen["split"] = split(chosen["group"].tolist(), cfg.seed, least)
    chosen["name"] = [f"photo{i:05d}.png" for i in range(len(chosen))]
    pairs = [(paths[i], folder / name) for i, name in chosen["name"].items()]
    _with_bar(lambda pair: _write(center_square(read_rgb(pair[0]), cfg.size), pair[1]), pairs, "resizing")
    columns = ["source", "width", "height", "sha256", "colorfulness"]
    _write_table(facts.loc[facts["rule"] != "", [*columns, "rule"]], folder / "dropped.csv")
    _write_table(chosen[["name", "split", "group", *columns]], folder / "manifest.csv")


def originals(photos: PhotoSet, size: int) -> PhotoSet:
    """Return a prepared set in the files' own pixels: the center, `size` on a side, of all that are large enough.

    Raises ValueError if no photo to train or to validate on is.
    """
    folder = workspace.local(f"{photos.folder.name}-original-{size}px")
    manifest = photos.manifest[photos.manifest[["width", "height"]].min(axis=1) >= size]
    if not (folder / "manifest.csv").exists():
        pairs = [(photos.source / row["source"], folder / row["name"]) for _, row in manifest.iterrows()]
        _with_bar(lambda pair: _write(center(read_rgb(pair[0]), size), pair[1]), pairs, "cutting")
        _write_table(manifest, folder / "manifest.csv")
    left = replace(photos, folder=folder, manifest=manifest)
    if not left.names("train") or not left.names("validation"):
        raise ValueError(f"Too few photos are {size} pixels or more on their shorter side: lower `original_size`.")
    print(f"originals  {len(manifest):,} of {len(photos.manifest):,} photos have {size} px and more")
    return left


def _with_bar(function: Callable, items: list, title: str) -> list:
    return list(tqdm(workspace.in_parallel(function, items), total=len(items), desc=title, leave=False))


def _write_table(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, encoding="utf-8", errors="backslashreplace")  # a file name may be no valid Unicode


def _write(rgb: np.ndarray, target: Path) -> None:
    # fast and hardly larger: compression would take most of the time
    Image.fromarray(rgb).save(target, compress_level=1, compress_type=zlib.Z_HUFFMAN_ONLY)
