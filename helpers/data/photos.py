"""Photos of any kind as arrays: opening, cropping, resizing, and finding them in folders."""

import io
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from skimage import img_as_ubyte
from skimage.color import gray2rgb

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"}


def read_rgb(path: str | Path) -> np.ndarray:
    """Read a photo as uint8 (H, W, 3); raises OSError, naming the file, as `to_rgb` does."""
    return _open(path, path)


def to_rgb(photo: Any) -> np.ndarray:
    """Return any photo as uint8 (H, W, 3): turned as EXIF says, over white if transparent.

    photo: a path, the bytes of a file, a Pillow image, or an array (H, W) or (H, W, 1, 3 or 4), uint8, uint16, or
    floating-point in [0, 1]. Raises OSError for a file that cannot be read (damaged, cut off, no photo at all, or of
    so many pixels, over 178 million, that it is more likely made to fill the memory), ValueError for an array that is
    no photo.
    """
    if isinstance(photo, (str, Path)):
        return read_rgb(photo)
    if isinstance(photo, (bytes, Image.Image)):
        return _open(io.BytesIO(photo) if isinstance(photo, bytes) else photo, "the photo")
    array = np.asarray(photo)
    fractions = array.dtype.kind == "f" and array.size > 0 and np.nanmax(array) <= 1.001
    channels = array.shape[2] if array.ndim == 3 else 1
    if (
        not (fractions or array.dtype in (np.uint8, np.uint16))
        or array.ndim not in (2, 3)
        or channels not in (1, 3, 4)
        or 0 in array.shape
    ):
        raise ValueError(
            f"an array of {array.dtype} and shape {array.shape} is no photo; it must be (H, W) or (H, W, 1, 3 or 4), "
            "uint8, uint16 or floating-point in [0, 1]"
        )
    array = img_as_ubyte(np.nan_to_num(array).clip(0, 1) if fractions else array)
    return np.ascontiguousarray(array[..., :3] if channels > 1 else gray2rgb(array.reshape(array.shape[:2])))


def _open(photo: Any, name: Any) -> np.ndarray:
    try:
        with nullcontext(photo) if isinstance(photo, Image.Image) else Image.open(photo) as opened:
            return _pixels(ImageOps.exif_transpose(opened))
    except Exception as error:  # a damaged file can make a decoder fail in any way
        reason = str(error) or type(error).__name__
        raise OSError(f"{name} cannot be read as a photo: {reason}") from error


def _pixels(photo: Image.Image) -> np.ndarray:
    if photo.mode.startswith("I"):  # 16 bits a channel
        values = np.asarray(photo).astype(np.int64).clip(0, 65535)
        return np.repeat((values // 257).astype(np.uint8)[..., None], 3, axis=2)
    if photo.mode == "F":
        raise ValueError("its values are floating-point numbers, not those of a photo")
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    return np.array(photo.convert("RGB"))


def center_square(rgb: np.ndarray, size: int, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """Crop uint8 (H, W, 3) to its center square, resized to (size, size, 3): OpenCV bilinear, nothing stretched."""
    height, width = rgb.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return cv2.resize(rgb[top : top + side, left : left + side], (size, size), interpolation=interpolation)


def reduced(rgb: np.ndarray, size: int) -> np.ndarray:
    """Return a photo (H, W, 3) reduced, not stretched, so that its shorter side is `size` pixels; never enlarged.

    Of a strip or panorama the longer side is at most eight times `size`.
    """
    height, width = rgb.shape[:2]
    share = min(1.0, size / min(height, width), 8 * size / max(height, width))
    target = max(1, round(width * share)), max(1, round(height * share))
    return cv2.resize(rgb, target, interpolation=cv2.INTER_AREA) if share < 1 else rgb


def to_tensor(rgb: np.ndarray) -> torch.Tensor:
    """Return a photo (H, W, 3) uint8 as a tensor (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255


def list_photos(folder: Path, suffixes: frozenset[str] | set[str] = frozenset(SUFFIXES)) -> list[Path]:
    """Return the photo files in a folder and below, sorted; folders that may not be opened are printed and passed over.

    suffixes: how the names end. Raises FileNotFoundError if there are none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}: name one that holds photos.")
    found = os.walk(folder, onerror=lambda error: print(f"passed over: {error}"))
    paths = [Path(parent, name) for parent, _, names in found for name in names]
    paths = [path for path in paths if path.suffix.lower() in suffixes and path.is_file()]
    if not paths:
        raise FileNotFoundError(f"{folder} holds no photos; looked for {', '.join(sorted(suffixes))} in it and below.")
    return sorted(paths)
