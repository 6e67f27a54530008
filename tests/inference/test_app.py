"""The page for the browser, in a real one: photos in, color out, and what cannot be read stops nothing."""

import io
import os
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import odd_photos
import pytest
from browsing import LONG, UPLOAD, needs_browser, served
from notebook_tools import PROJECT
from PIL import Image

from helpers.inference.colorizer import Colorizer
from helpers.plots import images


@pytest.fixture(scope="module")
def address(tmp_path_factory, loud_generator):
    """Where the page is served, with a model whose colors are strong."""
    with served(tmp_path_factory.mktemp("served"), "adversarial", loud_generator) as place:
        yield place


@pytest.fixture
def page(browser, address):
    """The page, opened; it must not tell any other machine anything (Gradio 5 asks for a font and a script)."""
    page, asked = browser.new_page(viewport={"width": 1300, "height": 1000}), []
    page.on("request", lambda request: asked.append(request))
    page.goto(address)
    page.locator(UPLOAD).wait_for(state="attached", timeout=LONG)
    yield page
    page.close()
    elsewhere = [request for request in asked if not request.url.startswith((address, "data:", "blob:"))]
    assert all(request.method == "GET" for request in elsewhere)
    assert not elsewhere or version("gradio").startswith("5.")


def photo(path, size=(301, 203), **options):
    odd_photos.color(size).save(path, **options)
    return path


def downloaded(page, name):
    """Press the button that downloads a result; return it as a Pillow image."""
    button = page.get_by_text(f"Download {name}", exact=True)
    button.wait_for(timeout=LONG)
    with page.expect_download() as waiting:
        button.click()
    assert waiting.value.suggested_filename == name
    return Image.open(waiting.value.path())


def spread(image):
    """How far from gray an image is: the mean distance of its largest from its smallest channel."""
    return np.ptp(np.asarray(image.convert("RGB")).astype(int), axis=2).mean()


@needs_browser
def test_a_photo_is_uploaded_seen_in_color_and_downloaded_at_its_own_size(page, loud_generator, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "grandmother, 1911"
    gray = odd_photos.color((640, 431)).convert("L")
    gray.save(tmp_path / "old print.jpg", exif=exif)
    wanted = spread(Image.fromarray(Colorizer(loud_generator)(tmp_path / "old print.jpg", input_size=64)))
    page.set_input_files(UPLOAD, tmp_path / "old print.jpg")
    result = downloaded(page, "old print-in-color.jpg")
    assert result.size == (640, 431) and result.getexif()[0x010E] == "grandmother, 1911"
    assert wanted > 5 and spread(result) == pytest.approx(wanted, rel=0.1)
    shown = page.locator("img[src*='/file=']")
    assert [shown.nth(i).evaluate("image => image.naturalWidth") for i in range(2)] == [640, 640]
    colors = [spread(Image.open(_body(page, shown.nth(i).get_attribute("src")))) for i in range(2)]
    assert min(colors) < 1 and max(colors) == pytest.approx(wanted, rel=0.1)  # before is gray, after is not
    page.get_by_label("number input for Saturation").fill("0")
    page.keyboard.press("Tab")
    page.wait_for_function(
        "before => !document.querySelector(`img[src='${before}']`)", arg=shown.nth(1).get_attribute("src")
    )
    assert spread(downloaded(page, "old print-in-color.jpg")) < 2


def _body(page, address):
    """Return what is at an address of the page, as a file."""
    return io.BytesIO(page.request.get(address).body())


@needs_browser
def test_the_slider_of_the_notebooks_works_in_a_page_without_python(browser):
    page = browser.new_page()
    black, white = np.zeros((60, 90, 3), np.uint8), np.full((60, 90, 3), 255, np.uint8)
    page.set_content(images.slider(black, white).data)

    def column(x):
        shot = Image.open(io.BytesIO(page.locator("div > div").first.screenshot())).convert("L")
        return shot.getpixel((round(x * shot.width), shot.height // 2))

    assert column(0.25) < 10 and column(0.75) > 245  # before on the left, after on the right
    page.locator("input").evaluate("input => { input.value = 10; input.dispatchEvent(new Event('input')) }")
    assert column(0.05) < 10 and column(0.25) > 245
    page.close()


def test_wrong_weights_are_a_clear_error(tmp_path):
    env = os.environ | {"COLORIZE_WORKSPACE": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "helpers.inference.app", "--weights", "gone.safetensors"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "gone.safetensors is missing" in done.stderr
    assert "Traceback" not in done.stderr
