"""Where files go, on Colab or elsewhere; seed, device and precision; checking exercises."""

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, set_seed

from helpers.config import Config

PROJECT = Path(__file__).resolve().parent.parent
DRIVE = Path("/content/drive/MyDrive")
_making = Lock()


def on_colab() -> bool:
    """Say whether this Python runs on Google Colab."""
    return "google.colab" in sys.modules


def root() -> Path:
    """Return the folder for results: `COLORIZE_WORKSPACE`, else `colorization/` on a mounted Drive, else `artifacts/`.

    Raises OSError if the folder cannot be created.
    """
    named = os.environ.get("COLORIZE_WORKSPACE")
    drive = on_colab() and DRIVE.is_dir()
    if on_colab() and named and DRIVE.parent in Path(named).parents and not drive:
        raise OSError(
            f"{named} is on Google Drive, which is not mounted: run drive.mount({str(DRIVE.parent)!r}) first."
        )
    return _made(Path(named) if named else DRIVE / "colorization" if drive else PROJECT / "artifacts").resolve()


def folder(name: str) -> Path:
    """Return a folder of the workspace, created if needed: runs, figures or tables."""
    return _made(root() / name)


def local(name: str) -> Path:
    """Return a folder on this machine's own disk for prepared photos: Drive is slow with many files."""
    base = Path("/content") if on_colab() and not os.environ.get("COLORIZE_WORKSPACE") else root()
    return _made(base / "data" / name)


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def ask_for_photos() -> str:
    """On Colab, ask for photos to upload and return their folder; "" elsewhere, or if none were chosen."""
    if not on_colab():
        return ""
    from google.colab import files

    uploaded, place = files.upload(), local("uploaded")
    for name, content in uploaded.items():
        (place / Path(name).name).write_bytes(content)
    return str(place) if uploaded else ""


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch on all devices."""
    set_seed(seed)


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(function: Callable, items: Iterable, ahead: int = 64) -> Iterator:
    """Yield function(item) for each item, in order, computed on all cores, at most `ahead` items ahead.

    With threads: OpenCV and PyTorch release Python's lock, and their own threads would not survive a fork.
    """
    items = iter(items)
    with ThreadPoolExecutor(cores()) as pool:
        while group := [*islice(items, ahead)]:
            yield from pool.map(function, group)


def native_precision() -> str:
    """Return the fastest precision that the hardware has: "bf16", "fp16" or "no" (fp32)."""
    if torch.cuda.is_available():  # a T4 only emulates bf16, slowly
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return "bf16" if supported and not torch.backends.mps.is_available() else "no"


def keep_memory() -> None:
    """Let this process keep the memory of freed tensors: on Linux, new memory takes a quarter of a step's time."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # glibc, not musl
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no mapping of its own for each large tensor
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never given back


def make_accelerator(precision: str = "auto", training: bool = True) -> Accelerator:
    """Return accelerate's object for devices and precision: "auto" (see `native_precision`), "fp32", "bf16", "fp16".

    It keeps its precision when another one is made. training: set PyTorch's flags for speed, in the whole process;
    else they stay as they are.
    """
    mixed = {"auto": native_precision(), "fp32": "no"}.get(precision, precision)
    if training:
        torch.set_float32_matmul_precision("high")  # TF32, where the hardware has it
        torch.backends.cudnn.benchmark = True  # training photos have one size, so the search for fast kernels pays
    no_gpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if training and no_gpu:
        keep_memory()
    # no shared batch statistics: the discriminator runs twice before a gradient, and sharing them in between would
    # change what that gradient needs
    separate = DistributedDataParallelKwargs(broadcast_buffers=False)
    with _making:
        AcceleratorState._shared_state = {}  # accelerate has one for all, so the newest precision would be everybody's
        accelerator = Accelerator(mixed_precision=mixed, cpu=no_gpu, kwargs_handlers=[separate])
    dtype, prepare = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(mixed), accelerator.prepare

    def _prepare(*things: Any) -> Any:
        with _making:
            AcceleratorState._shared_state = vars(accelerator.state)
            return prepare(*things)

    accelerator.prepare = _prepare
    accelerator.autocast = partial(torch.autocast, accelerator.device.type, dtype, enabled=bool(dtype))
    return accelerator


def describe(accelerator: Accelerator, cfg: Config) -> None:
    """Print the machine, the precision, the seed and the workspace."""
    device = accelerator.device
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    precision = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    print(f"profile    {cfg.profile}, run {cfg.run!r}, seed {cfg.seed}")
    print(f"device     {device.type} ({name}), PyTorch {torch.__version__}")
    print(f"precision  {precision}; losses, Lab and metrics in fp32")
    print(f"workspace  {root()}")
    if on_colab() and DRIVE not in root().parents:
        print("note       the workspace disappears with this machine: mount Drive in the first cell to keep it")
    if cfg.profile in ("paper", "vivid") and device.type == "cpu":
        print("note       no GPU: this profile would take days. On Colab: Runtime > Change runtime type; elsewhere set")
        print("           COLORIZE_PROFILE=laptop before the notebook starts")


def check(answer: Any, reference: Any, tolerance: float = 1e-4) -> str:
    """Compare a student's number or tensor with a reference: "right", or how they differ; None means not done yet."""
    if answer is None:
        return "still to do: it returns None"
    ours, theirs = (torch.as_tensor(value, dtype=torch.float64) for value in (answer, reference))
    if ours.shape != theirs.shape:
        return f"not yet: its shape is {tuple(ours.shape)}, and should be {tuple(theirs.shape)}"
    error = (ours - theirs).abs().max().item()
    return "right" if error <= tolerance else f"not yet: it differs by up to {error:.3g}"
