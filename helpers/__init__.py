"""The plumbing of the notebooks. Importing it checks that the packages are as new as requirements.txt wants them."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import Version

NEEDED = ("torch", "torchvision", "lpips", "kornia", "accelerate", "scikit-image", "numpy")


def check_versions():
    """Raise ImportError, with what to do, when a package is missing or older than requirements.txt says."""
    lines = (Path(__file__).parent.parent / "requirements.txt").read_text().splitlines()
    wanted = dict(line.split("#")[0].strip().split(">=") for line in lines if ">=" in line)
    for name in NEEDED:
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "0"
        if Version(found) < Version(wanted[name]):
            have = f"{name} {found} is installed" if found != "0" else f"{name} is not installed"
            raise ImportError(
                f"{have}, and this series needs {wanted[name]} or newer: `pip install -U {name}`; on Colab choose "
                "Runtime > Disconnect and delete runtime, and run the setup cell again."
            )


check_versions()
