"""Run the notebooks' setup cell with the real pip, and show that it changes no package that was there.

Called by `make test-colab`, in an environment that holds what Colab has preinstalled.
"""

import contextlib
import os
import sys
import tempfile
import types
from importlib.metadata import distributions
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell

PROJECT = Path(__file__).resolve().parent.parent


def installed() -> dict[str, str]:
    """Return the version of every installed package."""
    return {package.metadata["Name"]: package.version for package in distributions()}


if __name__ == "__main__":
    setup = (PROJECT / "tests/tools/setup_cell.txt").read_text()
    setup = setup.replace('REPOSITORY = ""', f"REPOSITORY = 'file://{PROJECT}'")
    sys.modules["google.colab"] = types.ModuleType("google.colab")
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # Colab's pip is its kernel's
    before = installed()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        InteractiveShell.instance().run_cell(setup).raise_error()
        assert (Path(folder) / "colorization" / "helpers" / "config.py").exists()
    after = installed()
    print("the setup cell added:", after.keys() - before.keys())
    if changed := {name: (version, after.get(name)) for name, version in before.items() if after.get(name) != version}:
        sys.exit(f"the setup cell changed: {changed}")
