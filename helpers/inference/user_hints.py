"""A user's color hints, points or brush strokes on the full photo, as the maps that the network takes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import ImageColor
from torch import Tensor, nn

from helpers.color import rgb_to_L_ab, to_photo
from helpers.data.photos import to_tensor

SIDE = 5  # pixels, as the network sees them, of the square that a point stands for
PAINTED = 0.2  # share of a pixel, as the network sees it, that a stroke has to cover


@dataclass(frozen=True)
class Hint:
    """A color for a place of a photo: x and y in pixels from the upper left, color as "#rrggbb" or a name.

    Only its hue and chroma count; the lightness is the photo's. at: seconds into a film. Raises ValueError for a text
    that is no color.
    """

    x: float
    y: float
    color: str
    at: float = 0.0

    def __post_init__(self):
        if not all(isinstance(value, (int, float)) and np.isfinite(value) for value in (self.x, self.y, self.at)):
            raise ValueError(f"hint at {self.x!r}, {self.y!r}, {self.at!r}: all must be numbers, of pixels and seconds")
        try:
            ImageColor.getrgb(self.color)
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"hint {self.color!r} is no color; write one as #rrggbb, such as #c03020") from error

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the hint of a text X,Y,COLOR or X,Y,COLOR@SECONDS; raises ValueError for any other text."""
        x, _, rest = text.partition(",")
        y, _, rest = rest.partition(",")
        color, _, at = rest.partition("@")
        try:
            return cls(float(x), float(y), color.strip(), float(at or 0))
        except ValueError as error:
            raise ValueError(f"hint {text!r} is not X,Y,#rrggbb: {error}") from error


def read_hints(path: Path | str) -> list[Hint]:
    """Return the hints of a JSON file, a list such as [{"x": 120, "y": 80, "color": "#c03020"}].

    Raises FileNotFoundError, and ValueError that names the file for one that holds something else.
    """
    try:
        return [Hint(**hint) for hint in json.loads(Path(path).read_text("utf-8-sig"))]
    except (TypeError, ValueError) as error:
        example = 'it must be a list such as [{"x": 120, "y": 80, "color": "#c03020"}]'
        raise ValueError(f"{path} holds no hints: {error}; {example}") from error


def ab_of_color(color: str) -> Tensor:
    """Return the ab (2,) in [-1, 1] of a color."""
    rgb = torch.tensor(ImageColor.getrgb(color)[:3]).view(1, 3, 1, 1) / 255
    return rgb_to_L_ab(rgb)[1].flatten()


def hint_maps(hints: Sequence[Hint | np.ndarray | Tensor], photo: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Return the hints on a photo of (H, W) pixels as maps (1, 3, h, w) of the network's input `size` (h, w).

    hints: points, layers of brush strokes over the whole photo, uint8 (any height, any width, 4) with opacity last, or
    maps (1, 3, any height, any width) with weights; later ones replace earlier ones. Raises ValueError for a point
    outside the photo.
    """
    maps = torch.zeros(1, 3, *size)
    for hint in hints:
        if not isinstance(hint, Hint):
            painted = stroke_maps(hint, size) if isinstance(hint, np.ndarray) else F.interpolate(hint, size)
            maps = torch.where(painted[:, 2:] > 0, painted, maps)
            continue
        if not (0 <= hint.x < photo[1] and 0 <= hint.y < photo[0]):
            raise ValueError(f"hint at {hint.x:g}, {hint.y:g} lies outside the photo of {photo[1]}x{photo[0]} pixels")
        row, column = (int(at * less / more) for at, less, more in zip((hint.y, hint.x), size, photo, strict=True))
        rows, columns = (slice(max(0, i - SIDE // 2), i + SIDE // 2 + 1) for i in (row, column))
        maps[0, :2, rows, columns] = ab_of_color(hint.color).view(2, 1, 1)
        maps[0, 2, rows, columns] = 1
    return maps


def likely_colors(generator: nn.Module, photo: np.ndarray, colored: np.ndarray, x: int, y: int) -> list[str]:
    """Return likely colors for a place of a photo, as "#rrggbb": the predicted one, then common ones.

    photo, colored: uint8 (H, W, 3). Common colors are the most frequent ones of the training photos at that height and
    lightness; a generator without a palette proposes none.
    """
    own = to_tensor(colored[y : y + 1, x : x + 1])
    palette, (L, ab) = getattr(generator, "palette", None), rgb_to_L_ab(to_tensor(photo[y : y + 1, x : x + 1]))
    if palette is not None and palette.abs().max() > 0:
        heights, lights = palette.shape[:2]
        cell = int(heights * y / len(photo)), int((L.item() + 1) / 2 * (lights - 0.01))
        ab = palette[cell].float().cpu().view(-1, 2, 1, 1)
        own = torch.cat([own, to_photo(L.expand(len(ab), -1, -1, -1), ab).float() / 255])
    colors = (own[..., 0, 0] * 255).round().byte().tolist()
    return [f"#{bytes(color).hex()}" for color in colors]


def stroke_maps(layer: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Return a layer of brush strokes, uint8 (H, W, 4), as hints (1, 3, h, w) of their mean colors.

    The soft border of a brush counts as painted if its opacity is above one half.
    """
    painted = torch.from_numpy(layer[..., 3] > 127).float()
    ab = rgb_to_L_ab(to_tensor(np.ascontiguousarray(layer[..., :3])))[1][0]
    whole = torch.cat([ab * painted, painted[None]]).permute(1, 2, 0).numpy()
    small = torch.from_numpy(cv2.resize(whole, size[::-1], interpolation=cv2.INTER_AREA)).permute(2, 0, 1)[None]
    mask = (small[:, 2:] > PAINTED).float()
    return torch.cat([small[:, :2] / small[:, 2:].clamp(min=1e-6), mask], 1) * mask
