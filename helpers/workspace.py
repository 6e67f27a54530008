"""Where things live, on Colab or elsewhere; the seed, the device and its precision; showing source."""

import inspect
import os
import random
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from IPython.display import Code

from helpers.config import Config

PROJECT = Path(__file__).resolve().parent.parent
DRIVE = Path("/content/drive/MyDrive")


def on_colab() -> bool:
    """Say whether this Python runs on Google Colab."""
    return "google.colab" in sys.modules


def root() -> Path:
    """Return the folder for results that must outlive the machine.

    `COLORIZE_WORKSPACE` names it. Without that it is `colorization/` on a mounted Google Drive,
    else `artifacts/` in the project.

    Raises OSError, with what to do, when the folder cannot be made.
    """
    named = os.environ.get("COLORIZE_WORKSPACE")
    drive = on_colab() and DRIVE.is_dir()
    if on_colab() and named and DRIVE.parent in Path(named).parents and not drive:
        raise OSError(
            f"{named} is on Google Drive, which is not mounted: run drive.mount({str(DRIVE.parent)!r}) first."
        )
    path = Path(named) if named else DRIVE / "colorization" if drive else PROJECT / "artifacts"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"The workspace {path} cannot be made ({error.strerror}). "
            "Set COLORIZE_WORKSPACE to a folder that you may write to."
        ) from error
    return path.resolve()


def folder(name: str) -> Path:
    """Return the folder `name` of the workspace, made if absent: runs, figures or tables."""
    path = root() / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def local(name: str) -> Path:
    """Return a folder on this machine's own disk, where prepared photos go: Drive is slow for many files."""
    base = Path("/content") if on_colab() and not os.environ.get("COLORIZE_WORKSPACE") else root()
    path = base / "data" / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def ask_for_photos() -> str:
    """On Colab, ask for photos to upload and return the folder they are in; "" elsewhere, or when there were none."""
    if not on_colab():
        return ""
    from google.colab import files

    uploaded, place = files.upload(), local("uploaded")
    for name, content in uploaded.items():
        (place / Path(name).name).write_bytes(content)
    return str(place) if uploaded else ""


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, all devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(function: Callable, items: Iterable, ahead: int = 64) -> Iterator:
    """Yield function(item) for each item, in order, computed by threads on all cores at most `ahead` items ahead.

    Threads, for OpenCV lets them run side by side, and its own do not survive the fork that processes start with.
    """
    items = iter(items)
    with ThreadPoolExecutor(cores()) as pool:
        waiting = deque(pool.submit(function, item) for item in islice(items, ahead))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(items, 1))
            yield result


def native_precision() -> str:
    """Return the fastest precision that this machine has in hardware: "bf16", "fp16" or "no" (fp32).

    A T4 emulates bf16, slowly, and PyTorch calls that supported unless it is asked not to count it.
    """
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if torch.backends.mps.is_available():
        return "no"
    found = getattr(torch.cpu, "get_capabilities", dict)()
    older = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)
    return "bf16" if found.get("avx512_bf16") or found.get("amx_bf16") or older() else "no"


def make_accelerator(precision: str = "auto") -> Accelerator:
    """Return the accelerate object that places networks and runs them in the given precision.

    `precision` is "auto" (what the hardware has), "fp32", "bf16" or "fp16".
    """
    mixed = {"auto": native_precision(), "fp32": "no"}.get(precision, precision)
    # accelerate refuses a second precision in one process; a student who changes the cell means it
    AcceleratorState._reset_state()
    torch.set_float32_matmul_precision("high")  # TF32, where there is such a thing
    torch.backends.cudnn.benchmark = True  # training photos are of one size: worth the search for the fastest kernel
    no_gpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    # each process keeps batch statistics of its own: the discriminator runs twice before a gradient, and sharing them
    # in between would change what that gradient needs. `cpu`: only when told so does it join processes on a CPU
    separate = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(mixed_precision=mixed, cpu=no_gpu, kwargs_handlers=[separate])


def describe(accelerator: Accelerator, cfg: Config) -> None:
    """Print the machine, the precision, the seed and where results go."""
    device = accelerator.device
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    precision = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    print(f"profile    {cfg.profile}, run {cfg.run!r}, seed {cfg.seed}")
    print(f"device     {device.type} ({name}), PyTorch {torch.__version__}")
    print(f"precision  {precision}; losses, Lab and metrics in fp32")
    print(f"workspace  {root()}")
    if on_colab() and DRIVE not in root().parents:
        print("note       the workspace goes when this machine goes; mount Google Drive first, to keep it")
    if cfg.profile in ("paper", "vivid") and device.type == "cpu":
        print("note       no GPU: this profile would take days. On Colab: Runtime > Change runtime type; elsewhere set")
        print("           COLORIZE_PROFILE=laptop before the notebook starts")


def source(*things: Any) -> Code:
    """Return the source of functions or classes of the helpers as one highlighted display."""
    return Code("\n\n".join(inspect.getsource(thing).rstrip() for thing in things), language="python")
