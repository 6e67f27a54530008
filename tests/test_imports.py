"""The helpers' rooms: imports point downward only, never in a circle, and nothing needs the page."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import helpers

ROOT = Path(helpers.__file__).parent
FLOORS = [
    "config color exercises",
    "workspace",
    "outputs publish",
    "data models",
    "evaluation runs plots",
    "training inference",
]  # low to high
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms.split()}


def imported(path, modules):
    """The files of the helpers that one of them imports, anywhere in its text, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they lead"
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in named)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def imports():
    """A dict of dotted name -> the dotted names of the helpers' files that it imports."""
    paths = {".".join(p.relative_to(ROOT.parent).with_suffix("").parts): p for p in ROOT.rglob("*.py")}
    paths = {name: path for name, path in paths.items() if not name.endswith("__init__")}
    return {name: {found for found in imported(path, paths) if found in paths} for name, path in paths.items()}


def test_imports_point_downward_and_never_in_a_circle():
    graph, room = imports(), lambda name: name.split(".")[1]
    assert {room(name) for name in graph} == set(FLOOR) and sum(map(len, graph.values())) > 40
    upward = [
        f"{name} imports {found}"
        for name, names in graph.items()
        for found in names
        if room(name) != room(found) and FLOOR[room(name)] <= FLOOR[room(found)]
    ]
    assert not upward
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def test_nothing_imports_the_page():
    assert not [name for name, names in imports().items() if "helpers.inference.app" in names]
