"""Photos of every kind that people have, good and bad, made on the spot; and photos damaged at random."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import skimage
import tifffile
from PIL import Image, ImageCms

SHIPPED = Path(skimage.__file__).parent / "data"
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))  # D50 XYZ of R, G, B
STANDARD = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


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


def profile(space, gamma, primaries=()):
    """A color profile of a space (b"GRAY" or b"RGB "), with a gamma and the D50 XYZ of its primaries."""
    xyz = [b"XYZ " + struct.pack(">4i", 0, *(round(65536 * value) for value in color)) for color in primaries]
    curve = b"curv" + struct.pack(">IIHH", 0, 1, round(256 * gamma), 0)
    parts = {b"wtpt": b"XYZ " + struct.pack(">4i", 0, 63190, 65536, 54061)}
    parts |= dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), xyz, strict=False))
    parts |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC") if primaries else (b"kTRC",), curve)
    start, table = 132 + 12 * len(parts), b""
    for name, content in parts.items():
        table += name + struct.pack(">II", start, len(content))
        start += len(content)
    head = struct.pack(">IIB3x4s4s4s12x4s28x3i", start, 0, 2, b"mntr", space, b"XYZ ", b"acsp", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(parts)) + table + b"".join(parts.values())


def shown(values, gamma, primaries=None):
    """What a viewer shows for values in [0, 1], gray or in color, of a profile: sRGB, 0 to 255, by its definition."""
    light = np.asarray(values, float) ** gamma
    if primaries:
        light = (light @ np.array(primaries) @ np.linalg.inv(SRGB)).clip(0, 1)
    rgb = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light) * 255
    return rgb if primaries else np.stack(3 * [rgb], -1)


def unusual():
    """Files that can be misread, by name: their bytes, what they must look like (H, W, 3), and a word of the note."""
    photo = Image.fromarray(np.asarray(color((60, 40))))  # without its profile
    rgb, gray = np.asarray(photo) / 255, np.asarray(photo.convert("L")) / 255
    byte, deep = (gray * 255).astype(np.uint8), np.rint(gray * 65535).astype(np.uint16)
    plain, left = np.stack(3 * [byte], -1), np.where(np.arange(60) < 30, 255, 0).astype(np.uint8)[None].repeat(40, 0)
    half = photo.copy()
    half.putalpha(Image.fromarray(left))
    found = {}

    def add(name, image, looks, note="", **options):
        buffer = io.BytesIO()
        if isinstance(image, np.ndarray):
            tifffile.imwrite(buffer, image, **options)
        else:
            image.save(buffer, name.split(".")[-1], **options)
        found[name] = buffer.getvalue(), looks, note

    for gamma in (1.0, 1.8, 3.0):
        for name, values in {"gray": byte, "gray of 16 bits": deep}.items():
            icc = profile(b"GRAY", gamma)
            add(f"{name}, gamma {gamma}.png", Image.fromarray(values), shown(gray, gamma), icc_profile=icc)
    add("Adobe RGB.png", photo, shown(rgb, 2.2, ADOBE), icc_profile=profile(b"RGB ", 2.2, ADOBE))
    add("sRGB.png", photo, rgb * 255, icc_profile=STANDARD)
    add("damaged profile.png", photo, rgb * 255, "profile", icc_profile=b"damaged")
    add("profile of gray for color.png", photo, rgb * 255, "profile", icc_profile=profile(b"GRAY", 1))
    for bits in (10, 12, 14):
        add(f"{bits} bits.tiff", deep >> (16 - bits), plain, extratags=[(281, "H", 1, 2**bits - 1, True)])
    add("12 bits, not said.tiff", deep >> 4, plain, "12 bits")
    add("12 bits in color.tiff", np.rint(rgb * 4095).astype(np.uint16), rgb * 255, "12 bits", photometric="rgb")
    for order in "<>":
        add(f"white is 0 {order}.tiff", 65535 - deep, plain, photometric="miniswhite", byteorder=order)
    add("fractions.tiff", gray.astype(np.float32), plain)
    add("fractions in color.tiff", rgb.astype(np.float32), rgb * 255, photometric="rgb")
    white = np.where(left[..., None] > 0, rgb * 255, 255)
    (
        add("transparent.png", half, white),
        add("transparent gray.png", half.convert("LA"), np.where(white < 255, plain, 255)),
    )
    frames = {"save_all": True, "append_images": [photo.rotate(180), photo.rotate(90)]}
    for kind in ("gif", "png", "webp"):
        first = photo.quantize(256).convert("RGB") if kind == "gif" else photo
        options = frames | ({"lossless": True} if kind == "webp" else {})
        add(f"animated.{kind}", first, np.asarray(first), "its other frames .2.", **options)
    return found


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
