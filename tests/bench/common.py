"""What the benches share: photos, tables as Markdown, the name of the machine, measurements in their own process."""

import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def in_process(file: Path | str, *arguments: str) -> Any:
    """Run a Python file in a process of its own, which has its own peak memory; return the JSON that it prints last."""
    done = subprocess.run([sys.executable, file, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> float:
    """Return the most memory that this process has held, in GB, on Linux."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e9
