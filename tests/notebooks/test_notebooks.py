"""What holds for every notebook: tidy cells, no name with two meanings, exercises, few words; the READMEs."""

import ast
import re
from collections import Counter
from importlib.util import find_spec
from symtable import symtable

import nbformat
import pytest
from notebook_tools import PROJECT, code_of, read

from helpers.config import PROFILES

PATHS = sorted((PROJECT / "notebooks").rglob("[0-9]*.ipynb"))
SERIES = [path.stem for path in PATHS if path.parent.name == "notebooks"]
LESSONS = [name for name in SERIES if not name.startswith("00")]
WORDS = 9_500  # in all of the series


def text_of(notebook):
    """Return the prose of a notebook."""
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def bound(source):
    """The names that a cell gives a meaning to; those of loops and comprehensions end with them."""
    symbols = symtable(source, "cell", "exec").get_symbols()
    loops = [node.target for node in ast.walk(ast.parse(source)) if isinstance(node, ast.For)]
    within = {node.id for target in loops for node in ast.walk(target) if isinstance(node, ast.Name)}
    return {each.get_name() for each in symbols if each.is_assigned() or each.is_imported()} - within


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_cells_are_short_and_no_name_means_two_things(path):
    """So that any cell can be run again after the last one."""
    cells = code_of(nbformat.read(path, as_version=4))
    assert max(len(cell.source.splitlines()) for cell in cells) <= 30
    counts = Counter(name for cell in cells[1:] for name in bound(cell.source))
    assert {name for name, count in counts.items() if count > 1} == set()


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_has_exercises_one_that_checks_itself_a_solution_a_summary_and_a_next(name):
    notebook, solution = read(name), read(f"solutions/{name}")
    assert "Your turn" in text_of(notebook) and "Summary" in text_of(notebook)
    for each in (notebook, solution):
        assert any(re.search(r"\bcheck\(", cell.source) for cell in code_of(each))
    later = [other for other in SERIES if other > name]
    assert not later or f"]({later[0]}.ipynb)" in text_of(notebook)


def test_the_series_is_short():
    words = {name: len(text_of(read(name)).split()) for name in SERIES}
    assert sum(words.values()) <= WORDS, words


def test_the_readmes_are_short_and_their_links_and_windows_lines_lead_somewhere():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    lines = re.search(r"Windows \(PowerShell\):\n\n((?: {4}.+\n)+)", readme)[1]
    assert find_spec(re.search(r"-m (helpers\S+)", lines)[1]) and len(readme.splitlines()) <= 90
    assert re.search(r'\$env:COLORIZE_PROFILE = "(\w+)"', lines)[1] in PROFILES
    for page in (PROJECT / "README.md", PROJECT / "helpers/README.md", PROJECT / "helpers/models/box/README.md"):
        links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        assert not [link for link in links if not (page.parent / link).exists()]
