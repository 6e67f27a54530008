"""Reading a notebook of the series, changing a cell of a copy as a student would, and running it."""

import os
import re
from pathlib import Path

import nbclient
import nbformat
from safetensors import safe_open

PROJECT = Path(__file__).resolve().parent.parent


def read(name):
    """Return a fresh copy of a notebook by its name, such as "03_warmup_training"."""
    return nbformat.read(PROJECT / "notebooks" / f"{name}.ipynb", as_version=4)


def code_of(notebook):
    """Return the code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def edited(notebook, *edits):
    """Replace texts in the code cells, pairs of old and new; each old text must be there."""
    for old, new in edits:
        found = [cell for cell in code_of(notebook) if old in cell.source]
        assert found, f"no cell has {old!r}"
        for cell in found:
            cell.source = cell.source.replace(old, new)
    return notebook


def up_to(notebook, last, without=()):
    """Keep the code cells up to one of them, but for some, all by id."""
    ids = [cell.id for cell in notebook.cells]
    assert {last, *without} <= set(ids)
    kept = notebook.cells[: ids.index(last) + 1]
    notebook.cells = [cell for cell in kept if cell.cell_type == "code" and cell.id not in without]
    return notebook


def only(notebook, *names):
    """Keep some cells alone, by id."""
    notebook.cells = [cell for cell in notebook.cells if cell.id in names]
    assert len(notebook.cells) == len(names)
    return notebook


def after_imports(notebook, source):
    """Insert a cell behind the first one that imports the helpers."""
    first = next(cell for cell in code_of(notebook) if re.search(r"^from helpers", cell.source, re.M))
    notebook.cells.insert(notebook.cells.index(first) + 1, nbformat.v4.new_code_cell(source))
    return notebook


def run(notebook, workspace, folder=PROJECT / "notebooks", **variables):
    """Run a notebook in the smoke profile with its own workspace; returns it with its outputs."""
    env = os.environ | {"COLORIZE_PROFILE": "smoke", "COLORIZE_WORKSPACE": str(workspace)} | variables
    where = {"metadata": {"path": folder}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute(env=env)
    return notebook


def printed(notebook):
    """Return everything that the cells of a notebook printed."""
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def class_of(workspace, phase):
    """Return the class of the network in a phase's weights file."""
    with safe_open(workspace / f"runs/smoke/{phase}.safetensors", "pt") as file:
        return file.metadata()["class"]
