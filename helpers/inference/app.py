"""A page for the browser: drop photos, compare before and after, download. `python -m helpers.inference.app`."""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported: tell nobody of the photos

import gradio as gr
from PIL import Image

from helpers.data.photos import read_rgb, reduced
from helpers.inference import painting
from helpers.inference.colorizer import Colorizer, Options
from helpers.inference.film import SUFFIXES
from helpers.inference.folder import colorize_file, result_in
from helpers.inference.steadying import colorize_film

PREVIEW = 900  # pixels on the shorter side of what the page shows; the download is of full size
KEPT = 24 * 3600  # seconds for which the page's own copies of uploads and results stay on the disk
SWEPT = 600  # seconds for which a result stays where it was made
INTRODUCTION = """# Colorize your photos
Drop photos below; they stay on the machine that runs this page. The colors are a **guess**: the model chooses what was
likely in the photos it learned from. It cannot know the color of a dress, a car or a uniform."""


def colorize_upload(file: str, folder: str, colorizer: Colorizer, options: Options) -> dict[str, str]:
    """Colorize an uploaded file into a folder; return its title, previews of before and after, and the full result.

    Raises ValueError or OSError that names a file which is no photo.
    """
    path, shown = Path(file), {"before": read_rgb(file)}
    target = result_in(folder, path)
    place = target.parent
    colorize_file(path, target, colorizer, options)
    shown["after"] = read_rgb(target)
    for name, rgb in shown.items():
        Image.fromarray(reduced(rgb, PREVIEW)).save(place / f"{name}.jpg", quality=90)
    height, width = shown["after"].shape[:2]
    title = f"{path.name}, {width}x{height}"
    return {"title": title, "result": str(target)} | {name: str(place / f"{name}.jpg") for name in shown}


def colorize_uploads(
    files: list[str] | None, colorizer: Colorizer, folder: str, options: Options, progress: Any
) -> list[dict[str, str]]:
    """Colorize uploaded files; what cannot be read is told on the page, and the others go on."""
    for old in Path(folder).iterdir():  # the page holds copies of what it shows
        if time.time() - old.stat().st_mtime > SWEPT and not any(old.glob(".*.parts")):  # no film is made there
            shutil.rmtree(old, ignore_errors=True)
    done = []
    for file in progress.tqdm(files or [], unit="photos"):
        try:
            done.append(colorize_upload(file, folder, colorizer, options))
        except (OSError, ValueError, MemoryError) as error:
            name = Path(file).name
            told = str(error).replace(file, name)
            gr.Warning(told if name in told else f"{name}: {told}", duration=20)
    return done


def show(results: list[dict[str, str]]) -> None:
    """Lay out results: for each a slider between before and after, and a button that downloads it."""
    for result in results:
        gr.ImageSlider((result["before"], result["after"]), label=result["title"], interactive=False, max_height=700)
        gr.DownloadButton(f"Download {Path(result['result']).name}", value=result["result"])


def build(colorizer: Colorizer | None = None) -> gr.Blocks:
    """Return the page, ready to `launch`; without a `Colorizer`, with the weights that were trained last."""
    colorizer = colorizer or Colorizer()
    with gr.Blocks(title="Colorize your photos", delete_cache=(3600, KEPT)) as page:
        page.folder = tempfile.TemporaryDirectory(prefix="colorize-", ignore_cleanup_errors=True)
        gr.Markdown(f"{INTRODUCTION} Weights: {colorizer}.")
        with gr.Tab("Photos"):
            photos_tab(colorizer, page.folder.name)
        with gr.Tab("Films"):
            films_tab(colorizer, page.folder.name)
        with gr.Tab("Hints"):
            if colorizer.takes_hints:
                painting.build(colorizer, page.folder.name)
            else:
                gr.Markdown("These weights take no color hints. Notebook 07_hints makes some that do.")
    return page


def photos_tab(colorizer: Colorizer, folder: str) -> None:
    """Lay out the tab for photos without hints; results are written below a folder."""
    size, results = colorizer.input_size, gr.State([])
    with gr.Row():
        with gr.Column(scale=1):
            files = gr.File(label="Photos", file_count="multiple", height=180)
            sizes = min(64, size), max(768, size), size
            fields = {
                "saturation": gr.Slider(0, 3, 1, step=0.05, label="Saturation", info="0 is gray, 1 as predicted"),
                "input_size": gr.Slider(*sizes, step=1, label="Input size", info="pixels that the network sees"),
                "flip": gr.Checkbox(label="Average with the mirrored photo"),
                "denoise": gr.Slider(0, 30, 0, step=1, label="Remove noise"),
                "contrast": gr.Slider(0, 10, 0, step=0.5, label="Raise contrast"),
                "enlarge": gr.Checkbox(label="Enlarge four times", info="for small photos; notebook 09"),
            }
        with gr.Column(scale=3):
            gr.render(inputs=results)(show)

    def _colorize(files, *values, progress=gr.Progress()):  # noqa: B008
        chosen = dict(zip(fields, values, strict=True))
        options = colorizer.options(**chosen | {"enlarge": 4 if chosen["enlarge"] else 1})
        return colorize_uploads(files, colorizer, folder, options, progress)

    inputs = [files, *fields.values()]
    changed = [part.change for part in inputs]
    gr.on(changed, _colorize, inputs, results, trigger_mode="always_last")  # a slider that is dragged changes often


def films_tab(colorizer: Colorizer, folder: str) -> None:
    """Lay out the tab for a film; results are written below a folder."""
    with gr.Row():
        with gr.Column(scale=1):
            film = gr.File(label="Film", file_types=sorted(SUFFIXES), height=180)
            saturation = gr.Slider(0, 3, 1, step=0.05, label="Saturation", info="0 is gray, 1 as predicted")
            steady = gr.Slider(0, 0.95, 0.9, step=0.05, label="Steadiness", info="0 colors each frame by itself")
            start, download = gr.Button("Colorize the film"), gr.DownloadButton(visible=False)
        player = gr.Video(label="In color", interactive=False, scale=3)

    def _colorize(file, saturation, steady, progress=gr.Progress(track_tqdm=True)):  # noqa: B008
        if file is None:
            raise gr.Error("Drop a film first.")
        target = result_in(folder, Path(file)).with_suffix(".mp4")
        try:
            colorize_film(file, target, colorizer, saturation=saturation, steady=steady)
        except (OSError, ValueError) as error:
            raise gr.Error(str(error).replace(file, Path(file).name)) from error
        return str(target), gr.DownloadButton(f"Download {target.name}", value=str(target), visible=True)

    start.click(_colorize, [film, saturation, steady], [player, download])


def main(arguments: list[str] | None = None) -> None:
    """Start the page on this machine."""
    parser = argparse.ArgumentParser(description="Colorize photos in the browser, on this machine.")
    parser.add_argument("--weights", help="a generator; without it, that of the run that was trained last")
    parser.add_argument("--port", type=int, help="of the page; without it, the first free one from 7860")
    options = parser.parse_args(arguments)
    try:
        page = build(Colorizer(options.weights))
    except (OSError, ValueError, NameError) as error:
        parser.error(str(error))
    page.launch(server_port=options.port, share=False)


if __name__ == "__main__":
    main()
