"""`make publish ADDRESS=...`: write the project's address into the notebooks and the README, with a badge for Colab."""

import re
import sys
from pathlib import Path
from urllib.parse import urlparse

import nbformat

PROJECT = Path(__file__).resolve().parents[2]
FIRST = "notebooks/00_start_here.ipynb"
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({})"
OLD = re.compile(r"\[!\[Open in Colab\].*?\)\]\(.*?\)\n\n")


def colab_link(address: str, notebook: str) -> str:
    """Return where Colab opens a notebook, a path in the project; raises ValueError for an address not on GitHub."""
    place = urlparse(address)
    owner_and_name = place.path.removesuffix(".git").strip("/")
    if place.netloc != "github.com" or owner_and_name.count("/") != 1:
        raise ValueError(f"ADDRESS={address!r} must look like https://github.com/owner/name: Colab opens those")
    return f"https://colab.research.google.com/github/{owner_and_name}/blob/main/{notebook}"


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
        link = colab_link(address, path.relative_to(project).as_posix()) if address else ""
        notebook.cells[0].source = with_badge(notebook.cells[0].source, link)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.source = re.sub(r'^REPOSITORY = ".*?"', f'REPOSITORY = "{address}"', cell.source, flags=re.M)
        nbformat.write(notebook, path)
    readme = project / "README.md"
    readme.write_text(with_badge(readme.read_text(), colab_link(address, FIRST) if address else ""))


if __name__ == "__main__":
    try:
        publish(sys.argv[1] if len(sys.argv) > 1 else "")
    except ValueError as error:
        sys.exit(str(error))
