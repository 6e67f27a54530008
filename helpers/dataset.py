"""From a folder of photos to a prepared set: found, selected by rules, resized, split, listed in a manifest."""

import hashlib
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import skimage
import torch
from tqdm.auto import tqdm

from helpers import selection, workspace
from helpers.selection import UNREADABLE, centre_square, read_rgb

KAGGLE_HANDLE = "aayush9753/image-colorization-dataset/versions/1"
SAMPLES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")
SAMPLES += ("camera.png", "moon.png")  # these two are grey: a rule drops them
SPLITS = ("train", "validation", "test")


@dataclass
class PhotoSet:
    """A prepared set: `folder` with PNG files, `manifest` (a row per chosen photo), `dropped` (the others, and why)."""

    folder: Path
    manifest: pd.DataFrame
    dropped: pd.DataFrame

    def names(self, split):
        """Return the file names of one split, in the manifest's order."""
        return self.manifest.loc[self.manifest["split"] == split, "name"].tolist()

    def load(self, split, limit=2000):
        """Return the first photos of a split as uint8 (N, 3, size, size), at most `limit`; None for all, however many.

        Raises ValueError for an unknown or empty split, OSError for a photo that is gone.
        """
        names = self.names(split)[:limit]
        if not names:
            raise ValueError(f"No photos in split {split!r} of {self.folder}; its splits are {', '.join(SPLITS)}.")
        return torch.from_numpy(np.stack([read_rgb(self.folder / name) for name in names])).permute(0, 3, 1, 2)

    def open(self, split, budget_gb):
        """Return the photos of a split in memory, as `load`, if they fit in a budget; else as `PhotoFiles`, to stream.

        What was chosen, and why, is printed.
        """
        names = self.names(split)
        bytes_each = read_rgb(self.folder / names[0]).size if names else 0
        needed = len(names) * bytes_each / 1e9
        fits = needed <= budget_gb
        how = "kept in memory" if fits else "streamed from disk"
        print(f"photos     {len(names):,} of {split} need {needed:.2f} GB, the budget is {budget_gb:g} GB: {how}")
        return self.load(split, None) if fits else PhotoFiles(self.folder, names)

    def examples(self, rule, count=4, size=128):
        """Return up to `count` photos that a rule dropped, uint8 (3, size, size); none for unreadable files."""
        source = Path((self.folder / "source.txt").read_text())
        names = self.dropped.loc[self.dropped["rule"] == rule, "source"].head(count)
        names = [name for name in names if (source / name).exists()]
        squares = [] if rule == UNREADABLE else [centre_square(read_rgb(source / name), size) for name in names]
        return [torch.from_numpy(square).permute(2, 0, 1) for square in squares]


class PhotoFiles:
    """Photos that stay on disk: item i is the i-th file as uint8 (3, size, size); raises OSError for a lost file."""

    def __init__(self, folder, names):
        self.folder, self.names = folder, names

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        return torch.from_numpy(read_rgb(self.folder / self.names[i])).permute(2, 0, 1)


def download_kaggle():
    """Return the folder of the 5,000 colour photos of Kaggle's "Image Colorization Dataset", downloaded if need be.

    Raises RuntimeError, with the other choices, when Kaggle cannot be reached.
    """
    import kagglehub  # asks for its credentials when imported: only who wants Kaggle pays for that

    # older kagglehubs unpack whatever an archive says, wherever it says: this keeps it within its folder
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        folder = Path(kagglehub.dataset_download(KAGGLE_HANDLE))
    except Exception as error:  # kagglehub has an error of its own for every way to fail
        raise RuntimeError(
            f"Kaggle's photos cannot be downloaded ({type(error).__name__}: {error}). Connect to the network, or use "
            'data_source="folder" with photos_folder="your/photos", or data_source="sample".'
        ) from error
    photos = folder / "data" / "train_color"
    if not photos.is_dir():
        raise RuntimeError(
            f"{folder} holds no data/train_color: half a download. Delete that folder, and run this again."
        )
    return photos


def sample_photos():
    """Return a folder with the photos that scikit-image ships, each cut into four quarters in a folder of its own."""
    folder, shipped = workspace.local("scikit-image"), Path(skimage.__file__).parent / "data"
    for name in SAMPLES:
        bgr = cv2.imread(str(shipped / name))
        for i, half in enumerate(np.array_split(bgr, 2)):
            for j, quarter in enumerate(np.array_split(half, 2, axis=1)):
                target = folder / Path(name).stem / f"{i}{j}.png"
                target.parent.mkdir(exist_ok=True)
                if not target.exists():
                    cv2.imwrite(str(target), quarter)
    return folder


def find_photos(cfg):
    """Return the folder that `cfg.data_source` stands for and its photo files, sorted.

    Raises FileNotFoundError for a missing or empty folder, RuntimeError when Kaggle cannot be reached.
    """
    sources = {"kaggle": download_kaggle, "sample": sample_photos, "folder": lambda: Path(cfg.photos_folder)}
    if cfg.data_source == "folder" and not cfg.photos_folder:
        raise FileNotFoundError('data_source="folder" needs photos_folder="the/folder/with/your/photos".')
    folder = sources[cfg.data_source]().expanduser()
    return folder, list_photos(folder)


def list_photos(folder):
    """Return the photo files in a folder and below, sorted; links are followed, but none in a circle.

    Raises FileNotFoundError if there are none. Folders that may not be opened are printed and passed over.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}: name one that holds photos.")
    suffixes = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"}
    paths, seen = [], set()
    for parent, below, names in os.walk(folder, followlinks=True, onerror=lambda error: print(f"passed over: {error}")):
        if os.path.realpath(parent) in seen:
            below.clear()
            continue
        seen.add(os.path.realpath(parent))
        files = (Path(parent, name) for name in names if Path(name).suffix.lower() in suffixes)
        paths += [path for path in files if path.is_file()]
    if not paths:
        raise FileNotFoundError(f"{folder} holds no photos; looked for {', '.join(sorted(suffixes))} in it and below.")
    return sorted(paths)


def show_photos(folder, limit=24):
    """Return the first photos of a folder that can be read, or without one those of scikit-image's that have colour.

    What cannot be read is printed. Raises FileNotFoundError when there is nothing that can be read.
    """
    if not folder:
        return [Path(skimage.__file__).parent / "data" / name for name in SAMPLES[:5]]
    readable = []
    for path in list_photos(Path(folder).expanduser()):
        try:
            read_rgb(path)
            readable.append(path)
        except OSError as error:
            print(f"passed over: {error}")
        if len(readable) == limit:
            break
    if not readable:
        raise FileNotFoundError(f"None of the photos in {folder} can be read: name another folder.")
    return readable


def load_squares(folder, size, limit=8):
    """Return the first photos of a folder, or without one scikit-image's colour ones, as uint8 (N, 3, size, size).

    Raises FileNotFoundError as `show_photos` does.
    """
    squares = [centre_square(read_rgb(path), size) for path in show_photos(folder, limit)]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


def prepare(cfg):
    """Return the prepared set of a configuration: found where an earlier call left it, else made.

    Photos are selected by the rules of `selection`, a sample of `cfg.n_photos` is drawn, split 80/10/10 by
    source photo, centre-cropped to a square, resized to `cfg.size` (OpenCV bilinear) and written as PNG.

    Raises as `find_photos` does, and ValueError when fewer than ten photos pass the rules.
    """
    fields = ("data_source", "photos_folder", "n_photos", "size", "min_colourfulness", "seed")
    recipe = json.dumps({name: getattr(cfg, name) for name in fields}, sort_keys=True)
    folder = workspace.local(f"{cfg.data_source}-{cfg.size}px-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}")
    if not (folder / "manifest.csv").exists():
        _make(cfg, folder)
    tables = [pd.read_csv(folder / name, keep_default_na=False) for name in ("manifest.csv", "dropped.csv")]
    return PhotoSet(folder, *tables)


def _make(cfg, folder):
    """Select, split and write the photos of a set; the manifest comes last, so that half a set is not taken for one.

    Memory holds a few hundred bytes a photo, however many there are: the photos pass through, thumbnails lie on disk.
    """
    source, paths = find_photos(cfg)
    looks, thumbs = _look_at_all(paths, folder / "thumbnails.npy")
    looks["source"] = [printable(path.relative_to(source)) for path in paths]
    looks["rule"] = selection.apply_rules(looks, thumbs, cfg)
    looks["group"] = [Path(s).parts[0] for s in looks["source"]] if cfg.data_source == "sample" else looks["source"]
    chosen = selection.draw(looks[looks["rule"] == ""], cfg.n_photos, cfg.seed)
    if len(chosen) < 10:
        raise ValueError(
            f"Only {len(chosen)} photos of {source} pass the rules ({looks['rule'].value_counts().to_dict()}); "
            "at least 10 are needed. Lower `size` or `min_colourfulness`, or add photos."
        )
    chosen["split"] = selection.split(chosen["group"].tolist(), cfg.seed)
    chosen["name"] = [f"photo{i:05d}.png" for i in range(len(chosen))]
    pairs = [(paths[i], folder / name) for i, name in chosen["name"].items()]
    written = workspace.in_parallel(lambda pair: _resize(*pair, cfg.size), pairs)
    for _ in tqdm(written, total=len(pairs), desc="resizing", leave=False):
        pass
    columns = ["source", "width", "height", "sha256", "colourfulness"]
    looks[looks["rule"] != ""][[*columns, "rule"]].to_csv(folder / "dropped.csv", index=False)
    (folder / "source.txt").write_text(str(source))
    chosen[["name", "split", "group", *columns]].to_csv(folder / "manifest.csv", index=False)


def _look_at_all(paths, file):
    """Return a table of what the rules need to know of photos, and their thumbnails as an array in a file."""
    thumbs = np.lib.format.open_memmap(file, "w+", np.uint8, (len(paths), len(selection.UNREADABLE_LOOK["thumb"])))
    rows, looks = [], workspace.in_parallel(selection.look_at, paths)
    for i, look in enumerate(tqdm(looks, total=len(paths), desc="looking at photos", leave=False)):
        thumbs[i] = look["thumb"]
        rows.append([value for name, value in look.items() if name != "thumb"])
    return pd.DataFrame(rows, columns=[name for name in selection.UNREADABLE_LOOK if name != "thumb"]), thumbs


def printable(path):
    """Return a path as text that any file can hold: a name need not be valid Unicode."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode()


def _resize(source, target, size):
    """Write the centre square of a photo as PNG; raises OSError when it cannot be written."""
    bgr = cv2.cvtColor(centre_square(read_rgb(source), size), cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY]
    if not cv2.imwrite(str(target), bgr, options):  # fast, and hardly larger: compressing takes the most time here
        raise OSError(f"{target} cannot be written: is the disk full?")
