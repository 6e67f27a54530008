"""An editor for color hints inside a notebook: click on the photo, and see it follow."""

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from PIL import Image

from helpers.data.photos import reduced, to_rgb
from helpers.inference.colorizer import Colorizer, render
from helpers.inference.user_hints import Hint

SHOWN = 400  # pixels on the shorter side of the photo in the editor


class HintEditor(anywidget.AnyWidget):
    """A photo on which clicks say colors; `said` is a list of `Hint`, in the full photo's pixels, whatever was clicked.

    photo: of any kind, see `to_rgb`; hints: those to begin with. Where no editor can be shown these are all there are.
    """

    _esm = Path(__file__).with_name("editor.js")
    picture = traitlets.Unicode().tag(sync=True)  # PNG in base64
    size = traitlets.List().tag(sync=True)  # height and width of the full photo
    hints = traitlets.List().tag(sync=True)  # dicts of x, y and color
    color = traitlets.Unicode("#c03020").tag(sync=True)

    def __init__(self, colorizer: Colorizer, photo: Any, hints: Sequence[Hint] = ()):
        self.colorizer, self.photo = colorizer, to_rgb(photo)
        super().__init__(size=[*self.photo.shape[:2]], hints=[asdict(hint) for hint in hints])
        self.observe(self._follow, "hints")
        self._follow()

    @property
    def said(self) -> list[Hint]:
        """The hints that were said so far."""
        return [Hint(**hint) for hint in self.hints]

    def colored(self) -> np.ndarray:
        """Return the photo as it follows the hints, uint8 (H, W, 3), at its own size."""
        return self.colorizer(self.photo, self.said)

    def _follow(self, change: Any = None) -> None:
        options = self.colorizer.options()
        small, L, _ = self.colorizer.prepare(reduced(self.photo, SHOWN), options)
        shown = render(small, self.colorizer.colors(L, options, self.said, self.photo.shape[:2]))
        Image.fromarray(shown).save(file := io.BytesIO(), "PNG")
        self.picture = base64.b64encode(file.getvalue()).decode()
