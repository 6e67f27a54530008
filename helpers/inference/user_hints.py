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
from helpers.models.likely_colors import likely_colors

SQUARE = 5  # pixels on a side, as the network sees them, of the square that a point becomes
NO_HINTS = "these weights take no color hints: notebook 07_hints makes some that do"
PAINTED = 0.2  # share of a pixel, as the network sees it, that a stroke has to cover


@dataclass(frozen=True)
class Hint:
    """A color for a place of a photo: x and y in pixels from the upper left, color as "#rrggbb" or a name.

    Only its hue and chroma count; the lightness is the photo's. at: seconds into a film. Raises ValueError for a text
    that is no color, and for a place that is not two numbers.
    """

    x: float
    y: float
    color: str
    at: float = 0.0

    def __post_init__(self):
        try:
            if not np.isfinite([self.x, self.y, self.at]).all():
                raise ValueError("x, y and the time must be finite")
            ImageColor.getrgb(self.color)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{self} is no hint ({error}): numbers and a color such as #c03020 are needed") from error

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the hint of a text X,Y,COLOR or X,Y,COLOR@SECONDS; raises ValueError for any other text."""
        try:
            x, y, rest = text.split(",", 2)
            color, _, at = rest.partition("@")
            return cls(float(x), float(y), color.strip(), float(at or 0))
        except ValueError as error:
            raise ValueError(f"hint {text!r} is not X,Y,#rrggbb: {error}") from error


def read_hints(path: Path | str) -> list[Hint]:
    """Return the hints of a JSON file, a list such as [{"x": 120, "y": 80, "color": "#c03020"}].

    Questions of `--ask` whose color is still "" are left out. Raises FileNotFoundError, and ValueError that names the
    file for one that holds something else.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
        known = [{key: each[key] for key in each if key != "likely"} for each in json.loads(text)]
        return [Hint(**each) for each in known if each.get("color") != ""]
    except (TypeError, ValueError) as error:
        example = 'it must be a list such as [{"x": 120, "y": 80, "color": "#c03020"}]'
        raise ValueError(f"{path} holds no hints: {error}; {example}") from error


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
        row, column = int(hint.y * size[0] / photo[0]), int(hint.x * size[1] / photo[1])
        top, left = max(0, row - SQUARE // 2), max(0, column - SQUARE // 2)
        square = maps[0, :, top : row + SQUARE // 2 + 1, left : column + SQUARE // 2 + 1]
        rgb = torch.tensor(ImageColor.getrgb(hint.color)[:3]).view(1, 3, 1, 1) / 255
        square[:2], square[2] = rgb_to_L_ab(rgb)[1][0], 1
    return maps


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


def suggest_colors(generator: nn.Module, photo: np.ndarray, colored: np.ndarray, x: int, y: int) -> list[str]:
    """Return likely colors for a place of a photo, as "#rrggbb": the predicted one, then others, the likeliest first.

    photo, colored: uint8 (H, W, 3). See `likely_colors`; a generator without a palette proposes only the predicted one.
    """
    colors, palette = torch.from_numpy(colored[y, x])[None], getattr(generator, "palette", None)
    if palette is not None and palette.any():
        L, (_, ab) = (rgb_to_L_ab(to_tensor(rgb[y : y + 1, x : x + 1])) for rgb in (photo, colored))
        found = likely_colors(palette.float().cpu(), L[0], ab)[0, 0, 0]  # (8, 3)
        found = found[found[:, 2] > 0, :2]
        shown = to_photo(L[0].expand(len(found), -1, -1, -1), found.view(-1, 2, 1, 1))
        colors = torch.cat([colors, shown[..., 0, 0]])
    return [*dict.fromkeys(f"#{bytes(color).hex()}" for color in colors.tolist())]  # in black, all look alike
