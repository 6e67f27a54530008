"""Reading a notebook of the series, changing a cell of a copy as a student would, and running it."""

import os
from pathlib import Path

import nbclient
import nbformat

PROJECT = Path(__file__).resolve().parent.parent


def read(name):
    """Return a fresh copy of a notebook by its name, such as "03_warmup_training"."""
    return nbformat.read(PROJECT / "notebooks" / f"{name}.ipynb", as_version=4)


def edit(notebook, old, new):
    """Replace `old` by `new` in the one code cell that holds it; fails unless there is exactly one."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
    assert len(cells) == 1, f"{len(cells)} code cells hold {old!r}"
    cells[0].source = cells[0].source.replace(old, new)
    return notebook


def uncomment(notebook, line, new=None):
    """Switch on a suggestion of the configuration cell, such as "size=128,", perhaps with another value."""
    return edit(notebook, f"# {line}", new or line)


def run(notebook, workspace, folder=PROJECT / "notebooks", **variables):
    """Run a notebook in the smoke profile with its own workspace; returns it with its outputs."""
    env = os.environ | {"COLORIZE_PROFILE": "smoke", "COLORIZE_WORKSPACE": str(workspace)} | variables
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    client.execute(env=env)
    return notebook


def printed(notebook):
    """Return all that the cells of a notebook printed."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")
