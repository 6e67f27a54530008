"""`make outputs`: copy the outputs of tagged cells from executed notebooks, so that the series can be read on the web.

A cell is tagged `keep_output`. A figure that shows photos is copied only if its cell is also tagged `free_photos`: the
photos are scikit-image's or Kodak24's, which may be passed on.

Some notebooks alone: `python outputs.py "the model in the box" 06 07 10`.
"""

import base64
import io
import os
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

PROJECT = Path(__file__).resolve().parents[2]
TAG, FREE = "keep_output", "free_photos"
WIDEST = 1100  # pixels of a figure
TEXTS = ("text/plain", "text/html", "text/markdown")
MOVING = "image/gif"
A_PROFILE = re.compile(r'"profile +(\w+), run ')  # as `workspace.describe` prints it, in a notebook's file
A_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|content|Users|mnt)\b")


def smaller(picture: str) -> dict[str, str]:
    """Return a PNG (base64) by its type: a photo as a JPEG, a drawing as a PNG, at most `WIDEST` pixels wide."""
    image, files = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"), {}
    image.thumbnail((WIDEST, 10 * WIDEST))
    for kind, options in {"png": {"optimize": True}, "jpeg": {"quality": 90, "subsampling": 0}}.items():
        image.save(file := io.BytesIO(), kind, **options)
        files[f"image/{kind}"] = base64.b64encode(file.getvalue()).decode()
    drawn = len(files["image/png"]) < 1.5 * len(files["image/jpeg"])  # the PNG of a photo is several times as large
    files.pop("image/jpeg" if drawn else "image/png")
    return files


def tidy_outputs(cell: NotebookNode) -> list[NotebookNode]:
    """Return the outputs of an executed cell to publish; raises ValueError for a path in them."""
    outputs = []
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stdout":
            outputs.append(output)
        elif output.output_type in ("display_data", "execute_result"):
            best = next((kinds for kinds in (("image/png",), (MOVING,), TEXTS) if set(kinds) & set(output.data)), ())
            data = {kind: value for kind, value in output.data.items() if kind in best}
            if "0%|" in data.get("text/plain", ""):  # a progress bar
                continue
            data = smaller(data["image/png"]) if "image/png" in data else data
            if {"image/jpeg", MOVING} & set(data) and FREE not in cell.metadata.get("tags", []):
                print(f"cell {cell.id}: a figure that looks like photos is left out; if they are free, tag it {FREE}")
                continue
            outputs.append(nbformat.v4.new_output("display_data", data=data))
    shown = [str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", "")) for output in outputs]
    if found := A_PATH.search(text := "".join(shown)):
        raise ValueError(f"cell {cell.id} prints a folder of this machine: {text[found.start() :][:60]!r}")
    return outputs


def keep(executed: Path, notebooks: Path, about: str, *numbers: str) -> None:
    """Copy the outputs of tagged cells from executed notebooks into those of the same name; cells are matched by id.

    about: which network or photos, for the line below the title that says where outputs come from. numbers: of the
    notebooks, such as "06"; without them, all that were executed. Raises ValueError as `tidy_outputs` does, and for a
    notebook that another profile executed.
    """
    profile = os.environ["COLORIZE_PROFILE"]
    for path in [path for path in sorted(executed.glob("[0-9]*.ipynb")) if not numbers or path.name[:2] in numbers]:
        if others := set(A_PROFILE.findall(text := path.read_text())) - {profile}:
            raise ValueError(f"{path.name} was executed in profile {others.pop()}, not in {profile}: run it again")
        notebook, done = nbformat.read(notebooks / path.name, 4), nbformat.reads(text, 4)
        day, cells = done.metadata.papermill.end_time[:10], {cell.id: cell for cell in done.cells}
        if "stored" not in [cell.id for cell in notebook.cells]:
            notebook.cells.insert(1, nbformat.v4.new_raw_cell(id="stored"))
        about_run = f"a run of profile {profile}, {day}, {os.cpu_count()} CPU cores, {about}"
        notebook.cells[1].source = f"Outputs stored here: {about_run}."
        for cell in notebook.cells:
            if TAG in cell.metadata.get("tags", []):
                cell.outputs = tidy_outputs(cells[cell.id])
        nbformat.write(notebook, notebooks / path.name)


if __name__ == "__main__":
    for lessons in ("notebooks", "notebooks/solutions"):
        keep(PROJECT / "artifacts" / lessons, PROJECT / lessons, *sys.argv[1:])
