"""`make publish ADDRESS=...`: write the project's address into the notebooks and the README, with a badge for Colab."""

import os
import re
import sys
from pathlib import Path
from urllib.parse import urlparse

import nbformat

PROJECT = Path(__file__).resolve().parents[2]
FIRST = "notebooks/00_start_here.ipynb"
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({})"
OLD = re.compile(r"\[!\[Open in Colab\].*?\)\]\(.*?\)\n\n")
LINK = re.compile(r"(!?)(\[[^][]*\])\(([\w./-]+)\)")  # of a picture or not, to a file beside the notebook
ADDRESS = re.compile(r'^REPOSITORY = "(.*?)"', flags=re.M)


def owner_and_name(address: str) -> str:
    """Return "owner/name" of an address; raises ValueError for one that is not on GitHub."""
    place = urlparse(address)
    found = place.path.removesuffix(".git").strip("/")
    if place.netloc != "github.com" or found.count("/") != 1:
        raise ValueError(f"ADDRESS={address!r} must look like https://github.com/owner/name: Colab opens those")
    return found


def colab_link(address: str, notebook: str) -> str:
    """Return where Colab opens a notebook, a path in the project; raises ValueError for an address not on GitHub."""
    return f"https://colab.research.google.com/github/{owner_and_name(address)}/blob/main/{notebook}"


def with_links(text: str, folder: str, old: str, new: str) -> str:
    """Return a Markdown text whose links to files of the project lead to its address on the web, as Colab needs them.

    folder: that of the text, in the project; old, new: addresses; links of the old one become relative before, and
    stay so if the new one is empty.
    """

    def _absolute(link):
        path = os.path.normpath(f"{folder}/{link[3]}")
        web = f"https://raw.githubusercontent.com/{name}/main" if link[1] else f"https://github.com/{name}/blob/main"
        return f"{link[1]}{link[2]}({colab_link(new, path) if path.endswith('.ipynb') else f'{web}/{path}'})"

    if old:
        web = rf"\(https://[\w./]+?/{re.escape(owner_and_name(old))}/(?:blob/)?main/([\w./-]+)\)"
        text = re.sub(web, lambda path: f"({os.path.relpath(path[1], folder)})", text)
    name = owner_and_name(new) if new else ""
    return LINK.sub(_absolute, text) if new else text


def with_badge(text: str, link: str) -> str:
    """Return a Markdown text with a badge above its first line, or without one if the link is empty."""
    text = OLD.sub("", text, count=1)
    return f"{BADGE.format(link)}\n\n{text}" if link else text


def publish(address: str, project: Path = PROJECT) -> None:
    """Write an address into all setup cells, and badges into the notebooks and the README; an empty one removes them.

    Raises ValueError for an address that Colab cannot open.
    """
    for path in sorted((project / "notebooks").rglob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        place = path.relative_to(project)
        old = next(found[1] for cell in notebook.cells if (found := ADDRESS.search(cell.source)))
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.source = ADDRESS.sub(f'REPOSITORY = "{address}"', cell.source)
            else:
                cell.source = with_links(cell.source, place.parent.as_posix(), old, address)
        link = colab_link(address, place.as_posix()) if address else ""
        notebook.cells[0].source = with_badge(notebook.cells[0].source, link)
        nbformat.write(notebook, path)
    readme = project / "README.md"
    readme.write_text(with_badge(readme.read_text(), colab_link(address, FIRST) if address else ""))


if __name__ == "__main__":
    try:
        publish(sys.argv[1] if len(sys.argv) > 1 else "")
    except ValueError as error:
        sys.exit(str(error))
