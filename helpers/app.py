"""A page for the browser: drop photos, compare before and after, download. `python -m helpers.app`, or `make app`."""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported: tell nobody of the photos

import gradio as gr
from PIL import Image

from helpers import folders, inference, upscaling
from helpers.selection import read_rgb

PREVIEW = 900  # pixels on the shorter side of what the page shows; the download is of full size
KEPT = 24 * 3600  # seconds for which the page's own copies of uploads and results stay on the disk
SWEPT = 600  # seconds for which a result stays where it was made
INTRODUCTION = """# Colorize your photos
Drop photos below; they stay on the machine that runs this page. The colours are a **guess**: the model paints what was
likely in the photos it learned from. It cannot know the colour of a dress, a car or a uniform."""


def preview(rgb, path):
    """Write a photo (H, W, 3), reduced, as a JPEG file for the page; return its path."""
    Image.fromarray(inference.reduced(rgb, PREVIEW)).save(path, quality=90)
    return str(path)


def colorize_upload(file, folder, colorizer, options):
    """Colorize an uploaded file into a folder; return what the page shows of it, a dict.

    Its keys: source (file and options), title, before and after (previews), result (the file of full size). Raises
    OSError that names a file which is no photo.
    """
    path, folder = Path(file), Path(tempfile.mkdtemp(dir=folder))  # two photos may have one name
    target = folders.target_of(path, path.parent, folder, "")
    target = target.with_stem(f"{target.stem}-in-colour")
    before = preview(read_rgb(path), folder / "before.jpg")
    job = folders.colorize_file(path, target, colorizer, options)
    if job.error:
        raise OSError(job.error)
    painted = read_rgb(target)
    after = preview(painted, folder / "after.jpg")
    title = f"{path.name}, {painted.shape[1]}x{painted.shape[0]}"
    return {"source": (file, options), "title": title, "before": before, "after": after, "result": str(target)}


def colorize_uploads(files, earlier, colorizer, folder, options, progress):
    """Colorize uploaded files, all but those that were done `earlier` with the same options; return their dicts.

    What cannot be read is told on the page, and the others go on.
    """
    for old in Path(folder).iterdir():  # the page holds copies of what it shows
        if time.time() - old.stat().st_mtime > SWEPT:
            shutil.rmtree(old, ignore_errors=True)
    done, known = [], {result["source"]: result for result in earlier if Path(result["result"]).exists()}
    for file in progress.tqdm(files or [], unit="photos"):
        try:
            done.append(known.get((file, options)) or colorize_upload(file, folder, colorizer, options))
        except (OSError, MemoryError) as error:
            name = Path(file).name
            told = str(error).replace(file, name)
            gr.Warning(told if name in told else f"{name}: {told}", duration=20)
    return done


def show(results):
    """Lay out results: for each a slider between before and after, and a button that downloads it."""
    for result in results:
        gr.ImageSlider((result["before"], result["after"]), label=result["title"], interactive=False, max_height=700)
        gr.DownloadButton(f"Download {Path(result['result']).name}", value=result["result"])


def build(colorizer=None):
    """Return the page, ready to `launch`; without a `Colorizer`, with the weights that were trained last."""
    colorizer = colorizer or inference.Colorizer()
    with gr.Blocks(title="Colorize your photos", delete_cache=(3600, KEPT)) as page:
        page.folder = tempfile.TemporaryDirectory(prefix="colorize-", ignore_cleanup_errors=True)
        gr.Markdown(f"{INTRODUCTION} Weights: {colorizer}.")
        results = gr.State([])
        with gr.Row():
            with gr.Column(scale=1):
                files = gr.File(label="Photos", file_count="multiple", height=180)
                saturation = gr.Slider(0, 3, 1, step=0.05, label="Saturation", info="0 is grey, 1 as predicted")
                ends = min(64, colorizer.view), max(768, colorizer.view)
                view = gr.Slider(*ends, colorizer.view, step=1, label="View", info="pixels that the network sees")
                flip = gr.Checkbox(label="Average with the mirrored photo")
                upscale = gr.Dropdown(upscaling.WAYS, value="auto", label="Colour at full size")
                denoise = gr.Slider(0, 30, 0, step=1, label="Remove grain")
                contrast = gr.Slider(0, 10, 0, step=0.5, label="Raise contrast")
            with gr.Column(scale=3):
                gr.render(inputs=results)(show)
        inputs = [results, files, saturation, view, flip, upscale, denoise, contrast]

        def colorize(earlier, files, saturation, view, flip, upscale, denoise, contrast, progress=gr.Progress()):  # noqa: B008
            chosen = {"saturation": saturation, "view": view, "flip": flip, "denoise": denoise, "contrast": contrast}
            options = colorizer.options(**chosen, upscale=upscale)
            return colorize_uploads(files, earlier, colorizer, page.folder.name, options, progress)

        changed = [part.change for part in inputs[1:]]
        gr.on(changed, colorize, inputs, results, trigger_mode="always_last")  # a slider that is dragged changes often
    return page


def main(arguments=None):
    """Start the page on this machine."""
    parser = argparse.ArgumentParser(description="Colorize photos in the browser, on this machine.")
    parser.add_argument("--weights", help="a generator; without it, that of the run that was trained last")
    parser.add_argument("--port", type=int, help="of the page; without it, the first free one from 7860")
    options = parser.parse_args(arguments)
    try:
        page = build(inference.Colorizer(options.weights))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    page.launch(server_port=options.port, share=False)


if __name__ == "__main__":
    main()
