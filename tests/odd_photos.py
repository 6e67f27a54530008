"""Photos of every kind that people have, good and bad, made on the spot; and photos damaged at random."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

SHIPPED = Path(skimage.__file__).parent / "data"


def color(size=(300, 200)):
    """A real color photo as a Pillow image of a size (width, height)."""
    return Image.open(SHIPPED / "chelsea.png").convert("RGB").resize(size)


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def write_good(folder):
    """Write photos that must be used; return what each must look like, as a Pillow image, by file name."""
    photo, expected = color(), {}

    def save(name, image, looks=None, **options):
        image.save(folder / name, **options)
        expected[name] = looks or photo

    save("plain.jpg", photo, quality=95)
    save("plain.png", photo)
    save("photo.webp", photo, quality=95)
    save("UPPER.JPG", photo, quality=95)
    save("grün и 写真 🙂.jpg", photo, quality=95)
    save("n" * 240 + ".png", photo)
    save("opaque alpha.png", photo.convert("RGBA"))
    half = photo.copy()
    half.putalpha(Image.fromarray(np.where(np.arange(300) < 150, 255, 0)[None].repeat(200, 0).astype(np.uint8)))
    white = photo.copy()
    white.paste("white", (150, 0, 300, 200))
    save("half transparent.png", half, white)
    save("palette.png", photo.quantize(256), photo.quantize(256).convert("RGB"))
    save("animated.gif", photo.quantize(256), photo.quantize(256).convert("RGB"), save_all=True, append_images=[half])
    save("cmyk.jpg", photo.convert("CMYK"), quality=95)
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    save("exif.jpg", photo.rotate(90, expand=True), quality=95, exif=turned)
    gray = photo.convert("L")
    save("gray.jpg", gray, gray.convert("RGB"), quality=95)
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    save("16 bit.png", deep, gray.convert("RGB"))
    save("uncompressed.tif", photo)
    save("bitmap.bmp", photo)
    return expected


def write_bad(folder):
    """Write files that must be skipped; return their names."""
    photo = folder / "whole.jpg"
    color().save(photo, quality=95)
    data = photo.read_bytes()
    photo.unlink()
    files = {
        "zero bytes.jpg": b"",
        "text.jpg": b"This is no photo, whatever its name says.\n" * 20,
        "half.jpg": data[: len(data) // 2],
        "header only.jpg": data[:20],
        "bomb.png": png_header(60_000, 60_000),
        "cut.png": png_header(300, 200),
        "pickle.png": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    Image.fromarray(np.full((200, 300), 300, np.float32)).save(folder / "floats.tif")
    return [*files, "floats.tif"]


def write_small(folder):
    """Write photos that can be read and are too small; return their names."""
    color((1, 1)).save(folder / "one pixel.png")
    color((30_000, 8)).save(folder / "strip.png")
    return ["one pixel.png", "strip.png"]


def damaged(random, originals):
    """Return the bytes of a photo damaged in one of many ways, drawn from a numpy generator."""
    data = bytearray(originals[random.integers(len(originals))])
    kind = random.integers(6)
    if kind == 0:  # cut off
        return bytes(data[: random.integers(len(data))])
    if kind == 1:  # a stretch missing
        start = random.integers(len(data))
        del data[start : start + random.integers(1, 2000)]
    elif kind == 2:  # some bits flipped
        for i in random.integers(len(data), size=random.integers(1, 40)):
            data[i] ^= 1 << random.integers(8)
    elif kind == 3:  # the header scrambled
        for i in random.integers(min(len(data), 200), size=random.integers(1, 20)):
            data[i] = random.integers(256)
    elif kind == 4:  # a stretch overwritten
        start, length = random.integers(len(data)), random.integers(1, 500)
        data[start : start + length] = random.bytes(length)
    else:  # two photos spliced
        other = originals[random.integers(len(originals))]
        data = data[: random.integers(len(data))] + other[random.integers(len(other)) :]
    return bytes(data)


def originals():
    """Return small photos in many formats, as bytes."""

    found, exif = [], Image.Exif()
    exif[0x010E], exif[0x0112], exif[0x829A] = "grandmother, 1911", 6, (1, 125)
    told = {"exif": exif}
    for kind, options in (
        ("JPEG", told),
        ("JPEG", {"progressive": True}),
        ("PNG", told),
        ("WEBP", told),
        ("GIF", {}),
        ("TIFF", {"description": "grandmother, 1911"}),
    ):
        buffer = io.BytesIO()
        color((64, 48)).save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return found
