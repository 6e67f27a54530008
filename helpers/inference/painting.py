"""The page's tab for hints: paint a color on the photo, or choose one that is likely at a place, and see it follow."""

from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np
from torch import nn

from helpers.data.photos import read_rgb, reduced
from helpers.inference.colorizer import Colorizer
from helpers.inference.folder import colorize_file, result_in
from helpers.inference.user_hints import Hint, likely_colors

SHOWN = 320  # pixels on the shorter side of the photo that is painted on, for speed; the download is of full size
EXPLAINED = """Drop a photo, choose a color for the brush, and paint where something has that color; a dab is enough.
Or click a place in the colored photo: likely colors for it appear below the photo; click one to use it."""
COLORS = ["#c03020", "#d08040", "#e0c060", "#609040", "#205030", "#4080c0", "#8050a0", "#907060", "#808080"]
BRUSH = gr.Brush(default_size=12, colors=COLORS, default_color=COLORS[0])


def said(editor: dict[str, Any] | None, points: list[Hint]) -> list[Hint | np.ndarray]:
    """Return the hints of the editor's layers, of which the composite knows nothing, and of points."""
    layers = (editor or {}).get("layers") or []
    return [layer for layer in layers if layer is not None and layer[..., 3].any()] + points


def load(file: str | None) -> tuple:
    """Return a new photo as it is shown, what stands in the editor, and no points; tell of what cannot be read."""
    if file is None:
        return None, None, [], []
    try:
        photo = reduced(read_rgb(file), SHOWN)
    except (OSError, ValueError) as error:
        raise gr.Error(str(error).replace(file, Path(file).name)) from error
    gray = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return photo, {"background": gray, "layers": [], "composite": gray}, [], []


def propose(generator: nn.Module, photo: np.ndarray, result: np.ndarray, place: list[int]) -> tuple:
    """Return a place that was clicked, colors that are likely there, and a swatch of each."""
    colors = likely_colors(generator, photo, result, *map(int, place))
    swatches = [(np.full((40, 40, 3), tuple(bytes.fromhex(color[1:])), np.uint8), color) for color in colors]
    return place, colors, swatches


def full_size(colorizer: Colorizer, file: str | None, photo: np.ndarray, hints: list, folder: str) -> gr.DownloadButton:
    """Color a file at its own size, with hints that were said on the photo as it is shown; return its download."""
    if file is None:
        raise gr.Error("Drop a photo first.")
    path, share = Path(file), len(read_rgb(file)) / len(photo)
    hints = [Hint(hint.x * share, hint.y * share, hint.color) if isinstance(hint, Hint) else hint for hint in hints]
    target = result_in(folder, path)
    try:
        colorize_file(path, target, colorizer, colorizer.options(), hints=hints)
    except (OSError, ValueError) as error:
        raise gr.Error(str(error).replace(file, path.name)) from error
    return gr.DownloadButton(f"Download {target.name}", value=str(target), visible=True)


def build(colorizer: Colorizer, folder: str) -> None:
    """Lay out the tab; results are written below a folder."""
    photo, points, place, colors = gr.State(), gr.State([]), gr.State(), gr.State([])
    gr.Markdown(EXPLAINED)
    file = gr.File(label="Photo", height=100, elem_id="hints-photo")
    with gr.Row():
        look = {"label": "Paint here", "brush": BRUSH, "layers": False, "transforms": (), "sources": (), "height": 320}
        editor = gr.ImageEditor(**look, format="png", elem_id="hints-editor")
        result = gr.Image(label="In color", interactive=False, format="png", elem_id="hints-result")
    likely = gr.Gallery(show_label=False, columns=12, height=90, allow_preview=False, elem_id="hints-likely")
    with gr.Row():
        back = gr.Button("Take the last chosen color back")
        whole = gr.Button("Color at full size", variant="primary")
    download, shown = gr.DownloadButton("Download", visible=False), [photo, editor, points]

    def _colorize(photo, editor, points):
        return None if photo is None else colorizer(photo, said(editor, points))

    def _propose(photo, result, event: gr.SelectData):
        return propose(colorizer.generator, photo, result, event.index)

    def _choose(place, colors, points, event: gr.SelectData):
        return [*points, Hint(*place, colors[event.index])]

    file.change(load, file, [*shown, likely]).then(_colorize, shown, result)
    # `change` of the editor misses first strokes and what is undone (gradio 6.31)
    gr.on([editor.input, points.change], _colorize, shown, result, trigger_mode="always_last", show_progress="hidden")
    result.select(_propose, [photo, result], [place, colors, likely])
    likely.select(_choose, [place, colors, points], points)
    back.click(lambda points: points[:-1], points, points)
    whole.click(lambda file, p, *more: full_size(colorizer, file, p, said(*more), folder), [file, *shown], download)
