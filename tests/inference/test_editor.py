"""The notebook's editor for hints: its Python half, and its half for the browser with a stand-in for Jupyter's."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from browsing import needs_browser
from PIL import Image
from skimage.data import coffee

from helpers.inference.colorizer import Colorizer
from helpers.inference.editor import HintEditor
from helpers.inference.user_hints import Hint
from helpers.models.generator import Generator

STAND_IN = """
const values = %s, heard = {};
window.model = {get: (name) => values[name], set: (name, value) => { values[name] = value; },
  save_changes: () => { window.said = values.hints; (heard["change:hints"] ?? []).forEach((f) => f()); },
  on: (event, f) => (heard[event] ??= []).push(f)};
const blob = new Blob([%s], {type: "text/javascript"});
import(URL.createObjectURL(blob)).then((module) => module.default.render({model, el: document.body}));
"""


@pytest.fixture(scope="module")
def colorizer():
    torch.manual_seed(0)
    generator = Generator(weights=None, res_blocks=0, hints=True).eval()
    generator.trained_size = 64
    return Colorizer(generator, "fp32")


def picture(editor):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(editor.picture))))


def test_the_picture_follows_the_hints_which_are_in_the_photos_own_pixels(colorizer):
    photo = np.asarray(Image.fromarray(coffee()).resize((1203, 805)).convert("L"))
    editor = HintEditor(colorizer, photo, [Hint(1202, 804, "#907060")])
    first = picture(editor)
    assert first.shape == (400, 598, 3) and editor.said == [Hint(1202, 804, "#907060")]
    editor.hints = [*editor.hints, {"x": 300, "y": 200, "color": "#c03020"}]
    change = np.abs(picture(editor).astype(int) - first).sum(2)
    assert change[100, 149] > 20 and change[380, 580] == 0
    assert np.array_equal(editor.colored(), colorizer(photo, editor.said))
    editor.hints = editor.hints[:-1]
    assert np.array_equal(picture(editor), first)


@needs_browser
def test_a_click_says_a_color_at_its_place_and_is_taken_back(browser, colorizer):
    editor = HintEditor(colorizer, coffee())
    names = ("picture", "size", "hints", "color")
    page = browser.new_page()
    page.goto("about:blank")
    script = STAND_IN % (json.dumps({name: getattr(editor, name) for name in names}), json.dumps(str(editor._esm)))
    page.evaluate(f"() => {{ {script} }}")
    image = page.locator("img")
    image.wait_for()
    page.wait_for_function("() => document.querySelector('img').naturalWidth > 0")
    box = image.bounding_box()
    assert box["width"] == pytest.approx(600, abs=1)
    image.click(position={"x": 150, "y": 300})
    page.locator("input").fill("#2050c0")
    image.click(position={"x": 599, "y": 10})
    said = page.evaluate("window.said")
    assert said == [{"x": 150, "y": 300, "color": "#c03020"}, {"x": 599, "y": 10, "color": "#2050c0"}]
    assert [Hint(**hint) for hint in said] and page.locator("i").count() == 2
    page.get_by_text("take the last one back").click()
    assert page.evaluate("window.said") == said[:1] and page.locator("i").count() == 1
    page.close()
