"""What holds for every notebook: the same opening, no outputs, and a setup cell that finds its way anywhere."""

import ast
import shutil
import subprocess
import sys
import zipfile
from collections import Counter

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from notebook_tools import PROJECT, before, edit, printed, read, run

PATHS = sorted((PROJECT / "notebooks").rglob("[0-9]*.ipynb"))
COLAB = """
import sys, types
from importlib.machinery import ModuleSpec
stand_in = sys.modules["google.colab"] = types.ModuleType("google.colab")
stand_in.__spec__ = ModuleSpec("google.colab", None)
"""
UPLOAD = """
stand_in.files = types.SimpleNamespace(upload=lambda: {"my project (1).zip": b"..."})
"""
SERIES = [path.stem for path in PATHS if path.parent.name == "notebooks"]


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def setup_cell(name):
    return next(cell.source for cell in read(name).cells if "REPOSITORY" in cell.source and cell.cell_type == "code")


def on_colab(name, repository):
    """Return a notebook with a stand-in for google.colab in front and the project's address filled in."""
    notebook = edit(read(name), 'REPOSITORY = ""', f"REPOSITORY = {repository!r}")
    notebook.cells.insert(0, nbformat.v4.new_code_cell(COLAB))
    return notebook


def test_all_notebooks_share_one_setup_cell_of_less_than_ten_lines():
    setups = {code_cells(path)[0].source for path in PATHS}
    assert len(setups) == 1
    assert sum(bool(line.strip()) for line in setups.pop().splitlines()) < 10


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_notebook_is_tidy(path):
    cells = code_cells(path)
    assert all(not cell.outputs or "keep_output" in cell.metadata.get("tags", []) for cell in cells)
    assert max(len(cell.source.splitlines()) for cell in cells) <= 30


def bound(source):
    """The names that a cell gives a meaning to; those of loops and comprehensions end with them."""
    tree, names, within = ast.parse(source), set(), set()
    for node in ast.walk(tree):
        targets = [node.target] if isinstance(node, (ast.For, ast.comprehension)) else []
        within |= {id(name) for target in targets for name in ast.walk(target)}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        else:
            stored = (n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            names |= {name.id for name in stored if id(name) not in within}
    return names


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_no_name_means_two_things_in_one_notebook(path):
    """So that any cell can be run again after the last one."""
    counts = Counter(name for cell in code_cells(path)[1:] for name in bound(cell.source))
    assert {name for name, count in counts.items() if count > 1} == set()


@pytest.mark.parametrize("name", SERIES)
def test_every_notebook_of_the_series_has_a_solution_and_exercises(name):
    text = "\n".join(cell.source for cell in read(name).cells)
    assert 2 <= text.count("**Your turn ") <= 6
    assert "to write.**" in text  # one of them checks itself
    assert text.count("*Expect*") == text.count("**Your turn ")
    assert (PROJECT / "notebooks" / "solutions" / f"{name}.ipynb").exists()


@pytest.mark.parametrize("folder", [".", "notebooks", "notebooks/solutions"])
def test_setup_finds_the_helpers_from(folder):
    code = TransformerManager().transform_cell(setup_cell("01_dataset")) + "\nimport helpers; print(helpers.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT / folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(PROJECT / "helpers" / "__init__.py")


def test_on_colab_the_setup_cell_fetches_the_project(tmp_path):
    machine, workspace = tmp_path / "content", tmp_path / "workspace"
    machine.mkdir()
    notebook = on_colab("01_dataset", str(PROJECT))
    notebook.cells.append(nbformat.v4.new_code_cell("print('helpers from', dataset.__file__)"))
    output = printed(run(notebook, workspace, folder=machine))
    assert f"helpers from {machine}/colorization/helpers" in output


@pytest.mark.skipif(not shutil.which("unzip"), reason="Colab has unzip")
@pytest.mark.parametrize("inside", ["", "name-main/"])  # as `git archive` packs a project, and as GitHub does
def test_on_colab_without_an_address_the_project_is_uploaded_as_a_zip(tmp_path, inside):
    with zipfile.ZipFile(tmp_path / "my project (1).zip", "w") as packed:
        for path in (PROJECT / "helpers").rglob("*.py"):
            packed.write(path, f"{inside}{path.relative_to(PROJECT)}")
    notebook = before(on_colab("01_dataset", ""), "dataset.prepare")
    notebook.cells[0].source += UPLOAD
    notebook.cells.append(nbformat.v4.new_code_cell("print('helpers from', dataset.__file__)"))
    output = printed(run(notebook, tmp_path / "workspace", folder=tmp_path))
    assert f"helpers from {tmp_path}/colorization/{inside}helpers" in output
