"""Reading a notebook of the series, changing a cell of a copy as a student would, and running it."""

import json
import os
import re
from pathlib import Path

import nbclient
import nbformat
import pandas as pd
import pytest
from nbclient.exceptions import CellExecutionError
from safetensors import safe_open

PROJECT = Path(__file__).resolve().parent.parent
# notebook 03 makes its network so
MADE = "generator = start.load(start.phases()[-1]) if start else Generator(**cfg.generator())"


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


def before(notebook, text):
    """Return a notebook without its cells from the first code cell that holds `text` on."""
    end = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and text in cell.source)
    notebook.cells = notebook.cells[:end]
    return notebook


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


def metadata(workspace, phase, run="smoke"):
    with safe_open(workspace / f"runs/{run}/{phase}.safetensors", "pt") as file:
        told = file.metadata()
    return told | {name: json.loads(told[name]) for name in ("arguments", "config")}


def table(workspace, name, run="smoke"):
    return pd.read_csv(workspace / f"runs/{run}/{name}.csv")


def refused(notebook, workspace, error):
    """Run a notebook that has to stop with an error; return what it said."""
    with pytest.raises(CellExecutionError, match=error) as caught:
        run(notebook, workspace)
    return re.sub(r"\x1b\[[0-9;]*m", "", str(caught.value))


def with_class(name, source, after="from helpers"):
    """A notebook in which a student has written a class in a cell of its own, behind the imports."""
    notebook = read(name)
    last = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and after in cell.source)
    imports = "import torch\nfrom helpers.models.generator import Generator\n"
    notebook.cells.insert(last + 1, nbformat.v4.new_code_cell(imports + source))
    return notebook
