"""A page for the browser: drop photos and films, paint hints, download. `python -m helpers.apps.page`."""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported: nothing leaves the machine

import gradio as gr
import numpy as np
from PIL import Image

from helpers.apps.film_job import colorize_film
from helpers.apps.folder import FILMS, target_of
from helpers.apps.photo_files import colorize_file
from helpers.data.photos import read_rgb, reduced
from helpers.inference.colorizer import CHOICES, Colorizer
from helpers.inference.suggestions import NOTHING, Question, alternatives, questions, reference_hints, ringed
from helpers.inference.user_hints import NO_HINTS, Hint, suggest_colors

PREVIEW = 900  # pixels on the shorter side of a preview; the download has full size
SHOWN = 320  # pixels on the shorter side of the photo to paint on, for speed
LIFETIME = 24 * 3600  # seconds before uploads and results are deleted
INTRODUCTION = """# Colorize your photos
Drop photos below; they stay on the machine that runs this page. The colors are a **guess**: the model chooses what was
likely in the photos it learned from. It cannot know the color of a dress, a car or a uniform."""
EXPLAINED = """Drop a photo, choose a color for the brush, and paint where something has that color; a dab is enough.
Or answer the model: it asks at the numbered rings, and proposes colors. Click one; a click in the colored photo asks
about that place."""
ASKED = 3  # questions at a time, and how many more "Ask me more" adds
LIKELY = 5  # colors for each question
COLORS = ["#c03020", "#d08040", "#e0c060", "#609040", "#205030", "#4080c0", "#8050a0", "#907060", "#808080"]
EDITOR = {"label": "Paint here", "layers": False, "transforms": (), "sources": (), "height": 320, "format": "png"}
EDITOR["brush"] = gr.Brush(default_size=12, colors=COLORS, default_color=COLORS[0])
SATURATION = {"minimum": 0, "maximum": 3, "step": 0.05, "label": "Saturation", "info": "0 is gray, 1 as predicted"}
STEADINESS = {"maximum": 0.95, "step": 0.05, "label": "Steadiness", "info": "0 colors each frame by itself"}


def place_for(folder: str, file: str | None) -> Path:
    """Return a new place below a folder for an upload's colorized version, and delete old results there."""
    if file is None:
        raise ValueError("Drop a file first.")
    for old in Path(folder).iterdir():
        if time.time() - old.stat().st_mtime > LIFETIME:
            shutil.rmtree(old, ignore_errors=True)
    path = Path(file)
    return Path(tempfile.mkdtemp(dir=folder), f"{path.stem}-in-color{Path(target_of(path)).suffix}")


@contextmanager
def reported(file: str | None) -> Iterator[None]:
    """Show on the page what goes wrong with an uploaded file, under the file's own name."""
    try:
        yield
    except (OSError, ValueError, MemoryError, RuntimeError) as error:
        name = Path(file or "").name
        text = str(error).replace(file or "", name)
        gr.Warning(text if name in text else f"{name}: {text}", duration=20)


def download_of(target: Path, notes: Sequence[str]) -> gr.DownloadButton:
    """Return a result's download button, and show what the user may not expect of the result."""
    if notes:
        gr.Info(f"{target.name}: {'; '.join(notes)}", duration=20)
    return gr.DownloadButton(f"Download {target.name}", value=str(target), visible=True)


def build(colorizer: Colorizer | None = None, tabs: Sequence[str] = ("Photos", "Films", "Hints")) -> gr.Blocks:
    """Return the page, or some of its tabs, ready to `launch`; without a `Colorizer`, with the most recent weights."""
    colorizer = colorizer or Colorizer()
    layouts = {"Photos": photos_tab, "Films": films_tab, "Hints": HintsTab}
    with gr.Blocks(title="Colorize your photos", delete_cache=(3600, LIFETIME)) as page:
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
            parts = {
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
        yield []  # a result belongs to its inputs
        options, done = dict(zip(parts, values, strict=True)), []
        options["enlarge"] = 4 if options["enlarge"] else 1
        for file in progress.tqdm(files or [], unit="photos"):
            with reported(file):
                done.append(colorize_upload(file, folder, colorizer, options))
        yield done

    inputs = [files, *parts.values()]
    # a slider that is dragged changes often
    gr.on([part.change for part in inputs], _colorize, inputs, results, trigger_mode="always_last")


def colorize_upload(file: str, folder: str, colorizer: Colorizer, options: dict[str, Any]) -> tuple:
    """Colorize an uploaded photo; returns its path, the result's path, and notes."""
    if Path(file).suffix.lower() in FILMS:
        raise ValueError("this is a film: drop it on the tab Films")
    target = place_for(folder, file)
    return file, target, colorize_file(Path(file), target, colorizer, colorizer.options(**options))


def _show(results: list[tuple]) -> None:
    """Lay out results: a slider between before and after, and a download button for each."""
    for file, target, notes in results:
        before, after = map(read_rgb, (file, target))
        title = f"{Path(file).name}, {after.shape[1]}x{after.shape[0]}"
        pair = reduced(before, PREVIEW), reduced(after, PREVIEW)
        gr.ImageSlider(pair, format="jpeg", label=title, interactive=False, max_height=700)
        download_of(target, notes)


def films_tab(colorizer: Colorizer, folder: str) -> None:
    """Lay out the tab for a film."""
    with gr.Row():
        with gr.Column(scale=1):
            file = gr.File(label="Film", file_types=sorted(FILMS), height=180, elem_id="film")
            parts = {"saturation": gr.Slider(value=1, **SATURATION), "steady": gr.Slider(value=0.9, **STEADINESS)}
            with gr.Accordion("More", open=False):
                parts["keep_color"] = gr.Radio(CHOICES, label="Keep what is in color", value="auto")
                parts["deinterlace"] = gr.Radio(CHOICES, label="Deinterlace", value="auto")
            start, download = gr.Button("Colorize the film"), gr.DownloadButton(visible=False)
        player = gr.Video(label="In color", interactive=False, scale=3)

    def _withdraw():
        return None, gr.DownloadButton(visible=False)

    def _colorize(file, *values, progress=gr.Progress(track_tqdm=True)):  # noqa: B008
        with reported(file):
            target = place_for(folder, file)
            notes = colorize_film(file, target, colorizer, **dict(zip(parts, values, strict=True)))
            return str(target), download_of(target, notes)
        return _withdraw()

    inputs = [file, *parts.values()]
    coloring = start.click(_colorize, inputs, [player, download])
    gr.on([part.change for part in inputs], _withdraw, None, [player, download], cancels=coloring)


def load(file: str | None) -> tuple:
    """Return a new photo as it is shown, the editor's content, no points, the number of questions, and no answers."""
    photo = gray = None
    if file:
        with reported(file):
            photo = reduced(read_rgb(file), SHOWN)
            gray = Image.fromarray(photo).convert("L").convert("RGB")
    return photo, gray, [], ASKED, []


def show_questions(photo: np.ndarray | None, asked: list[Question], choosing: bool = False) -> tuple:
    """Return what shows questions: likely colors, the photo with rings, swatches, and the color picker, hidden or not.

    The last color of each question is "", for none of these.
    """
    likely = [(number, one, color) for number, one in enumerate(asked, 1) for color in (*one.colors[:LIKELY], "")]
    square = lambda color: Image.new("RGB", (40, 40), color or "white")  # noqa: E731
    swatches = [(square(color), str(number) if color else f"{number}: none of these") for number, _, color in likely]
    rings = None if photo is None else ringed(photo, asked)
    return likely, rings, gr.Gallery(swatches, selected_index=None), gr.Column(visible=choosing)


class HintsTab:
    """The tab for hints: paint a color, choose a likely one, follow another photo, or choose from several answers."""

    def __init__(self, colorizer: Colorizer, folder: str):
        self.colorizer, self.folder = colorizer, folder
        if colorizer.takes_hints:
            self._lay_out()
            self._connect()
        else:
            gr.Markdown(NO_HINTS.capitalize())

    def _lay_out(self) -> None:
        self.photo, self.points, self.likely, self.lists = gr.State(), gr.State([]), gr.State([]), gr.State([])
        self.count = gr.State(ASKED)
        gr.Markdown(EXPLAINED)
        self.file = gr.File(label="Photo", height=100, elem_id="hints-photo")
        with gr.Row():
            self.editor = gr.ImageEditor(**EDITOR, elem_id="hints-editor")
            self.result = gr.Image(label="In color", interactive=False, format="png", elem_id="hints-result")
        with gr.Row():
            self.rings = gr.Image(label="The model asks", interactive=False, elem_id="hints-asked")
            with gr.Column(scale=2):
                bare = {"allow_preview": False, "show_label": False, "elem_id": "hints-likely"}
                self.swatches = gr.Gallery(columns=LIKELY + 1, **bare)
                with gr.Column(visible=False) as self.other:
                    self.picker = gr.ColorPicker(COLORS[0], label="Another color")
                    self.use = gr.Button("Use this color")
                self.more = gr.Button("Ask me more")
        with gr.Accordion("Color it like another photo, or see several answers", open=False), gr.Row():
            self.like = gr.Image(label="Like this photo", height=200)
            self.follow = gr.Slider(0, 1, 1, step=0.05, label="How much to follow")
            self.several = gr.Gallery(label="Several answers", columns=4, height=200, allow_preview=False)
            self.show = gr.Button("Show several answers")
        with gr.Row():
            self.back = gr.Button("Undo the last chosen color")
            self.whole = gr.Button("Color at full size", variant="primary")
        self.download = gr.DownloadButton(visible=False)

    def _connect(self) -> None:
        points, given = self.points, [self.photo, self.editor, self.points, self.like, self.follow]
        shown, question = [self.result, self.download], [self.likely, self.rings, self.swatches, self.other]
        full = self.whole.click(self.full_size, [self.file, *given], self.download)
        fresh = [self.photo, self.editor, points, self.count, self.several]
        self.file.change(load, self.file, fresh, cancels=full).then(self.colorize, given, shown)
        quiet = {"trigger_mode": "always_last", "show_progress": "hidden"}
        # of the editor, input: change misses strokes
        changes = [self.editor.input, points.change, self.like.change, self.follow.change]
        gr.on(changes, self.colorize, given, shown, cancels=full, **quiet)
        gr.on([self.result.change, self.count.change], self.ask, [self.count, *given], question, **quiet)
        self.more.click(lambda count: count + ASKED, self.count, self.count)
        self.result.select(self.propose, [self.photo, self.result], question)
        self.swatches.select(_choose, [self.photo, self.likely, points], [points, *question])
        self.use.click(_use, [self.likely, points, self.picker], points)
        self.show.click(self.answers, self.photo, [self.lists, self.several])
        self.several.select(_answer, self.lists, points)
        self.back.click(lambda points: points[:-1], points, points)

    def hints(
        self, photo: np.ndarray, editor: dict | None, points: list[Hint], like: Any, follow: float, share: float = 1
    ) -> list[Any]:
        """Return all hints for a photo that is `share` times as large as the one that is shown."""
        hints = [] if like is None else [reference_hints(self.colorizer, photo, like, follow)]
        hints += [layer for layer in (editor or {}).get("layers") or [] if layer is not None and layer[..., 3].any()]
        return hints + [Hint(point.x * share, point.y * share, point.color) for point in points]

    def colorize(self, photo: np.ndarray | None, *given: Any) -> tuple:
        """Return the photo in color, with the hints, and withdraw the download: a result belongs to its inputs."""
        colored = None
        with reported(None):
            colored = None if photo is None else self.colorizer(photo, self.hints(photo, *given))
        return colored, gr.DownloadButton(visible=False)

    def full_size(self, file: str | None, photo: np.ndarray, *given: Any) -> gr.DownloadButton:
        """Color the file at its own size; return its download."""
        with reported(file):
            target = place_for(self.folder, file)
            hints = self.hints(photo, *given, share=len(read_rgb(file)) / len(photo))
            notes = colorize_file(Path(file), target, self.colorizer, self.colorizer.options(), hints=hints)
            return download_of(target, notes)
        return gr.DownloadButton(visible=False)

    def ask(self, count: int, photo: np.ndarray | None, *given: Any) -> tuple:
        """Return the model's next questions as they are shown; hints that are given count as answers."""
        asked = []
        with reported(None):
            asked = [] if photo is None else questions(self.colorizer, photo, count, self.hints(photo, *given))
        if photo is not None and not asked:
            gr.Info(NOTHING)
        return show_questions(photo, asked)

    def propose(self, photo: np.ndarray, result: np.ndarray, event: gr.SelectData) -> tuple:
        """Return a question about a clicked place, as it is shown."""
        colors = suggest_colors(self.colorizer.generator, photo, result, *map(int, event.index))
        return show_questions(photo, [Question(*event.index, colors, 0)])

    def answers(self, photo: np.ndarray | None) -> tuple:
        """Return several answers as lists of hints, and as photos."""
        lists = [] if photo is None else alternatives(self.colorizer, photo)
        return lists, [self.colorizer(photo, hints) for hints in lists]


def _choose(photo: np.ndarray, likely: list[tuple], points: list[Hint], event: gr.SelectData) -> tuple:
    _, one, color = likely[event.index]
    if color:
        return [*points, Hint(one.x, one.y, color)], *4 * [gr.skip()]
    return points, *show_questions(photo, [one], choosing=True)


def _use(likely: list[tuple], points: list[Hint], color: str) -> list[Hint]:
    if not color.startswith("#"):  # what was dragged is rgba(192.4, 48, 32, 1)
        color = f"#{bytes(round(float(part)) for part in color[5:].split(',')[:3]).hex()}"
    return [*points, Hint(likely[0][1].x, likely[0][1].y, color)]


def _answer(lists: list[list[Hint]], event: gr.SelectData) -> list[Hint]:
    return lists[event.index]


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
