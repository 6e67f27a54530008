"""What the benches share: photos, tables as Markdown, the name of the machine, the memory of a process."""

import datetime
import os
import platform
import re
import resource
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import skimage.data
import torch
from torch import Tensor

from helpers.data.photos import center_square, read_rgb


def photos_of_skimage() -> list[np.ndarray]:
    """Return color photos that scikit-image ships, uint8 (H, W, 3)."""
    return [skimage.data.coffee(), skimage.data.chelsea(), skimage.data.astronaut(), skimage.data.rocket()]


def paths_in(variable: str) -> list[Path]:
    """Return the photos and films in the folder that an environment variable names, sorted; none without it."""
    folder = os.environ.get(variable)
    return sorted(path for path in Path(folder).iterdir() if path.is_file()) if folder else []


def kodak() -> list[np.ndarray]:
    """Return the photos in the folder KODAK24, uint8 (H, W, 3); none without it."""
    return [read_rgb(path) for path in paths_in("KODAK24")]


def kodak_squares(size: int) -> Tensor | None:
    """Return the centers of Kodak24 as uint8 (24, 3, size, size), or None without the folder KODAK24."""
    squares = [torch.from_numpy(center_square(rgb, size)).permute(2, 0, 1) for rgb in kodak()]
    return torch.stack(squares) if squares else None


def squares(count: int, size: int) -> Tensor:
    """Return different squares cut from scikit-image's photos, always the same: uint8 (count, 3, size, size)."""
    photos, random, cut = photos_of_skimage(), np.random.default_rng(0), []
    for i in range(count):
        photo = photos[i % len(photos)]
        side = int(random.integers(min(size, 250), min(photo.shape[:2])))
        top, left = (int(random.integers(0, length - side + 1)) for length in photo.shape[:2])
        cut.append(cv2.resize(photo[top : top + side, left : left + side], (size, size)))
    return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2)


def write_photos(folder: Path | str, photos: Tensor, ending: str = "jpg") -> list[Path]:
    """Write photos, uint8 (N, 3, H, W), into a folder; return their paths."""
    paths = [Path(folder) / f"image{i:04d}.{ending}" for i in range(len(photos))]
    for path, photo in zip(paths, photos, strict=True):
        cv2.imwrite(str(path), photo.permute(1, 2, 0).numpy()[..., ::-1])
    return paths


class Photos:
    """A prepared set in memory, for the trainer: all photos are for training, the first 16 also for validation."""

    def __init__(self, photos: Tensor):
        self.photos, self.manifest = photos, pd.DataFrame({"name": range(len(photos))})

    def load(self, split: str, limit: int | None = 2000) -> Tensor:
        """Return photos, uint8 (N, 3, H, W)."""
        return self.photos[:limit] if split == "train" else self.photos[:16]


def as_markdown(rows: dict[str, dict] | pd.DataFrame, digits: int = 3) -> str:
    """Return a table, or a dict of rows, as Markdown."""
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame.from_dict(rows, orient="index")

    def _cell(value):
        if isinstance(value, str):
            return value
        return "–" if pd.isna(value) else f"{value:,.0f}" if float(value).is_integer() else f"{value:.{digits}f}"

    lines = [["", *map(str, table)], ["---"] * (table.shape[1] + 1)]
    lines += [[str(name), *map(_cell, row)] for name, row in zip(table.index, table.to_numpy(object), strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    """Return the device, its software and the date, for the head of a report."""
    versions = f"PyTorch {torch.__version__}, {datetime.date.today()}"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {versions}"
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text()) if info.exists() else []
    return f"{torch.get_num_threads()} threads of {names[0] if names else platform.machine()}, {versions}"


def peak_memory() -> float:
    """Return the most memory that this process has held, in GB; what the process that started it held is not in it."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
