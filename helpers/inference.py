"""Colorizing one photo of any kind and size, at its own size."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from helpers import checkpoints, workspace
from helpers.color import rgb_to_L_ab
from helpers.selection import open_rgb, read_rgb
from helpers.upscaling import WAYS, Enlarger, paint, way_for

STRIP = 2**19  # pixels that are painted at a time: memory does not grow with the photo


@dataclass(frozen=True)
class Options:
    """How a photo is colorized; the defaults are the plain way.

    view: pixels on the shorter side of what the network sees; None for the size it was trained at. saturation: times
    the predicted chroma. flip: average the prediction with that of the mirrored photo. upscale: how colour is brought
    up to full size, one of `upscaling.WAYS`; "auto" is sharp where the prediction is clean, smooth where it is grainy.
    denoise: strength of OpenCV's non-local means before, 0 to 30. contrast: limit of OpenCV's CLAHE before, 0 for none,
    2 for some.

    Raises ValueError for a value that is not possible.
    """

    view: int | None = None
    saturation: float = 1.0
    flip: bool = False
    upscale: str = "auto"
    denoise: float = 0.0
    contrast: float = 0.0

    def __post_init__(self):
        for name, low, high in (("view", 32, 2048), ("saturation", 0, 5), ("denoise", 0, 30), ("contrast", 0, 40)):
            if getattr(self, name) is not None and not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)!r} is not possible; it must be from {low} to {high}")
        if self.upscale not in WAYS:
            raise ValueError(f"upscale={self.upscale!r} is not possible; choose one of {', '.join(WAYS)}")


def to_rgb(photo):
    """Return any photo as uint8 (H, W, 3): a path, the bytes of a file, a Pillow image or an array.

    Arrays are (H, W) or (H, W, 1, 3 or 4), uint8, uint16, or floating-point in [0, 1]. Raises OSError for a file that
    cannot be read, ValueError for an array that is no photo.
    """
    if isinstance(photo, (str, Path)):
        return read_rgb(Path(photo))
    if isinstance(photo, bytes):
        return open_rgb(io.BytesIO(photo), "the photo")
    if isinstance(photo, Image.Image):
        return open_rgb(photo, "the photo")
    array = np.asarray(photo)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(f"an array of shape {np.shape(photo)} is no photo; it must be (H, W) or (H, W, 1, 3 or 4)")
    if array.dtype == np.uint16:
        array = (array // 257).astype(np.uint8)
    elif array.dtype.kind == "f" and np.nanmax(array) <= 1.001:
        array = (np.nan_to_num(array).clip(0, 1) * 255).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f"an array of {array.dtype} is no photo; it must be uint8, uint16 or floating-point in [0, 1]")
    return np.ascontiguousarray(array[..., :3] if array.shape[2] > 1 else array.repeat(3, axis=2))


def restore(rgb, options):
    """Return a photo (H, W, 3) with less noise and more contrast, as far as the options say; then it is grey."""
    if not options.denoise and not options.contrast:
        return rgb
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
    L = np.ascontiguousarray(lab[..., 0])
    if options.denoise:
        L = cv2.fastNlMeansDenoising(L, None, options.denoise)
    if options.contrast:
        L = cv2.createCLAHE(options.contrast, (8, 8)).apply(L)
    return cv2.cvtColor(np.dstack([L, np.full_like(L, 128), np.full_like(L, 128)]), cv2.COLOR_LAB2RGB)


def reduced(rgb, view):
    """Return a photo (H, W, 3) reduced, not stretched, so that its shorter side is `view` pixels; never enlarged.

    Of a strip or panorama the longer side is at most eight times `view`.
    """
    height, width = rgb.shape[:2]
    share = min(1.0, view / min(height, width), 8 * view / max(height, width))
    size = max(1, round(width * share)), max(1, round(height * share))
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if share < 1 else rgb


def to_tensor(rgb):
    """Return a photo (H, W, 3) uint8 as a tensor (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255


def look(photo, options):
    """Return any photo as uint8 (H, W, 3), restored, and the L (1, 1, h, w) that the network sees of it."""
    rgb = restore(to_rgb(photo), options)
    return rgb, rgb_to_L_ab(to_tensor(reduced(rgb, options.view)))[0]


def in_half(generator, precision):
    """Keep the weights of a generator's convolutions as "bf16" or "fp16" at once; autocast would do it at each call."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    for module in generator.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            module.to(kind)
    return generator


class Colorizer:
    """A generator, ready to colorize photos on this machine in its own precision.

    generator: a `networks.Generator`, or the path of its weights; None for those of the run that was trained last.
    Raises FileNotFoundError when there are none, ValueError for a file that holds something else.
    """

    weights = None

    def __init__(self, generator=None, precision="auto"):
        if generator is None:
            generator = latest_weights()
        self.accelerator = workspace.make_accelerator(precision)
        if isinstance(generator, (str, Path)):
            self.weights = Path(generator)
            generator = in_half(checkpoints.load_generator(generator), self.accelerator.mixed_precision)
        self.view = getattr(generator, "trained_size", None) or 256
        torch.backends.cudnn.benchmark = False  # photos come in many sizes
        self.generator = generator.eval().to(self.accelerator.device, memory_format=torch.channels_last)

    def __str__(self):
        """Name the weights: their run, phase and size."""
        name = f"{self.weights.parent.name}/{self.weights.name}" if self.weights else "a generator"
        return f"{name}, trained at {self.view} px"

    def fingerprint(self):
        """Return eight digits that another training would not have."""
        some = torch.cat([weights.detach().flatten()[:64].float().cpu() for weights in self.generator.parameters()])
        return hashlib.sha256(some.numpy().tobytes()).hexdigest()[:8]

    def options(self, **options):
        """Return `Options`, with the size that this network was trained at where no view is given."""
        return Options(**{"view": self.view} | {name: value for name, value in options.items() if value is not None})

    @torch.inference_mode()
    def predict(self, L, flip=False):
        """Return ab (N, 2, h, w) on the CPU for L (N, 1, h, w), both in [-1, 1]; of any size, even one pixel."""
        height, width = L.shape[-2:]
        small = (0, max(0, 33 - width), 0, max(0, 33 - height))
        x = torch.nn.functional.pad(L, small, mode="replicate").to(self.accelerator.device)
        with self.accelerator.autocast():
            ab = self.generator(x).float()
            if flip:
                ab = (ab + self.generator(x.flip(-1)).float().flip(-1)) / 2
        return ab[..., :height, :width].cpu()

    def __call__(self, photo, **options):
        """Return a colorized photo, uint8 (H, W, 3), of the size of the one given; see `Options` and `to_rgb`."""
        options = self.options(**options)
        rgb, L = look(photo, options)
        return render(rgb, L, self.predict(L, options.flip), options)


@torch.inference_mode()
def render(rgb, L, ab, options):
    """Return a photo (H, W, 3) with its own lightness and the colours of a prediction.

    L (1, 1, h, w) is what the network saw, ab (1, 2, h, w) what it said, both in [-1, 1]. Works in strips of the photo,
    in bounded memory.
    """
    height, width = rgb.shape[:2]
    enlarger = Enlarger(ab.shape[-2:], (height, width), way_for(L[0], ab[0], options.upscale))
    small = enlarger.prepare(ab[0] * options.saturation)
    result, rows = np.empty_like(rgb), max(1, STRIP // width)
    for start in range(0, height, rows):
        L = rgb_to_L_ab(to_tensor(rgb[start : start + rows]))[0]
        painted = paint(L, enlarger.rows(small, start, start + rows)[None])
        result[start : start + rows] = painted[0].permute(1, 2, 0).numpy()
    return result


def latest_weights():
    """Return the weights file of the run that was trained last; raises FileNotFoundError when there is none."""
    runs = checkpoints.runs()
    if not runs:
        raise FileNotFoundError(checkpoints.missing(workspace.folder("runs"), checkpoints.MADE_BY["adversarial"]))
    return runs[-1].file("adversarial" if runs[-1].has("adversarial") else "warmup")


if __name__ == "__main__":
    from helpers import folders  # only here, for it builds on this file

    folders.main()
