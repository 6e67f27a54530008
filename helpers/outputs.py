"""`make outputs`: keep what tagged cells gave in a run, so that the series can be read on the web."""

import base64
import io
import os
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

from helpers import workspace

TAG = "keep_output"
KEPT = ("image/png", "text/plain", "text/html")
WIDEST = 1100  # pixels of a figure
A_PROFILE = re.compile(r'"profile +(\w+), run ')  # as `workspace.describe` prints it, in a notebook's file
A_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|work|content|Users|mnt)\b")


def smaller(picture: str) -> str:
    """Return a PNG, base64, in at most 256 colors and not too wide: figures stay sharp, files small."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    image.thumbnail((WIDEST, 10 * WIDEST))
    file = io.BytesIO()
    image.quantize(256).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def kept(cell: NotebookNode, caption: str) -> list[NotebookNode]:
    """Return the outputs of an executed cell that are worth keeping, below a caption; raises ValueError for a path."""
    outputs = [nbformat.v4.new_output("stream", text=f"[{caption}]\n")]
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stdout":
            outputs.append(output)
        elif output.output_type in ("display_data", "execute_result"):
            data = {kind: value for kind, value in output.data.items() if kind in KEPT}
            if "image/png" in data:
                data = {"image/png": smaller(data["image/png"])}
            outputs.append(nbformat.v4.new_output("display_data", data=data))
    told = "".join(
        str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", "")) for output in outputs
    )
    if found := A_PATH.search(told):
        raise ValueError(f"a kept output names a folder of this machine: {told[found.start() : found.start() + 60]!r}")
    return outputs


def keep(executed: Path, notebooks: Path, photos: str) -> None:
    """Copy the outputs of tagged cells from executed notebooks into those of the same name.

    photos: what they were trained on, for the caption. Cells are the same if their ids are; what was not executed stays
    as it is. Raises ValueError as `kept`, and for a notebook that another profile executed.
    """
    profile = os.environ["COLORIZE_PROFILE"]
    for path in sorted(notebooks.glob("[0-9]*.ipynb")):
        if not (executed / path.name).exists():
            print(f"{path.name} was not executed: left as it is")
            continue
        told = (executed / path.name).read_text()
        if others := set(A_PROFILE.findall(told)) - {profile}:
            raise ValueError(f"{path.name} was executed in profile {others.pop()}, not in {profile}: run it again")
        notebook, done = nbformat.read(path, 4), nbformat.reads(told, 4)
        day = done.metadata.papermill.end_time[:10]
        caption = f"a run of profile {profile}, {day}, {os.cpu_count()} CPU cores, trained on {photos}"
        cells = {cell.id: cell for cell in done.cells}
        for cell in notebook.cells:
            if TAG in cell.metadata.get("tags", []):
                cell.outputs = kept(cells[cell.id], caption)
        nbformat.write(notebook, path)


if __name__ == "__main__":
    keep(workspace.PROJECT / "artifacts" / "notebooks", workspace.PROJECT / "notebooks", sys.argv[1])
