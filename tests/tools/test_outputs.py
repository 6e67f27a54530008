"""The outputs that committed notebooks show: of one run, small, without the machine's folders or photos of others."""

import base64
import io
import re
from pathlib import Path

import nbformat
import pytest
import skimage.data
from nbformat.v4 import new_code_cell, new_output
from outputs import A_PATH, FREE, TAG, keep, tidy_outputs
from PIL import Image, ImageDraw

PATHS = sorted((Path(__file__).resolve().parents[2] / "notebooks").rglob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_committed_outputs_are_captioned_and_small_and_their_photos_are_free(path):
    assert path.stat().st_size <= 3_000_000
    cells = nbformat.read(path, 4).cells
    where = r"Outputs stored here: a run of profile \w+, \d{4}-\d\d-\d\d, \d+ CPU cores, "
    assert re.match(where, cells[1].source) or not any(cell.get("outputs") for cell in cells)
    for cell in cells:
        tags, outputs = cell.metadata.get("tags", []), cell.get("outputs", [])
        assert TAG in tags or not outputs
        photos = [output for output in outputs if {"image/jpeg", "image/gif"} & set(output.get("data", {}))]
        assert FREE in tags or not photos
        assert not A_PATH.search("".join(str(output) for output in outputs if "image/" not in str(output)))


def png(image):
    image.save(file := io.BytesIO(), "PNG", compress_level=1)
    return new_output("display_data", data={"image/png": base64.b64encode(file.getvalue()).decode()})


def test_photos_become_jpegs_drawings_stay_exact_and_progress_bars_and_folders_go(capsys):
    drawing = Image.new("RGB", (1600, 400), "white")
    ImageDraw.Draw(drawing).line([(0, 0), (800, 390), (1600, 10)], "blue", 3)
    outputs = [
        new_output("stream", name="stderr", text="a progress bar"),
        new_output("stream", name="stdout", text="22.5 dB\n"),
        png(Image.fromarray(skimage.data.coffee()).resize((1200, 800))),
        png(drawing),
        new_output("execute_result", data={"text/plain": "  PSNR", "text/html": "<table>", "application/json": "{}"}),
        new_output("display_data", data={"image/gif": "a film"}),
    ]
    cell = new_code_cell(outputs=outputs, metadata={"tags": [TAG, FREE]})
    text, figure, curve, table, film = tidy_outputs(cell)
    assert text.text == "22.5 dB\n" and set(table.data) == {"text/plain", "text/html"}
    assert [set(each.data) for each in (figure, curve, film)] == [{"image/jpeg"}, {"image/png"}, {"image/gif"}]
    assert Image.open(io.BytesIO(base64.b64decode(figure.data["image/jpeg"]))).width == 1100
    assert tidy_outputs(new_code_cell(outputs=outputs)) == [text, curve, table]
    assert FREE in capsys.readouterr().out
    for text in ("saved in /home/me/runs", "'/tmp/x'", "/content/drive/MyDrive"):
        with pytest.raises(ValueError, match="prints a folder of this machine"):
            tidy_outputs(new_code_cell(outputs=[new_output("stream", text=text)]))
    assert not A_PATH.search("https://example.org/tmp/x and 3/4 and a/root")


def test_only_the_named_notebooks_are_copied_and_only_from_this_profile(tmp_path, monkeypatch):
    papermill = {"papermill": {"end_time": "2026-11-27T09:00:00"}}
    outputs = [new_output("stream", text="profile    quick, run 'quick', seed 0\n")]
    folders = tmp_path / "executed", tmp_path / "notebooks"
    for folder, found in zip(folders, (outputs, []), strict=True):
        folder.mkdir()
        cell = new_code_cell(outputs=found, metadata={"tags": [TAG]}, id="one")
        for name in ("06.ipynb", "07.ipynb"):
            nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=papermill), folder / name)
    monkeypatch.setenv("COLORIZE_PROFILE", "laptop")
    with pytest.raises(ValueError, match="06.ipynb was executed in profile quick, not in laptop"):
        keep(*folders, "the box")
    monkeypatch.setenv("COLORIZE_PROFILE", "quick")
    keep(*folders, "the box", "07")
    first, second = (nbformat.read(folders[1] / name, 4).cells for name in ("06.ipynb", "07.ipynb"))
    assert not first[0].outputs and "the box" in second[1].source and second[0].outputs == outputs
