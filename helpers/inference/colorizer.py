"""Colorizing one photo of any kind and size, at its own size."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from helpers import workspace
from helpers.color import rgb_to_L_ab
from helpers.config import bounded, check_fields, chosen
from helpers.data.photos import reduced, to_rgb, to_tensor
from helpers.inference.enlarger import ENOUGH, Enlarger
from helpers.inference.upscaling import enlarger, to_photo
from helpers.inference.user_hints import Hint, hint_maps
from helpers.runs import BOX, IN_THE_BOX, find_run, load_network

STRIP = 2**19  # pixels that are colored at a time: memory does not grow with the photo


@dataclass(frozen=True)
class Options:
    """How a photo is colorized; the defaults are the plain way. Raises ValueError for a value that is not possible."""

    input_size: int | None = bounded(None, 32, 2048)  # shorter side of what the network sees; None: as it was trained
    saturation: float = bounded(1.0, 0, 5)  # times the predicted chroma
    flip: bool = False  # average the prediction with that of the mirrored photo
    denoise: float = bounded(0.0, 0, 30)  # strength of OpenCV's non-local means before
    contrast: float = bounded(0.0, 0, 40)  # limit of OpenCV's CLAHE before; 2 is some
    enlarge: int = chosen(1, 2, 4)  # times as large, by the super-resolution of notebook 09
    enlarge_large: bool = False  # even what is large already
    steady: float = bounded(0.9, 0, 0.99)  # films: share of a color that stays from frame to frame; 0 is none
    both_ways: bool = True  # films: colors come from the frames after too

    def __post_init__(self):
        check_fields(self)

    def refuse_large(self, height: int, width: int) -> None:
        """Raise ValueError for a size that is not to be enlarged."""
        if self.enlarge > 1 and height * width > ENOUGH and not self.enlarge_large:
            raise ValueError(
                f"the photo has {width}x{height} pixels already, and enlarging is for small photos: what a network "
                f"adds is invented, and {self.enlarge * width}x{self.enlarge * height} pixels take minutes. To do it "
                "all the same, use --enlarge-large on the command line, enlarge_large=True in Python"
            )


def restore(rgb: np.ndarray, options: Options) -> np.ndarray:
    """Return a photo (H, W, 3) with less noise and more contrast, as far as the options say; then it is gray."""
    if not options.denoise and not options.contrast:
        return rgb
    L = np.ascontiguousarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[..., 0])
    if options.denoise:
        L = cv2.fastNlMeansDenoising(L, None, options.denoise)
    if options.contrast:
        L = cv2.createCLAHE(options.contrast, (8, 8)).apply(L)
    return cv2.cvtColor(np.dstack([L, np.full_like(L, 128), np.full_like(L, 128)]), cv2.COLOR_LAB2RGB)


def in_half(generator: nn.Module, precision: str) -> nn.Module:
    """Keep the weights of a generator's convolutions as "bf16" or "fp16" at once; autocast would do it at each call."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    for module in generator.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.to(kind)
    return generator


class Colorizer:
    """A generator, ready to colorize photos on this machine in its own precision.

    generator: a network, or the path of its weights; None for those of the run that was trained last, or where there is
    none for the model in the box. enlarger: what makes photos larger; None for the super-resolution that was trained
    last, when it is first asked for.
    Raises FileNotFoundError when a file is not there, ValueError for one that holds something else.
    """

    weights = None

    def __init__(
        self,
        generator: nn.Module | Path | str | None = None,
        precision: str = "auto",
        enlarger: Enlarger | None = None,
    ):
        self.accelerator, self.enlarger = workspace.make_accelerator(precision), enlarger
        if not isinstance(generator, nn.Module):
            self.weights = Path(generator or latest_weights())
            generator = in_half(load_network(self.weights), self.accelerator.mixed_precision)
            if hasattr(generator, "scale"):
                raise ValueError(f"{self.weights} holds a network for super-resolution, not a colorizer")
        self.input_size = getattr(generator, "trained_size", None) or 256
        torch.backends.cudnn.benchmark = False  # photos come in many sizes
        self.generator = generator.eval().to(self.accelerator.device, memory_format=torch.channels_last)

    def __str__(self) -> str:
        """Name the weights: their run, phase and size."""
        name = f"{self.weights.parent.name}/{self.weights.name}" if self.weights else "a generator"
        name = IN_THE_BOX if self.weights and self.weights.parent == BOX else name
        return f"{name}, trained at {self.input_size} px"

    @property
    def takes_hints(self) -> bool:
        """Whether the generator follows color hints."""
        return getattr(getattr(self.generator, "encoder", None), "hint_conv", None) is not None

    def fingerprint(self) -> str:
        """Return eight digits that another training would not have."""
        return digits_of(self.generator)

    def made_with(self, options: Options) -> dict[str, Any]:
        """Return what tells results of one kind from others: the options, and digits that no other training has."""
        told = {"weights": self.fingerprint()} | asdict(options)
        return told | ({"enlarger": digits_of(self.larger().network)} if options.enlarge > 1 else {})

    def larger(self) -> Enlarger:
        """Return what enlarges; raises FileNotFoundError when no super-resolution was trained."""
        self.enlarger = self.enlarger or Enlarger()
        return self.enlarger

    def options(self, **options: Any) -> Options:
        """Return `Options`, with the size that this network was trained at where none is given."""
        given = {name: value for name, value in options.items() if value is not None}
        return Options(**{"input_size": self.input_size} | given)

    @torch.inference_mode()
    def predict(self, L: Tensor, flip: bool = False, hints: Tensor | None = None) -> Tensor:
        """Return ab (N, 2, h, w) on the CPU for L (N, 1, h, w), both in [-1, 1]; of any size, even one pixel.

        hints: maps (N, 3, h, w), see `training/hints.py`. Raises ValueError where the generator takes none.
        """
        height, width = L.shape[-2:]
        small = (0, max(0, 33 - width), 0, max(0, 33 - height))
        inputs = [nn.functional.pad(x, small, mode="replicate") for x in (L, hints) if x is not None]
        inputs = [x.to(self.accelerator.device) for x in inputs]
        with self.accelerator.autocast():
            ab = self.generator(*inputs).float()
            if flip:
                ab = (ab + self.generator(*(x.flip(-1) for x in inputs)).float().flip(-1)) / 2
        return ab[..., :height, :width].cpu()

    def colors(
        self, L: Tensor, options: Options, hints: Sequence[Hint | np.ndarray] = (), photo: tuple[int, int] = (1, 1)
    ) -> Tensor:
        """Return ab (2, h, w) in [-1, 1] for L (1, 1, h, w): as predicted, more or less saturated; hints as they say.

        hints: see `hint_maps`; photo: the full photo's height and width, which points are given in.
        """
        if not len(hints):
            return self.predict(L, options.flip)[0] * options.saturation
        said = hint_maps(hints, photo, L.shape[-2:])
        # the network is told what becomes the color that was said when the saturation has been turned
        told = torch.cat([(said[:, :2] / max(options.saturation, 0.2)).clamp(-1, 1), said[:, 2:]], 1)
        ab = self.predict(L, options.flip, told) * options.saturation
        return torch.where(said[:, 2:] > 0, said[:, :2], ab)[0]

    def prepare(self, photo: Any, options: Options) -> tuple[np.ndarray, Tensor, tuple[int, int]]:
        """Return any photo as uint8 (H, W, 3), restored and enlarged, the L (1, 1, h, w) that the network sees of it.

        Also its own height and width. Raises ValueError for a photo that cannot be read or is not to be enlarged,
        FileNotFoundError when no super-resolution was trained.
        """
        rgb = restore(to_rgb(photo), options)
        size = rgb.shape[:2]
        options.refuse_large(*size)
        rgb = self.larger()(rgb, options.enlarge) if options.enlarge > 1 else rgb
        return rgb, rgb_to_L_ab(to_tensor(reduced(rgb, options.input_size)))[0], size

    def __call__(self, photo: Any, hints: Sequence[Hint | np.ndarray] = (), **options: Any) -> np.ndarray:
        """Return a photo of any kind (see `to_rgb`) in color, uint8 (H, W, 3), of its own size; see `Options`.

        hints: colors for places of the photo, see `hint_maps`. Raises ValueError for hints that cannot be followed.
        """
        options = self.options(**options)
        rgb, L, size = self.prepare(photo, options)
        return render(rgb, self.colors(L, options, hints, size))


def digits_of(network: nn.Module) -> str:
    """Return eight digits that another training of a network would not have."""
    some = torch.cat([weights.detach().flatten()[:64].float().cpu() for weights in network.parameters()])
    return hashlib.sha256(some.numpy().tobytes()).hexdigest()[:8]


@torch.inference_mode()
def render(rgb: np.ndarray, ab: Tensor) -> np.ndarray:
    """Return a photo (H, W, 3) with its own lightness and the colors of a small ab (2, h, w) in [-1, 1].

    Works in strips of the photo, in bounded memory.
    """
    height, width = rgb.shape[:2]
    large, result, rows = enlarger(ab, (height, width)), np.empty_like(rgb), max(1, STRIP // width)
    for start in range(0, height, rows):
        L = rgb_to_L_ab(to_tensor(rgb[start : start + rows]))[0]
        result[start : start + rows] = to_photo(L, large(start, start + rows)[None])[0].permute(1, 2, 0).numpy()
    return result


def latest_weights() -> Path:
    """Return the weights file of the run that was trained last; where there is none, of the model in the box."""
    run = find_run(or_box=True)
    return run.file(run.phases()[-1])
