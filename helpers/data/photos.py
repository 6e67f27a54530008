"""Photos of any kind as arrays: reading, cropping, resizing, and finding them in folders."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps

with suppress(ImportError):  # HEIC, where it is installed
    from pillow_heif import register_heif_opener

    register_heif_opener()

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"}
SUFFIXES |= {".heif", ".jp2", ".j2k", ".tga", ".pgm", ".ppm", ".pnm"}
MAX_PIXELS = 178_956_970  # more may be a file that was made to fill the memory
ROTATION = 0x0112  # tags of EXIF data
DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)  # what, camera, program, when, who, whose


class Photo(NamedTuple):
    """A photo as it was read, with what its file says of it."""

    rgb: np.ndarray  # uint8 (H, W, 3), sRGB, upright
    details: dict[str, Any]  # as Pillow's `save` takes them: "exif" (without the rotation), "dpi", "icc_profile"
    pages: int  # of a TIFF; 1 for any other file


def read_photo(file: Any, page: int = 0, max_pixels: int | None = MAX_PIXELS) -> Photo:
    """Read a photo, or a page of a TIFF, once: the one place that turns a file into sRGB.

    file: a path, the bytes of a file, or a Pillow image. It comes rotated as its EXIF data say, over white if
    transparent, reduced to 8 bits. Raises OSError that names the file if it cannot be read or has more than
    `max_pixels` (None: any number).
    """
    Image.MAX_IMAGE_PIXELS = None  # checked here, with a message that says what to do
    try:
        with _opened(file) as photo:
            if max_pixels and photo.width * photo.height > max_pixels:
                raise ValueError(
                    f"{photo.width}x{photo.height} pixels are too many; max_pixels=None (on the command "
                    "line --large-scans) allows any number"
                )
            if page:
                photo.seek(page)
            rgb, in_memory = _pixels(ImageOps.exif_transpose(photo)), photo is file
            return Photo(rgb, {} if in_memory else _details(photo), count_pages(photo))
    except Exception as error:  # a damaged file can make a decoder fail in any way
        name, reason = file if isinstance(file, (str, Path)) else "the photo", str(error) or type(error).__name__
        if str(name).lower().endswith((".heic", ".heif")):
            reason = f"{reason}; HEIC needs `pip install pillow-heif`"
        raise OSError(f"{name} cannot be read as a photo: {reason}") from error


def read_rgb(path: str | Path) -> np.ndarray:
    """Return the pixels of `read_photo`, uint8 (H, W, 3)."""
    return read_photo(path).rgb


def count_pages(file: Any) -> int:
    """Return the number of pages of a TIFF; 1 for any other photo, and for one that cannot be read."""
    with suppress(Exception), _opened(file) as photo:  # reading it will say why
        return getattr(photo, "n_frames", 1) if photo.format == "TIFF" else 1
    return 1


def to_rgb(photo: Any, max_pixels: int | None = MAX_PIXELS) -> np.ndarray:
    """Return any photo as uint8 (H, W, 3).

    photo: whatever `read_photo` reads, or an array (H, W) or (H, W, 1, 3 or 4), uint8, uint16, or floating-point in
    [0, 1]. Raises what `read_photo` raises, and ValueError for an array that is no photo.
    """
    if isinstance(photo, (str, Path, bytes, Image.Image)):
        return read_photo(photo, 0, max_pixels).rgb
    array = np.asarray(photo)
    fractions = array.dtype.kind == "f" and array.size > 0 and np.nanmax(array) <= 1.001
    channels = array.shape[2] if array.ndim == 3 else 1
    known = fractions or array.dtype in (np.uint8, np.uint16)
    if not known or array.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(
            f"an array of {array.dtype} and shape {array.shape} is no photo; it must be (H, W) or (H, W, 1, 3 or 4), "
            "uint8, uint16 or floating-point in [0, 1]"
        )
    if fractions:
        array = np.rint(np.nan_to_num(array).clip(0, 1) * 255)
    array = (array // 257 if array.dtype == np.uint16 else array).reshape(*array.shape[:2], channels)
    return np.ascontiguousarray(array[..., :3] if channels > 1 else array.repeat(3, 2), np.uint8)


def _opened(file: Any) -> AbstractContextManager[Image.Image]:
    """Return a file as a Pillow image for a `with` block, which does not close what was open before."""
    if isinstance(file, Image.Image):
        return nullcontext(file)
    return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file)


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


def _details(photo: Image.Image) -> dict[str, Any]:
    """Return the EXIF data without the rotation, the resolution, and the color profile if that is for RGB."""
    found, profile = {}, photo.info.get("icc_profile")
    with suppress(Exception):  # damaged EXIF data fail in many ways
        exif = photo.getexif()
        for tag in list(exif):  # a TIFF's other tags are where it stores its pixels, and these are already rotated
            if tag == ROTATION or (photo.format == "TIFF" and tag not in DESCRIPTIVE):
                del exif[tag]
        if len(exif):
            found["exif"] = exif.tobytes()
    with suppress(Exception):
        if photo.info.get("dpi"):
            found["dpi"] = tuple(map(float, photo.info["dpi"]))
        if profile and ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space == "RGB ":
            found["icc_profile"] = profile
    return found


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
