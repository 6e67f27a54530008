"""`make publish ADDRESS=...`: write the project's address into the notebooks and the README, with a badge for Colab."""

import os
import re
import sys
from pathlib import Path
from urllib.parse import urlparse

import nbformat

PROJECT = Path(__file__).resolve().parents[2]
FIRST = "notebooks/00_start_here.ipynb"
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({})\n\n"
LINK = re.compile(r"(!?)(\[[^][]*\])\(([\w./-]+)\)")  # of a picture or not, to a file beside the notebook
ADDRESS = re.compile(r'^REPOSITORY = "(.*?)"', flags=re.M)


def owner_and_name(address: str) -> str:
    """Return "owner/name" of an address; raises ValueError for one that is not on GitHub."""
    place = urlparse(address)
    found = place.path.removesuffix(".git").strip("/")
    if place.netloc != "github.com" or found.count("/") != 1:
        raise ValueError(f"ADDRESS={address!r} must look like https://github.com/owner/name: Colab opens those")
    return found


def colab_link(name: str, notebook: str) -> str:
    """Return where Colab opens a notebook, a path in the project; name: the project's owner and name."""
    return f"https://colab.research.google.com/github/{name}/blob/main/{notebook}"


def with_links(text: str, folder: str, name: str) -> str:
    """Return a Markdown text of a folder whose links to files of the project lead to GitHub and Colab."""

    def _absolute(link):
        path = os.path.normpath(f"{folder}/{link[3]}")
        web = f"https://raw.githubusercontent.com/{name}/main" if link[1] else f"https://github.com/{name}/blob/main"
        return f"{link[1]}{link[2]}({colab_link(name, path) if path.endswith('.ipynb') else f'{web}/{path}'})"

    return LINK.sub(_absolute, text)


def publish(address: str, project: Path = PROJECT) -> None:
    """Write an address into all setup cells, links and badges, in the place of an earlier one if there is one.

    Raises ValueError for an address that Colab cannot open.
    """
    name, readme = owner_and_name(address), project / "README.md"
    for path in sorted((project / "notebooks").rglob("*.ipynb")):
        notebook, place = nbformat.read(path, as_version=4), path.relative_to(project)
        old = next(found[1] for cell in notebook.cells if (found := ADDRESS.search(cell.source)))
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.source = ADDRESS.sub(f'REPOSITORY = "{address}"', cell.source)
            elif old:
                cell.source = cell.source.replace(owner_and_name(old), name)
            else:
                cell.source = with_links(cell.source, place.parent.as_posix(), name)
        if not old:
            notebook.cells[0].source = BADGE.format(colab_link(name, place.as_posix())) + notebook.cells[0].source
        nbformat.write(notebook, path)
    text = readme.read_text()
    readme.write_text(text.replace(owner_and_name(old), name) if old else BADGE.format(colab_link(name, FIRST)) + text)


if __name__ == "__main__":
    try:
        publish(sys.argv[1])
    except ValueError as error:
        sys.exit(str(error))
