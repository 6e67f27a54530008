"""What the benches share: photos, tables as Markdown, the name of the machine, and peak memory."""

import datetime
import os
import platform
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import skimage.data
import torch

from helpers.data.photos import read_rgb


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


def write_photos(folder: Path | str, count: int, size: int, ending: str = "png") -> list[Path]:
    """Write square photos of soft colored patches, each different and always the same; return their paths."""
    paths, random = [Path(folder) / f"image{i:04d}.{ending}" for i in range(count)], np.random.default_rng(0)
    for path in paths:
        patches = random.integers(0, 256, (8, 8, 3), np.uint8)
        cv2.imwrite(str(path), cv2.resize(patches, (size, size), interpolation=cv2.INTER_CUBIC))
    return paths


def as_markdown(rows: dict[str, dict] | pd.DataFrame, digits: int = 3) -> str:
    """Return a table, or a dict of rows, as Markdown."""
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame.from_dict(rows, orient="index")
    head, *lines = table.to_csv(sep="|", float_format=f"%.{digits}f", na_rep="–").splitlines()
    return "\n".join(f"| {line.replace('|', ' | ')} |" for line in (head, "---|" * table.shape[1] + "---", *lines))


def machine() -> str:
    """Return the device, its software and the date, for the head of a report."""
    versions = f"PyTorch {torch.__version__}, {datetime.date.today()}"
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {versions}"
    names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()) or [platform.machine()]
    return f"{torch.get_num_threads()} threads of {names[0]}, {versions}"


def peak_memory() -> float:
    """Return the most memory that this process has held, in GB, on Linux."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e9
