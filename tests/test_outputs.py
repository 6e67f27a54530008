"""What committed notebooks hold to be read: from one run, small, without the machine's folders or its photos."""

import base64
import io
import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_output
from notebook_tools import PROJECT
from PIL import Image

from helpers.outputs import A_PATH, TAG, keep, kept

PATHS = sorted((PROJECT / "notebooks").glob("[0-9]*.ipynb"))
DRAWS_PHOTOS = re.compile(r"images\.(photos|strips|gallery|grid|patch_map|lab_channels|slider)\(")
# photos that may be shown: those that scikit-image ships, and Kodak24
FREE = re.compile(r"elsewhere|foreign|colorizer\(small|by_size|cropped|recolored|sepia|grays|at_edges|frames|strips\]")


def tagged(path):
    cells = nbformat.read(path, 4).cells
    return [cell for cell in cells if TAG in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_is_kept_is_captioned_small_and_shows_no_photo_that_may_not_be_shown(path):
    cells = tagged(path)
    assert len(cells) >= 3 and path.stat().st_size <= 2_000_000
    for cell in cells:
        assert not DRAWS_PHOTOS.search(cell.source) or FREE.search(cell.source), cell.source
        if cell.outputs:
            assert re.match(r"\[a run of profile laptop, \d{4}-\d\d-\d\d, \d+ CPU cores, ", cell.outputs[0].text)
        assert not A_PATH.search("".join(str(output) for output in cell.outputs if "image/png" not in str(output)))


def picture(width):
    file = io.BytesIO()
    Image.effect_noise((width, 40), 80).convert("RGB").save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_figures_get_small_and_what_is_said_on_the_side_goes():
    outputs = [
        new_output("stream", name="stderr", text="a progress bar"),
        new_output("stream", name="stdout", text="22.5 dB\n"),
        new_output("display_data", data={"image/png": picture(3000), "text/plain": "<Figure>"}),
        new_output("execute_result", data={"text/plain": "  PSNR", "text/html": "<table>", "application/json": "{}"}),
    ]
    caption, said, figure, table = kept(new_code_cell(outputs=outputs), "a run")
    assert caption.text == "[a run]\n" and said.text == "22.5 dB\n" and set(table.data) == {"text/plain", "text/html"}
    assert Image.open(io.BytesIO(base64.b64decode(figure.data["image/png"]))).width == 1100
    assert len(figure.data["image/png"]) < len(picture(3000))


@pytest.mark.parametrize("text", ["saved in /home/me/runs", "'/tmp/x'", "/content/drive/MyDrive"])
def test_a_folder_of_the_machine_is_refused(text):
    with pytest.raises(ValueError, match="names a folder of this machine"):
        kept(new_code_cell(outputs=[new_output("stream", text=text)]), "a run")


def test_addresses_and_shares_are_no_folders():
    assert not A_PATH.search("https://example.org/tmp/x and 3/4 and a/root")


def test_a_notebook_that_another_profile_executed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("COLORIZE_PROFILE", "laptop")
    for folder in ("executed", "notebooks"):
        (tmp_path / folder).mkdir()
        told = new_output("stream", text="device     cpu\nprofile    quick, run 'quick', seed 0\n")
        nbformat.write(nbformat.v4.new_notebook(cells=[new_code_cell(outputs=[told])]), tmp_path / folder / "01.ipynb")
    with pytest.raises(ValueError, match="01.ipynb was executed in profile quick, not in laptop"):
        keep(tmp_path / "executed", tmp_path / "notebooks", "photos")
