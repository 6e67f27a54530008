"""Photo files in color: each is read once, colored, and written with its details."""

import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from helpers.data.photos import read_photo
from helpers.files import write_atomically
from helpers.inference.colorizer import Colorizer, Options, in_color
from helpers.inference.suggestions import encode_reference, hints_like

JPEG = (".jpg", ".jpeg")
JPEG_SIDE = 65_535  # pixels on a side of a JPEG file
COLORED = "it was in color already: only its lightness was used"
KEPT = "it was in color already, and keeps its colors"


def colorize_file(
    source: Path, target: Path, colorizer: Colorizer, options: Options, quality: int = 95, hints: Sequence = ()
) -> list[str]:
    """Colorize a photo file into another, with its EXIF data, resolution and color profile; hints: see `hint_maps`.

    Returns a sentence for each thing that the user may not expect. Raises ValueError for a photo that cannot be read or
    colorized, FileExistsError for an existing target, OSError for one that cannot be written.
    """
    if target.suffix.lower() not in (*JPEG, ".png"):
        raise ValueError(f"{target}: choose a name that ends in .jpg or .png")
    if target.exists():
        raise FileExistsError(f"{target} exists already: choose another name, nothing is overwritten")
    content, notes = colorize_to_bytes(source, target, colorizer, options, quality, hints, None)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda path: path.write_bytes(content))
    return notes


def colorize_to_bytes(
    source: Path, target: Path, colorizer: Colorizer, options: Options, quality: int, hints: Sequence, page: int | None
) -> tuple[bytes, list[str]]:
    """Return a photo in color as the bytes of a target file, and notes as `colorize_file` does.

    page: of a TIFF; None for the first one, with a note if there are more. Raises ValueError for a photo that cannot
    be read or colorized.
    """
    try:
        photo = read_photo(source, page or 0, options.max_pixels)
        colored = KEPT if options.keep_color == "always" else COLORED
        notes = photo.notes + [colored] * in_color(photo.rgb)
        if photo.opacity is not None and target.suffix.lower() in JPEG:
            notes.append("it was transparent in places, which JPEG cannot hold: they are white now")
        if page is None and photo.pages > 1:
            notes.append(f"its other pages ({photo.pages - 1}) are left out: colorize its folder to get them")
        hints = [*like_hints(colorizer, photo.rgb, options), *hints]
        rgb = colorizer(photo.rgb, hints, **asdict(options) | {"like": ""})
        return encode(rgb, photo.details, target, quality, photo.opacity), notes
    except (OSError, ValueError) as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # a lack of memory has many types
        hint = f"with input_size={options.input_size}; a smaller one needs less memory"
        raise ValueError(f"{source} cannot be colorized {hint}: {error}") from error


def like_hints(colorizer: Colorizer, rgb: np.ndarray, options: Options) -> list[Any]:
    """Return the hints of the photo that `options.like` names, which is read and encoded once for many photos."""
    if not options.like:
        return []
    key = options.like, Path(options.like).stat().st_mtime_ns
    with colorizer.describing:
        if key not in colorizer.references:
            colorizer.references = {key: encode_reference(colorizer, options.like)}
        reference = colorizer.references[key]
    return [hints_like(colorizer, rgb, reference)]


def encode(
    rgb: np.ndarray, details: dict[str, Any], target: Path, quality: int = 95, opacity: np.ndarray | None = None
) -> bytes:
    """Return a photo (H, W, 3) as the bytes of a JPEG or PNG file, with those details that can be written.

    details, opacity: of the file it was read from, see `Photo`; only PNG holds the opacity. Raises ValueError for a
    photo too large for JPEG.
    """
    jpeg = target.suffix.lower() in JPEG
    if jpeg and max(rgb.shape) > JPEG_SIDE:
        raise ValueError(f"{target}: a JPEG file holds at most {JPEG_SIDE:,} pixels on a side: choose PNG")
    how = {"format": "JPEG", "quality": quality, "subsampling": 0} if jpeg else {"format": "PNG", "compress_level": 3}
    photo = Image.fromarray(rgb) if jpeg or opacity is None else behind_white(rgb, opacity)
    try:
        photo.save(buffer := io.BytesIO(), **how, **details)
    except Exception:  # damaged EXIF data fail in many ways
        photo.save(buffer := io.BytesIO(), **how)
    return buffer.getvalue()


def behind_white(rgb: np.ndarray, opacity: np.ndarray) -> Image.Image:
    """Return the transparent photo that looks like rgb (H, W, 3) over white; opacity: uint8 of any size."""
    opacity = np.array(Image.fromarray(opacity).resize(rgb.shape[1::-1]))
    own = 255 - (255.0 - rgb) * 255 / opacity.clip(1)[..., None]
    return Image.fromarray(np.dstack([np.rint(own.clip(0, 255)).astype(np.uint8), opacity]))
