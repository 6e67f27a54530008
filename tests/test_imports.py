"""The helpers' layers: imports point downward only, never in a circle; nothing needs the page; every name is unique."""

import ast
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import helpers

ROOT = Path(helpers.__file__).parent
LAYERS = [
    "config color files",
    "workspace",
    "data models",
    "evaluation plots runs",
    "inference",
    "apps training",
]  # low to high
LAYER = {part: i for i, parts in enumerate(LAYERS) for part in parts.split()}


def imported(path, modules):
    """Yield the modules that one of the helpers' files imports, anywhere in its text, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they lead"
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in named)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def imports():
    """Return a dict of dotted name -> the dotted names of the helpers' files that it imports."""
    paths = {".".join(p.relative_to(ROOT.parent).with_suffix("").parts): p for p in ROOT.rglob("*.py")}
    paths = {name: path for name, path in paths.items() if not name.endswith("__init__")}
    return {name: {found for found in imported(path, paths) if found in paths} for name, path in paths.items()}


def test_imports_point_downward_and_never_in_a_circle():
    graph, part = imports(), lambda name: name.split(".")[1]
    assert {part(name) for name in graph} == set(LAYER) and sum(map(len, graph.values())) > 40
    upward = [
        f"{name} imports {found}"
        for name, names in graph.items()
        for found in names
        if part(name) != part(found) and LAYER[part(name)] <= LAYER[part(found)]
    ]
    assert not upward
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def test_nothing_imports_the_page():
    assert not [name for name, names in imports().items() if "helpers.apps.page" in names]


def test_no_two_files_have_one_name():
    names = Counter(name.rsplit(".", 1)[1] for name in imports() if not name.endswith("__main__"))
    assert not [name for name, count in names.items() if count > 1]
