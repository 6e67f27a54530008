"""The helpers' layers: imports point downward only, never in a circle, none to the page; what is missing is named."""

import ast
import importlib.util
import runpy
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import helpers

ROOT = Path(helpers.__file__).parent
LAYERS = "config color files, workspace, data models, evaluation plots runs, inference, apps training"  # low to high
LAYER = {part: i for i, parts in enumerate(LAYERS.split(", ")) for part in parts.split()}


def imports():
    """Return a dict of dotted name -> the dotted names of the helpers' files that it imports, anywhere in its text."""
    paths = {".".join(p.relative_to(ROOT.parent).with_suffix("").parts): p for p in ROOT.rglob("*.py")}
    graph = {name: set() for name in paths if not name.endswith("__init__")}
    for name, found in graph.items():
        for node in ast.walk(ast.parse(paths[name].read_text())):
            assert not getattr(node, "level", 0), f"{name}: relative imports hide where they lead"
            if isinstance(node, ast.ImportFrom):
                found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    return {name: found & graph.keys() for name, found in graph.items()}


def test_imports_point_downward_never_in_a_circle_and_never_to_the_page():
    graph, part = imports(), lambda name: name.split(".")[1]
    assert {part(name) for name in graph} == set(LAYER) and sum(map(len, graph.values())) > 40
    pairs = [(name, found) for name, names in graph.items() for found in names if part(name) != part(found)]
    assert not [(name, found) for name, found in pairs if LAYER[part(name)] <= LAYER[part(found)]]
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle
    assert "helpers.apps.page" not in set().union(*graph.values())
    names = Counter(name.rsplit(".", 1)[1] for name in graph if not name.endswith("__main__"))
    assert max(names.values()) == 1  # no two files have one name


def test_a_missing_package_is_named_with_what_to_do(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "safetensors" else find_spec(name))
    with pytest.raises(ImportError, match="safetensors is not installed.*pip install"):
        runpy.run_path(helpers.__file__)
