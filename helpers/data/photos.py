"""Photos of any kind as arrays: reading, cropping, resizing, and finding them in folders."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from skimage import img_as_ubyte
from skimage.color import gray2rgb

with suppress(ImportError):  # HEIC, where it is installed
    from pillow_heif import register_heif_opener

    register_heif_opener()

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"}
SUFFIXES |= {".heif", ".jp2", ".j2k", ".tga", ".pgm", ".ppm", ".pnm"}
MAX_PIXELS = 178_956_970  # more may be a file that was made to fill the memory


def read_rgb(path: str | Path, page: int = 0, max_pixels: int | None = MAX_PIXELS) -> np.ndarray:
    """Read a photo, or a page of a TIFF, as uint8 (H, W, 3); raises OSError, naming the file, as `to_rgb` does."""
    return _open(path, path, page, max_pixels)


def pages(path: str | Path) -> int:
    """Return the number of pages of a TIFF; 1 for any other photo, and for one that cannot be read."""
    try:
        with Image.open(path) as photo:
            return getattr(photo, "n_frames", 1) if photo.format == "TIFF" else 1
    except Exception:  # reading it will say why
        return 1


def to_rgb(photo: Any, max_pixels: int | None = MAX_PIXELS) -> np.ndarray:
    """Return any photo as uint8 (H, W, 3): rotated as its EXIF data say, over white if transparent.

    photo: a path, the bytes of a file, a Pillow image, or an array (H, W) or (H, W, 1, 3 or 4), uint8, uint16, or
    floating-point in [0, 1]. Raises OSError for a file that cannot be read or has more than `max_pixels` (None: any
    number), ValueError for an array that is no photo.
    """
    if isinstance(photo, (str, Path)):
        return read_rgb(photo, 0, max_pixels)
    if isinstance(photo, (bytes, Image.Image)):
        return _open(io.BytesIO(photo) if isinstance(photo, bytes) else photo, "the photo", 0, max_pixels)
    array = np.asarray(photo)
    fractions = array.dtype.kind == "f" and array.size > 0 and np.nanmax(array) <= 1.001
    channels = array.shape[2] if array.ndim == 3 else 1
    known = fractions or array.dtype in (np.uint8, np.uint16)
    if not known or array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(
            f"an array of {array.dtype} and shape {array.shape} is no photo; it must be (H, W) or (H, W, 1, 3 or 4), "
            "uint8, uint16 or floating-point in [0, 1]"
        )
    array = img_as_ubyte(np.nan_to_num(array).clip(0, 1) if fractions else array)
    return np.ascontiguousarray(array[..., :3] if channels > 1 else gray2rgb(array.reshape(array.shape[:2])))


def _open(photo: Any, name: Any, page: int, max_pixels: int | None) -> np.ndarray:
    Image.MAX_IMAGE_PIXELS = None  # checked here, with a message that says what to do
    try:
        with nullcontext(photo) if isinstance(photo, Image.Image) else Image.open(photo) as opened:
            if max_pixels and opened.width * opened.height > max_pixels:
                raise ValueError(
                    f"{opened.width}x{opened.height} pixels are too many; max_pixels=None (on the command "
                    "line --large-scans) allows any number"
                )
            if page:
                opened.seek(page)
            return _pixels(ImageOps.exif_transpose(opened))
    except Exception as error:  # a damaged file can make a decoder fail in any way
        reason = str(error) or type(error).__name__
        if str(name).lower().endswith((".heic", ".heif")):
            reason = f"{reason}; HEIC needs `pip install pillow-heif`"
        raise OSError(f"{name} cannot be read as a photo: {reason}") from error


def _pixels(photo: Image.Image) -> np.ndarray:
    if photo.mode.startswith("I"):  # 16 bits per channel
        values = np.asarray(photo).astype(np.int64).clip(0, 65535)
        return np.repeat((values // 257).astype(np.uint8)[..., None], 3, axis=2)
    if photo.mode == "F":
        raise ValueError("its values are floating-point numbers without a known range")
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    return np.array(photo.convert("RGB"))


def center_square(rgb: np.ndarray, size: int, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Crop (H, W, 3) uint8 to its center square and resize it to (size, size, 3), by default bilinearly."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return cv2.resize(rgb[top : top + side, left : left + side], (size, size), interpolation=interpolation)


def reduced(rgb: np.ndarray, size: int) -> np.ndarray:
    """Reduce a photo (H, W, 3) to `size` pixels on its shorter side, and at most 8 times that on the longer one.

    A smaller photo is returned unchanged.
    """
    height, width = rgb.shape[:2]
    share = min(1.0, size / min(height, width), 8 * size / max(height, width))
    target = max(1, round(width * share)), max(1, round(height * share))
    return cv2.resize(rgb, target, interpolation=cv2.INTER_AREA) if share < 1 else rgb


def to_tensor(rgb: np.ndarray) -> torch.Tensor:
    """Return a photo (H, W, 3) uint8 as a tensor (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255


def walk(folder: Path, ignored: Path | None = None, on_error: Callable[[OSError], object] = print) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, linked ones too but each only once, sorted in each folder.

    ignored: a subfolder to leave out; on_error: called for each subfolder that cannot be opened.
    """
    seen = {os.path.realpath(ignored)} if ignored else set()
    for parent, folders, names in os.walk(folder, onerror=on_error, followlinks=True):
        seen.add(os.path.realpath(parent))
        folders[:] = sorted(each for each in folders if os.path.realpath(Path(parent, each)) not in seen)  # no loops
        yield from (Path(parent, name) for name in sorted(names))


def list_photos(folder: Path, suffixes: frozenset[str] | set[str] = frozenset(SUFFIXES)) -> list[Path]:
    """Return the photo files in a folder and its subfolders, linked ones too, sorted; suffixes: of the file names.

    Prints which subfolders cannot be opened. Raises FileNotFoundError if there are no photos.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}: name one that holds photos.")
    files = walk(folder, on_error=lambda error: print(f"skipped: {error}"))
    paths = sorted(path for path in files if path.suffix.lower() in suffixes and path.is_file())
    if not paths:
        raise FileNotFoundError(f"{folder} holds no photos; looked for {', '.join(sorted(suffixes))}.")
    return paths
