"""Photos of any kind as arrays: reading, cropping, resizing, and finding them in folders."""

import codecs
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin, UnidentifiedImageError

with suppress(ImportError):  # HEIC, where it is installed
    from pillow_heif import register_heif_opener

    register_heif_opener()

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"}
SUFFIXES |= {".heif", ".jp2", ".j2k", ".tga", ".pgm", ".ppm", ".pnm"}
MAX_PIXELS = 178_956_970  # more may be a file that was made to fill the memory
ROTATION = 0x0112  # tags of EXIF data
DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)  # what, camera, program, when, who, whose
BITS, PHOTOMETRIC, LARGEST = 258, 262, 281  # tags of a TIFF: bits per value, what 0 is, MaxSampleValue
TiffImagePlugin.OPEN_INFO[b"MM", 0, (1,), 1, (16,), ()] = "I;16B", "I;16B"  # white is zero: missing in Pillow 12
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
COLORS = np.stack(np.mgrid[0:256:15, 0:256:15, 0:256:15], -1).reshape(-1, 18, 3).astype(np.uint8)
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
BEGINNINGS = {  # of files that have another kind's name
    "a Git LFS pointer, not the file itself: run `git lfs pull`": b"version https://git-lfs",
    "a web page that was saved instead of the file: download it again": (b"<!doctype html", b"<html"),
    "a pickle (.pth, .pt) or archive, which is never loaded: it could run code": (b"pk\x03\x04", b"\x80"),
}
_opening = threading.Lock()


class Photo(NamedTuple):
    """A photo as it was read, with what its file says of it."""

    rgb: np.ndarray  # uint8 (H, W, 3), sRGB, upright, over white if transparent
    details: dict[str, Any]  # as Pillow's `save` takes them: "exif" (without the rotation), "dpi", "icc_profile" (sRGB)
    pages: int  # of a TIFF; 1 for any other file
    opacity: np.ndarray | None  # uint8 (H, W); None if nothing is transparent
    notes: list[str]  # a sentence for each thing that the user may not expect


def read_photo(file: Any, page: int = 0, max_pixels: int | None = MAX_PIXELS) -> Photo:
    """Read a photo, or a page of a TIFF, once: the one place that turns a file into sRGB.

    file: a path, the bytes of a file, or a Pillow image; what counts is the content, not the name. It comes rotated as
    its EXIF data say, and converted by its color profile (of gray, RGB or CMYK; without one it counts as sRGB). In a
    TIFF of 16 bits, 0 is black or white as its tags say, and the other end is MaxSampleValue, rounded up to whole bits;
    without that, 12 bits if no value exceeds 4095. Floating-point values must lie in [0, 1]. Of an animation, the first
    frame is read. Notes name a guessed range, an ignored profile and frames that are left out. Raises OSError that
    names the file if it cannot be read or has more than `max_pixels` (None: any number).
    """
    name, content = ("the photo", file) if isinstance(file, (bytes, Image.Image)) else (file, b"")
    try:
        content = content or Path(file).read_bytes()
        with _opened(content) as photo:
            if max_pixels and photo.width * photo.height > max_pixels:
                raise ValueError(f"{photo.width}x{photo.height} pixels; max_pixels=None (--large-scans) allows so many")
            if page:
                photo.seek(page)
            notes, tags = _animated(photo), getattr(photo, "tag_v2", {})
            upright = ImageOps.exif_transpose(photo)
            profile = photo.info.get("icc_profile") if photo.mode != "LAB" else None  # Pillow knows that one itself
            if upright.mode in ("RGB", "RGBA") and np.max(tags.get(BITS, 8)) == 16 and photo is not file:
                upright = Image.fromarray((_to_16_bits(_deep(content, page), tags, notes) >> 8).astype(np.uint8))
            rgb, opacity, profile = _pixels(upright, profile, tags, notes)
            details = {} if photo is file else _details(photo) | ({"icc_profile": profile} if profile else {})
            return Photo(rgb, details, count_pages(photo), opacity, notes)
    except Exception as error:  # a damaged file can make a decoder fail in any way
        kind = "" if isinstance(content, Image.Image) else disguised(content)
        reason = f"it is {kind}" if kind else str(error) or type(error).__name__
        raise OSError(f"{name} cannot be read as a photo: {reason}") from error


def disguised(file: bytes | Path) -> str:
    """Say what a file is by its first bytes, if neither photo, film nor weights, and what to do; "" if unknown."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            file = opened.read(512)
    if file[4:8] == b"ftyp" and file[8:12] in HEIC and "HEIF" not in Image.OPEN:
        return "in the format HEIC, which needs `pip install pillow-heif`"
    start = b"" if file[8:10] == b'{"' else file[:512].removeprefix(codecs.BOM_UTF8).lstrip()  # safetensors' header
    for kind, beginnings in BEGINNINGS.items():
        if start.lower().startswith(beginnings):
            return kind
    with suppress(UnicodeDecodeError):  # the last character may be cut off
        return "a text" if start and all(map(str.isprintable, codecs.utf_8_decode(start)[0].split())) else ""
    return ""


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


@contextmanager
def _opened(file: Any) -> Iterator[Image.Image]:
    """Open a path or the bytes of a file as a Pillow image for a `with` block; one that is open stays so."""
    if isinstance(file, Image.Image):
        yield file
        return
    with _opening:  # Pillow's limit is that of the whole process: it is put back at once
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            photo = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file)
        except UnidentifiedImageError:
            photo = Image.fromarray((_to_16_bits(_deep(file, 0), {}, []) >> 8).astype(np.uint8))
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with photo:
        yield photo


def _animated(photo: Image.Image) -> list[str]:
    with suppress(Exception):  # a damaged frame after the first
        if photo.format not in ("TIFF", "MPO") and photo.n_frames > 1:
            return [f"it is animated: its other frames ({photo.n_frames - 1}) are left out"]
    return []


def _deep(content: bytes, page: int) -> np.ndarray:
    """Return a page of a TIFF as it is stored, upright: colors of more than 8 bits, which Pillow reads in 8 or not."""
    content = np.frombuffer(content if content[:2] in (b"II", b"MM") else b"no TIFF", np.uint8)
    found = cv2.imdecodemulti(content, cv2.IMREAD_UNCHANGED, range=(page, page + 1))[1]
    if not found or found[0].dtype == np.uint8:
        raise ValueError("its kind is unknown")
    return found[0] if found[0].ndim == 2 else found[0][..., [2, 1, 0, 3][: found[0].shape[2]]]


def _pixels(photo: Image.Image, profile: bytes | None, tags: Any, notes: list[str]) -> tuple[np.ndarray, Any, Any]:
    """Return a photo's pixels and opacity, as `Photo` has them, and its color profile if that is sRGB."""
    gray, values, opacity = photo.mode in ("1", "L", "LA", "La"), None, None
    if photo.mode[0] in "IF":
        values, gray = _to_16_bits(np.asarray(photo), tags, notes), True
        photo = Image.fromarray((values // 257).astype(np.uint8))
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        opacity = photo.getchannel("A")
    photo = photo.convert("L" if gray else "CMYK" if photo.mode == "CMYK" else "RGB")
    try:
        photo, profile = _to_srgb(photo, values, profile) if profile else (photo, None)
    except Exception:  # a damaged profile fails in many ways
        profile = None
        notes.append("its color profile is damaged or for another kind of photo, and was ignored")
    photo = photo.convert("RGB")
    if opacity is None or opacity.getextrema()[0] == 255:
        return np.array(photo), None, profile
    photo.putalpha(opacity)
    whole = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo)
    return np.array(whole.convert("RGB")), np.array(opacity), profile


def _to_16_bits(values: np.ndarray, tags: Any, notes: list[str]) -> np.ndarray:
    """Return values of more than 8 bits, gray or in color, as uint16: 0 for black and 65535 for white."""
    peak, bits, floats = values.max(), 16, values.dtype.kind == "f"
    if not 0 <= values.min() <= peak <= (1.001 if floats else 65535):
        raise ValueError(f"its values, of the type {values.dtype}, have no known range: scale them to 8 bits or [0, 1]")
    if floats:
        values = np.rint(values.clip(0, 1) * 65535)
    else:
        stored = np.min(tags.get(BITS, 16))
        bits = int(np.max(tags.get(LARGEST, 2**stored - 1 if stored < 16 else 0))).bit_length()
        if not 0 < bits <= 16 or peak >= 2**bits:  # not stated, or wrongly
            bits = 12 if peak < 2**12 else 16
            notes += ["no value exceeds 4095, so that was taken for white (12 bits)"] if bits == 12 else []
    values = (values.astype(np.int64) * 65535 // (2**bits - 1)).astype(np.uint16)
    return 65535 - values if tags.get(PHOTOMETRIC) == 0 else values


def _to_srgb(photo: Image.Image, values: np.ndarray | None, profile: bytes) -> tuple[Image.Image, bytes | None]:
    """Return a photo in sRGB, and its color profile if that is sRGB; values: of a gray photo of 16 bits, (H, W)."""
    own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = own.profile.xcolor_space
    convert = partial(ImageCms.profileToProfile, inputProfile=own, outputProfile=SRGB, outputMode="RGB")
    if (space, photo.mode) == (
        "GRAY",
        "L",
    ):  # by a table of tones; with its optimizations, LittleCMS interpolates in 8 bits
        tones = Image.fromarray(np.arange(65536, dtype=np.uint16)[None])
        table = np.array(convert(tones, flags=ImageCms.Flags.NOOPTIMIZE))[0]
        return Image.fromarray(table[np.asarray(photo) * np.uint16(257) if values is None else values]), None
    photo = photo.convert("RGB") if (space, photo.mode) == ("RGB ", "L") else photo
    if space == "RGB " and np.abs(np.array(convert(Image.fromarray(COLORS))).astype(int) - COLORS).max() <= 2:
        return photo.convert("RGB"), profile  # it is sRGB
    return convert(photo), None  # fails for a profile of another kind


def _details(photo: Image.Image) -> dict[str, Any]:
    """Return the EXIF data without the rotation, and the resolution."""
    found = {}
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
