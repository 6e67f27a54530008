"""Colorizing one photo of any kind at its own size."""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import workspace
from helpers.color import lightness, rgb_to_L_ab, to_8bit_rgb
from helpers.config import bounded, check_fields, chosen
from helpers.data.dataset import unexplained
from helpers.data.photos import MAX_PIXELS, reduced, to_rgb, to_tensor
from helpers.inference.enlarger import ENOUGH, Enlarger
from helpers.inference.user_hints import Hint, hint_maps
from helpers.runs import BOX, IN_THE_BOX, find_run, load_network

STRIP = 2**16  # pixels to color at a time, so that memory does not grow with the photo
TINTED = 3.0  # CIE units; what lightness does not explain of the colors of gray or toned photos, at most
CHOICES = ("auto", "always", "never")
PERMISSIONS = ("enlarge_large", "large_scans")  # options that change no result


@dataclass(frozen=True)
class Options:
    """How a photo is colorized. Raises ValueError for an impossible value."""

    input_size: int | None = bounded(None, 32, 2048)  # pixels on the network's shorter side; None: as in training
    saturation: float = bounded(1.0, 0, 5)  # times the predicted chroma
    flip: bool = False  # average the predictions for the photo and its mirror image
    denoise: float = bounded(0.0, 0, 30)  # strength of OpenCV's non-local means, before
    contrast: float = bounded(0.0, 0, 40)  # limit of OpenCV's CLAHE, before; 2 is moderate
    enlarge: int = chosen(1, 2, 4)  # times as large, by super-resolution (notebook 09)
    enlarge_large: bool = False  # enlarge large photos too
    large_scans: bool = False  # read files of any number of pixels
    like: str = ""  # files and films: path of a color photo to follow; for one photo in Python: `reference_hints`
    keep_color: str = chosen(*CHOICES)  # what is in color; auto: shots in color of a gray film
    steady: float = bounded(0.9, 0, 0.99)  # films: share of a color carried over from the previous frame
    deinterlace: str = chosen(*CHOICES)  # films; auto: frames that are flagged or look interlaced

    def __post_init__(self):
        check_fields(self)

    @property
    def max_pixels(self) -> int | None:
        """Pixels that a file may have; None for any number."""
        return None if self.large_scans else MAX_PIXELS

    def refuse_large(self, height: int, width: int) -> None:
        """Raise ValueError for a photo that is too large to enlarge by default."""
        if self.enlarge > 1 and height * width > ENOUGH and not self.enlarge_large:
            raise ValueError(
                f"a photo of {width}x{height} pixels hardly gains by enlarging, which would take minutes. To do it all "
                "the same: --enlarge-large on the command line, enlarge_large=True in Python"
            )


def restore(rgb: np.ndarray, options: Options) -> np.ndarray:
    """Return a photo (H, W, 3) with less noise and more contrast, in gray, if the options ask for it."""
    if not options.denoise and not options.contrast:
        return rgb
    L = np.ascontiguousarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[..., 0])
    if options.denoise:
        L = cv2.fastNlMeansDenoising(L, None, options.denoise)
    if options.contrast:
        L = cv2.createCLAHE(options.contrast, (8, 8)).apply(L)
    return cv2.cvtColor(cv2.merge([L, *2 * [np.full_like(L, 128)]]), cv2.COLOR_LAB2RGB)


def in_color(rgb: np.ndarray) -> bool:
    """Say whether a photo (H, W, 3) has real colors, more than the one tint of a toned print."""
    return unexplained(rgb) > TINTED


class Colorizer:
    """A generator ready to colorize photos on this machine, in its fastest precision.

    generator: a network or the path of its weights; None for the most recent run, or the model in the box if there is
    none. enlarger: None for the most recent super-resolution, loaded when it is first needed. Raises FileNotFoundError
    for a missing file, ValueError for one that holds something else.
    """

    weights: Path | None = None

    def __init__(
        self, generator: nn.Module | Path | str | None = None, precision: str = "auto", enlarger: Enlarger | None = None
    ):
        self.accelerator = workspace.make_accelerator(precision, training=False)
        if enlarger:
            self.enlarger = enlarger
        if not isinstance(generator, nn.Module):
            run = None if generator else find_run(or_box=True)
            self.weights = Path(generator) if generator else run.file(run.phases()[-1])
            generator = load_network(self.weights)
            if hasattr(generator, "scale"):
                raise ValueError(f"{self.weights} holds a network for super-resolution, not a colorizer")
        self.input_size = getattr(generator, "trained_size", None) or 256
        self.references, self.describing = {}, threading.Lock()  # of `like`, described once
        self.predicting = threading.Lock()  # files are read and written in parallel, but predicted one at a time
        self.generator = generator.eval().to(self.accelerator.device, memory_format=torch.channels_last)

    def __str__(self) -> str:
        """Name the weights: their run, phase and size."""
        name = f"{self.weights.parent.name}/{self.weights.name}" if self.weights else "a generator"
        name = IN_THE_BOX if self.weights and self.weights.parent == BOX else name
        return f"{name}, trained at {self.input_size} px"

    @property
    def takes_hints(self) -> bool:
        """Whether the generator follows color hints."""
        return getattr(self.generator, "hint_attention", None) is not None

    @cached_property
    def enlarger(self) -> Enlarger:
        """The enlarger that was given, else the most recent one, loaded when it is first needed.

        Raises FileNotFoundError if there is none.
        """
        return Enlarger()

    def fingerprint(self, options: Options) -> dict[str, Any]:
        """Return all that a result depends on besides the photo: short hashes of the weights, and the options."""
        found = {name: value for name, value in asdict(options).items() if name not in PERMISSIONS}
        found["weights"] = weights_hash(self.generator)
        if options.like:  # another photo under the same name is another one
            found["like"] = hashlib.sha256(Path(options.like).read_bytes()).hexdigest()[:8]
        return found | ({"enlarger": weights_hash(self.enlarger.network)} if options.enlarge > 1 else {})

    def options(self, **options: Any) -> Options:
        """Return `Options`, with the size of the training photos as the default input size."""
        given = {name: value for name, value in options.items() if value is not None}
        return Options(**{"input_size": self.input_size} | given)

    def __call__(self, photo: Any, hints: Sequence[Hint | np.ndarray | Tensor] = (), **options: Any) -> np.ndarray:
        """Return a photo of any kind (see `to_rgb`) in color, uint8 (H, W, 3), at its own size; see `Options`.

        hints: colors for places of the photo, see `hint_maps`. Raises ValueError for hints that cannot be applied, and
        for `like`, which is for files.
        """
        options = self.options(**options)
        if options.like:
            raise ValueError("like= is for files: here give hints=[reference_hints(colorizer, photo, reference)]")
        if options.keep_color == "always" and in_color(rgb := to_rgb(photo, options.max_pixels)):
            return rgb
        rgb, L, size = self.prepare(photo, options)
        return render(rgb, self.predict_colors(L, options, hints, size))

    def prepare(self, photo: Any, options: Options) -> tuple[np.ndarray, Tensor, tuple[int, int]]:
        """Return a photo as uint8 (H, W, 3), restored and enlarged; the network's input L (1, 1, h, w); its own size.

        Raises OSError for an unreadable photo, ValueError for one too large to enlarge, FileNotFoundError if there is
        no enlarger.
        """
        rgb = restore(to_rgb(photo, options.max_pixels), options)
        size = rgb.shape[:2]
        options.refuse_large(*size)
        rgb = self.enlarger(rgb, options.enlarge) if options.enlarge > 1 else rgb
        return rgb, rgb_to_L_ab(to_tensor(reduced(rgb, options.input_size)))[0], size

    def predict_colors(
        self, L: Tensor, options: Options, hints: Sequence[Any] = (), photo: tuple[int, int] = (1, 1)
    ) -> Tensor:
        """Return ab (2, h, w) in [-1, 1] for L (1, 1, h, w), saturated as the options say, with hints applied.

        hints: see `hint_maps`; photo: height and width of the full photo, in whose pixels hints are given.
        """
        if not len(hints):
            return self.predict(L, options.flip)[0] * options.saturation
        maps = hint_maps(hints, photo, L.shape[-2:])
        # the network gets colors that become the hinted ones after saturation
        wanted = torch.cat([(maps[:, :2] / max(options.saturation, 0.2)).clamp(-1, 1), maps[:, 2:]], 1)
        ab = self.predict(L, options.flip, wanted) * options.saturation
        return torch.where(maps[:, 2:] == 1, maps[:, :2], ab)[0]

    def inputs(self, *maps: Tensor | None) -> list[Tensor]:
        """Return the maps (N, C, h, w) that are not None on the network's device, at least 33 pixels on each side."""
        height, width = maps[0].shape[-2:]
        small = (0, max(0, 33 - width), 0, max(0, 33 - height))
        return [F.pad(x, small, mode="replicate").to(self.accelerator.device) for x in maps if x is not None]

    @torch.inference_mode()
    def predict(self, L: Tensor, flip: bool = False, hints: Tensor | None = None) -> Tensor:
        """Return ab (N, 2, h, w) on the CPU for L (N, 1, h, w), both in [-1, 1], of any size, even one pixel.

        hints: maps (N, 3, h, w), see `HintAttention`. Raises ValueError if the generator takes none.
        """
        (height, width), inputs = L.shape[-2:], self.inputs(L, hints)
        with self.predicting, self.accelerator.autocast():
            ab = self.generator(*inputs).float()
            if flip:
                ab = (ab + self.generator(*(x.flip(-1) for x in inputs)).float().flip(-1)) / 2
        return ab[..., :height, :width].cpu()


def weights_hash(network: nn.Module) -> str:
    """Return a short hash of the weights."""
    some = torch.cat([weights.detach().flatten()[:64].float().cpu() for weights in network.parameters()])
    return hashlib.sha256(some.numpy().tobytes()).hexdigest()[:8]


def render(rgb: np.ndarray, ab: Tensor) -> np.ndarray:
    """Return a photo (H, W, 3) uint8 with its own lightness and the colors of a small ab (2, h, w) in [-1, 1]."""
    height, width = rgb.shape[:2]
    small = (128 * ab).permute(1, 2, 0).contiguous().numpy()
    tall, result, rows = cv2.resize(small, (small.shape[1], height)), np.empty_like(rgb), max(1, STRIP // width)
    for start in range(0, height, rows):
        part = slice(start, start + rows)
        L = lightness(rgb[part])
        result[part] = to_8bit_rgb(L, *cv2.split(cv2.resize(tall[part], L.shape[::-1])))
    return result
