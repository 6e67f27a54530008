"""The project's address goes into every notebook and the README, in the place of an earlier one."""

import re
import shutil

import nbformat
import pytest
from publish import FIRST, PROJECT, colab_link, publish


@pytest.fixture
def project(tmp_path):
    shutil.copytree(PROJECT / "notebooks", tmp_path / "notebooks")
    shutil.copy(PROJECT / "README.md", tmp_path)
    return tmp_path


def everything(project):
    return {path: path.read_text() for path in project.rglob("*") if path.suffix in (".md", ".ipynb")}


def test_an_address_goes_into_every_notebook_and_another_one_takes_its_place(project):
    first, second = "https://github.com/someone/colors", "https://github.com/other/place.git"
    for address, name in ((first, "someone/colors"), (second, "other/place"), (first, "someone/colors")):
        publish(address, project)
        for path in (project / "notebooks").rglob("*.ipynb"):
            cells = nbformat.read(path, as_version=4).cells
            assert sum(f'REPOSITORY = "{address}"' in cell.source for cell in cells) == 1
            assert cells[0].source.count("Open in Colab") == 1
            assert colab_link(name, path.relative_to(project).as_posix()) in cells[0].source
            text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
            assert not re.findall(r"\]\((?!https://|#)[\w./-]+\.\w+\)", text)  # Colab shows no relative picture
        assert (project / "README.md").read_text().count(f"({colab_link(name, FIRST)})") == 1
        text = (project / FIRST).read_text()
        assert f"](https://raw.githubusercontent.com/{name}/main/notebooks/images/00_start.jpg)" in text
        assert f"](https://github.com/{name}/blob/main/helpers/models/box/README.md)" in text
    assert not any("other/place" in text for text in everything(project).values())


@pytest.mark.parametrize("address", ["github.com/a/b", "https://example.org/a/b", "https://github.com/a", ""])
def test_an_address_that_colab_cannot_open_changes_nothing(project, address):
    before = everything(project)
    with pytest.raises(ValueError, match="https://github.com/owner/name"):
        publish(address, project)
    assert everything(project) == before
