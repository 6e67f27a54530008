"""From a folder of photos to a prepared set: found, selected by rules, resized, split, listed in a manifest."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from helpers import workspace
from helpers.config import Config
from helpers.data import selection
from helpers.data.photos import center_square, read_rgb
from helpers.data.sources import find_photos

SPLITS = ("train", "validation", "test")


@dataclass
class PhotoSet:
    """A prepared set: `folder` with PNG files, `manifest` (a row per chosen photo), `dropped` (the others, and why)."""

    folder: Path
    manifest: pd.DataFrame
    dropped: pd.DataFrame

    def names(self, split: str) -> list[str]:
        """Return the file names of one split, in the manifest's order."""
        return self.manifest.loc[self.manifest["split"] == split, "name"].tolist()

    def load(self, split: str, limit: int | None = 2000) -> torch.Tensor:
        """Return photos of a split as uint8 (N, 3, size, size), at most `limit`; None for all, however many.

        Where there are more, they are taken at equal distances: a folder's first photos may all be of cats.
        Raises ValueError for an unknown or empty split, OSError for a photo that is gone.
        """
        names = self.names(split)
        if limit and len(names) > limit:
            names = [names[i * len(names) // limit] for i in range(limit)]
        if not names:
            raise ValueError(f"No photos in split {split!r} of {self.folder}; its splits are {', '.join(SPLITS)}.")
        return torch.stack([*PhotoFiles(self.folder, names)])

    def open(self, split: str, budget_gb: float) -> "torch.Tensor | PhotoFiles":
        """Return the photos of a split in memory, as `load`, if they fit in a budget; else as `PhotoFiles`, to stream.

        What was chosen, and why, is printed.
        """
        files = PhotoFiles(self.folder, self.names(split))
        needed = len(files) * (files[0].numel() if len(files) else 0) / 1e9
        how = "kept in memory" if needed <= budget_gb else "streamed from disk"
        print(f"photos     {len(files):,} of {split} need {needed:.2f} GB, the budget is {budget_gb:g} GB: {how}")
        return self.load(split, None) if needed <= budget_gb else files

    def examples(self, rule: str, count: int = 4, size: int = 128) -> list[torch.Tensor]:
        """Return up to `count` photos that a rule dropped, uint8 (3, size, size); none for unreadable files."""
        source = Path((self.folder / "source.txt").read_text())
        names = self.dropped.loc[self.dropped["rule"] == rule, "source"].head(count)
        paths = [source / name for name in names if rule != selection.UNREADABLE and (source / name).exists()]
        return [torch.from_numpy(center_square(read_rgb(path), size)).permute(2, 0, 1) for path in paths]


class PhotoFiles(Dataset):
    """Photos that stay on disk: item i is the i-th file as uint8 (3, size, size); raises OSError for a lost file."""

    def __init__(self, folder: Path, names: list[str]):
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.from_numpy(read_rgb(self.folder / self.names[i])).permute(2, 0, 1)


def prepare(cfg: Config) -> PhotoSet:
    """Return the prepared set of a configuration: found where an earlier call left it, else made.

    Photos are selected by the rules of `selection`, a sample of `cfg.n_photos` is drawn, split 80/10/10 by
    source photo, center-cropped to a square, resized to `cfg.size` (OpenCV bilinear) and written as PNG.

    Raises as `find_photos` does, and ValueError when fewer than ten photos pass the rules.
    """
    fields = ("data_source", "photos_folder", "n_photos", "size", "min_colorfulness", "seed")
    recipe = json.dumps({name: getattr(cfg, name) for name in fields}, sort_keys=True)
    folder = workspace.local(f"{cfg.data_source}-{cfg.size}px-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}")
    if not (folder / "manifest.csv").exists():
        _make(cfg, folder)
    tables = [pd.read_csv(folder / name, keep_default_na=False) for name in ("manifest.csv", "dropped.csv")]
    return PhotoSet(folder, *tables)


def originals(photos: PhotoSet, size: int) -> PhotoSet:
    """Return a prepared set once more, in the files' own pixels: the center, `size` on a side, of those that hold it.

    Raises ValueError when no training photo, or none to validate on, does.
    """
    folder = workspace.local(f"{photos.folder.name}-original-{size}px")
    manifest = photos.manifest[photos.manifest[["width", "height"]].min(axis=1) >= size]
    if not (folder / "source.txt").exists():
        source = Path((photos.folder / "source.txt").read_text())
        pairs = [(source / row.source, folder / row.name) for row in manifest[["source", "name"]].itertuples(False)]
        _with_bar(lambda pair: _center(*pair, size), pairs, "cutting")
        (folder / "source.txt").write_text(str(source))
    left = PhotoSet(folder, manifest, photos.dropped)
    if not left.names("train") or not left.names("validation"):
        raise ValueError(f"Too few photos are {size} pixels or more on their shorter side: lower `original_size`.")
    print(f"originals  {len(manifest):,} of {len(photos.manifest):,} photos have {size} px and more")
    return left


def _make(cfg: Config, folder: Path) -> None:
    """Select, split and write the photos of a set; the manifest comes last, so that half a set is not taken for one.

    Memory holds about a kilobyte a photo, however many there are: the photos themselves pass through.
    """
    source, paths = find_photos(cfg)
    facts = pd.DataFrame(_with_bar(selection.inspect, paths, "inspecting photos"))
    facts["source"] = [path.relative_to(source).as_posix() for path in paths]
    facts["rule"] = selection.apply_rules(facts, cfg)
    facts["group"] = [Path(s).parts[0] for s in facts["source"]] if cfg.data_source == "sample" else facts["source"]
    chosen = selection.draw(facts[facts["rule"] == ""], cfg.n_photos, cfg.seed)
    if len(chosen) < 10:
        raise ValueError(
            f"Only {len(chosen)} photos of {source} pass the rules ({facts['rule'].value_counts().to_dict()}); "
            "at least 10 are needed. Lower `size` or `min_colorfulness`, or add photos."
        )
    chosen["split"] = selection.split(chosen["group"].tolist(), cfg.seed)
    chosen["name"] = [f"photo{i:05d}.png" for i in range(len(chosen))]
    pairs = [(paths[i], folder / name) for i, name in chosen["name"].items()]
    _with_bar(lambda pair: _resize(*pair, cfg.size), pairs, "resizing")
    (folder / "source.txt").write_text(str(source))
    columns = ["source", "width", "height", "sha256", "colorfulness"]
    tables = {"dropped.csv": facts.loc[facts["rule"] != "", [*columns, "rule"]]}
    tables["manifest.csv"] = chosen[["name", "split", "group", *columns]]
    for name, table in tables.items():  # a file's name need not be valid Unicode
        table.to_csv(folder / name, index=False, errors="backslashreplace")


def _with_bar(function, items: list, title: str) -> list:
    return list(tqdm(workspace.in_parallel(function, items), total=len(items), desc=title, leave=False))


def _resize(source: Path, target: Path, size: int) -> None:
    """Write the center square of a photo, resized."""
    _write(center_square(read_rgb(source), size), target)


def _center(source: Path, target: Path, size: int) -> None:
    """Write the center of a photo, `size` pixels on a side, as they are."""
    rgb = read_rgb(source)
    top, left = ((length - size) // 2 for length in rgb.shape[:2])
    _write(rgb[top : top + size, left : left + size], target)


def _write(rgb: np.ndarray, target: Path) -> None:
    """Write a photo as PNG; raises OSError when it cannot be written."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    if not cv2.imwrite(str(target), bgr, options):  # fast, and hardly larger: compressing takes the most time here
        raise OSError(f"{target} cannot be written: is the disk full?")
