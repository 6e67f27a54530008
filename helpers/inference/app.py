"""A page for the browser: drop photos and films, paint hints, download. `python -m helpers.inference.app`."""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported: nothing leaves the machine

import cv2
import gradio as gr
import numpy as np
from PIL import Image

from helpers.data.photos import read_rgb, reduced
from helpers.inference import film
from helpers.inference.colorizer import Colorizer, Options
from helpers.inference.folder import colorize_file, target_of
from helpers.inference.steadying import colorize_film
from helpers.inference.suggestions import answers, reference_hints
from helpers.inference.user_hints import Hint, likely_colors

PREVIEW = 900  # pixels on the shorter side of a preview; the download has full size
SHOWN = 320  # pixels on the shorter side of the photo to paint on, for speed
KEPT = 24 * 3600  # seconds before the page's copies of uploads are deleted
SWEPT = 600  # seconds before a finished result is deleted
INTRODUCTION = """# Colorize your photos
Drop photos below; they stay on the machine that runs this page. The colors are a **guess**: the model chooses what was
likely in the photos it learned from. It cannot know the color of a dress, a car or a uniform."""
EXPLAINED = """Drop a photo, choose a color for the brush, and paint where something has that color; a dab is enough.
Or click a place in the colored photo: likely colors for it appear below the photo; click one to use it."""
COLORS = ["#c03020", "#d08040", "#e0c060", "#609040", "#205030", "#4080c0", "#8050a0", "#907060", "#808080"]
BRUSH = gr.Brush(default_size=12, colors=COLORS, default_color=COLORS[0])
SATURATION = {"minimum": 0, "maximum": 3, "step": 0.05, "label": "Saturation", "info": "0 is gray, 1 as predicted"}


def place_for(folder: str, path: Path) -> Path:
    """Return a new place below a folder for a file's colorized version; two files may have the same name."""
    target = Path(tempfile.mkdtemp(dir=folder), target_of(path))
    return target.with_stem(f"{target.stem}-in-color")


def message(error: Exception, file: str) -> str:
    """Return an error's text, with the name of an uploaded file in place of its path."""
    text, name = str(error).replace(file, Path(file).name), Path(file).name
    return text if name in text else f"{name}: {text}"


def colorize_upload(file: str, folder: str, colorizer: Colorizer, options: Options) -> dict[str, str]:
    """Colorize an uploaded photo; returns its title, previews before and after, and the result's path."""
    path = Path(file)
    if path.suffix.lower() in film.SUFFIXES:
        raise ValueError("this is a film: drop it on the tab Films")
    target = place_for(folder, path)
    colorize_file(path, target, colorizer, options)
    shown = {"before": read_rgb(file), "after": read_rgb(target)}
    for name, rgb in shown.items():
        Image.fromarray(reduced(rgb, PREVIEW)).save(target.parent / f"{name}.jpg", quality=90)
    height, width = shown["after"].shape[:2]
    title = f"{path.name}, {width}x{height}"
    return {"title": title, "result": str(target)} | {name: str(target.parent / f"{name}.jpg") for name in shown}


def sweep(folder: str) -> None:
    """Delete results that the page has copied long ago."""
    for old in Path(folder).iterdir():
        if time.time() - old.stat().st_mtime > SWEPT and not any(old.glob(".*.parts")):  # no film in progress
            shutil.rmtree(old, ignore_errors=True)


def build(colorizer: Colorizer | None = None, tabs: Sequence[str] = ("Photos", "Films", "Hints")) -> gr.Blocks:
    """Return the page, or some of its tabs, ready to `launch`; without a `Colorizer`, with the most recent weights."""
    colorizer = colorizer or Colorizer()
    layouts = {"Photos": photos_tab, "Films": films_tab, "Hints": hints_tab}
    with gr.Blocks(title="Colorize your photos", delete_cache=(3600, KEPT)) as page:
        page.folder = tempfile.TemporaryDirectory(prefix="colorize-", ignore_cleanup_errors=True)
        gr.Markdown(f"{INTRODUCTION} Weights: {colorizer}.")
        for name in tabs:
            with gr.Tab(name):
                layouts[name](colorizer, page.folder.name)
    return page


def photos_tab(colorizer: Colorizer, folder: str) -> None:
    """Lay out the tab for photos; results are written below a folder."""
    size, results = colorizer.input_size, gr.State([])
    with gr.Row():
        with gr.Column(scale=1):
            files = gr.File(label="Photos", file_count="multiple", height=180)
            sizes = min(64, size), max(768, size), size
            fields = {
                "saturation": gr.Slider(value=1, **SATURATION),
                "input_size": gr.Slider(*sizes, step=1, label="Input size", info="pixels that the network sees"),
                "flip": gr.Checkbox(label="Average with the mirrored photo"),
                "denoise": gr.Slider(0, 30, 0, step=1, label="Remove noise"),
                "contrast": gr.Slider(0, 10, 0, step=0.5, label="Raise contrast"),
                "enlarge": gr.Checkbox(label="Enlarge four times", info="for small photos"),
            }
        with gr.Column(scale=3):
            gr.render(inputs=results)(_show)

    def _colorize(files, *values, progress=gr.Progress()):  # noqa: B008
        sweep(folder)
        chosen, done = dict(zip(fields, values, strict=True)), []
        options = colorizer.options(**chosen | {"enlarge": 4 if chosen["enlarge"] else 1})
        for file in progress.tqdm(files or [], unit="photos"):
            try:
                done.append(colorize_upload(file, folder, colorizer, options))
            except (OSError, ValueError, MemoryError) as error:
                gr.Warning(message(error, file), duration=20)
        return done

    inputs = [files, *fields.values()]
    # a slider that is dragged changes often
    gr.on([part.change for part in inputs], _colorize, inputs, results, trigger_mode="always_last")


def _show(results: list[dict[str, str]]) -> None:
    """Lay out results: a slider between before and after, and a download button for each."""
    for result in results:
        gr.ImageSlider((result["before"], result["after"]), label=result["title"], interactive=False, max_height=700)
        gr.DownloadButton(f"Download {Path(result['result']).name}", value=result["result"])


def films_tab(colorizer: Colorizer, folder: str) -> None:
    """Lay out the tab for a film."""
    with gr.Row():
        with gr.Column(scale=1):
            file = gr.File(label="Film", file_types=sorted(film.SUFFIXES), height=180)
            saturation = gr.Slider(value=1, **SATURATION)
            steady = gr.Slider(0, 0.95, 0.9, step=0.05, label="Steadiness", info="0 colors each frame by itself")
            start, download = gr.Button("Colorize the film"), gr.DownloadButton(visible=False)
        player = gr.Video(label="In color", interactive=False, scale=3)

    def _colorize(file, saturation, steady, progress=gr.Progress(track_tqdm=True)):  # noqa: B008
        if file is None:
            raise gr.Error("Drop a film first.")
        target = place_for(folder, Path(file))
        try:
            lost = colorize_film(file, target, colorizer, saturation=saturation, steady=steady)
        except (OSError, ValueError) as error:
            raise gr.Error(message(error, file)) from error
        if lost:
            gr.Warning("; ".join(lost), duration=20)
        return str(target), gr.DownloadButton(f"Download {target.name}", value=str(target), visible=True)

    inputs = [file, saturation, steady]
    start.click(_colorize, inputs, [player, download])
    # a result belongs to its inputs
    gr.on([part.change for part in inputs], lambda: (None, gr.DownloadButton(visible=False)), None, [player, download])


def hints_of_page(editor: dict[str, Any] | None, points: list[Hint]) -> list[Hint | np.ndarray]:
    """Return the brush layers of the editor, and the points."""
    layers = (editor or {}).get("layers") or []
    return [layer for layer in layers if layer is not None and layer[..., 3].any()] + points


def load(file: str | None) -> tuple:
    """Return a new photo as it is shown, the editor's content, no points, no proposed colors and no answers."""
    if file is None:
        return None, None, [], [], []
    try:
        photo = reduced(read_rgb(file), SHOWN)
    except (OSError, ValueError) as error:
        raise gr.Error(message(error, file)) from error
    gray = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return photo, {"background": gray, "layers": [], "composite": gray}, [], [], []


def full_size(colorizer: Colorizer, file: str | None, photo: np.ndarray, hints: list, folder: str) -> gr.DownloadButton:
    """Color a file at its own size with hints that were given on the photo as shown; return its download."""
    if file is None:
        raise gr.Error("Drop a photo first.")
    path = Path(file)
    try:
        share, target = len(read_rgb(file)) / len(photo), place_for(folder, path)
        hints = [Hint(hint.x * share, hint.y * share, hint.color) if isinstance(hint, Hint) else hint for hint in hints]
        colorize_file(path, target, colorizer, colorizer.options(), hints=hints)
    except (OSError, ValueError) as error:
        raise gr.Error(message(error, file)) from error
    return gr.DownloadButton(f"Download {target.name}", value=str(target), visible=True)


def hints_tab(colorizer: Colorizer, folder: str) -> None:
    """Lay out the tab for hints: paint a color, or choose a likely one for a place."""
    if not colorizer.takes_hints:
        gr.Markdown("These weights take no color hints. Notebook 07_hints trains some that do.")
        return
    photo, points, place, colors = gr.State(), gr.State([]), gr.State(), gr.State([])
    gr.Markdown(EXPLAINED)
    file = gr.File(label="Photo", height=100, elem_id="hints-photo")
    with gr.Row():
        look = {"label": "Paint here", "brush": BRUSH, "layers": False, "transforms": (), "sources": (), "height": 320}
        editor = gr.ImageEditor(**look, format="png", elem_id="hints-editor")
        result = gr.Image(label="In color", interactive=False, format="png", elem_id="hints-result")
    likely = gr.Gallery(show_label=False, columns=12, height=90, allow_preview=False, elem_id="hints-likely")
    with gr.Accordion("Color it like another photo, or see several answers", open=False), gr.Row():
        like = gr.Image(label="Like this photo", type="numpy", height=200)
        follow = gr.Slider(0, 1, 1, step=0.05, label="How much to follow")
        several = gr.Gallery(label="Several answers", columns=4, height=200, allow_preview=False)
        ask = gr.Button("Show several answers")
    with gr.Row():
        back = gr.Button("Undo the last chosen color")
        whole = gr.Button("Color at full size", variant="primary")
    download, shown = gr.DownloadButton("Download", visible=False), [photo, editor, points, like, follow]
    found = gr.State([])

    def _hints(photo, editor, points, like, follow):
        try:
            matched = [] if like is None else [reference_hints(colorizer, photo, like, follow)]
        except ValueError as error:
            raise gr.Error(str(error)) from error
        return matched + hints_of_page(editor, points)

    def _colorize(photo, *more):
        colored = None if photo is None else colorizer(photo, _hints(photo, *more))
        return colored, gr.DownloadButton(visible=False)  # a result belongs to its inputs

    def _several(photo):
        lists = [] if photo is None else answers(colorizer, photo)
        return lists, [colorizer(photo, hints) for hints in lists]

    def _propose(photo, result, event: gr.SelectData):
        found = likely_colors(colorizer.generator, photo, result, *map(int, event.index))
        swatches = [(np.full((40, 40, 3), tuple(bytes.fromhex(color[1:])), np.uint8), color) for color in found]
        return event.index, found, swatches

    def _answer(found, event: gr.SelectData):
        return found[event.index]

    def _choose(place, colors, points, event: gr.SelectData):
        return [*points, Hint(*place, colors[event.index])]

    outputs = [result, download]
    file.change(load, file, [photo, editor, points, likely, several]).then(_colorize, shown, outputs)
    # `change` of the editor misses the first stroke and undo (gradio 6.31)
    changes = [editor.input, points.change, like.change, follow.change]
    gr.on(changes, _colorize, shown, outputs, trigger_mode="always_last", show_progress="hidden")
    ask.click(_several, photo, [found, several])
    several.select(_answer, found, points)
    result.select(_propose, [photo, result], [place, colors, likely])
    likely.select(_choose, [place, colors, points], points)
    back.click(lambda points: points[:-1], points, points)

    def _download(file, photo, *more):
        return full_size(colorizer, file, photo, _hints(photo, *more) if file else [], folder)

    whole.click(_download, [file, *shown], download)


def main(arguments: list[str] | None = None) -> None:
    """Start the page on this machine."""
    parser = argparse.ArgumentParser(description="Colorize photos in the browser, on this machine.")
    parser.add_argument("--weights", help="of a generator; default: the most recent run")
    parser.add_argument("--port", type=int, help="of the page; default: the first free one from 7860")
    options = parser.parse_args(arguments)
    try:
        page = build(Colorizer(options.weights))
    except (OSError, ValueError, NameError) as error:
        parser.error(str(error))
    page.launch(server_port=options.port, share=False)


if __name__ == "__main__":
    main()
