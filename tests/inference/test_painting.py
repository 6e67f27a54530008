"""The page's tab for hints, in a real browser: a stroke, a likely color, taking back, the photo at its full size."""

import io

import numpy as np
import pytest
from browsing import needs_browser, served
from PIL import Image
from skimage.color import rgb2lab
from skimage.data import coffee

LONG = 30_000  # ms
EDITOR, RESULT, LIKELY = "#hints-editor", "#hints-result img", "#hints-likely"
SIZE = (1200, 800)  # of the photo; the page shows it smaller
PLACE = (0.4, 0.3)  # of a stroke's middle, as shares of width and height


@pytest.fixture(scope="module")
def address(tmp_path_factory, hinted_generator):
    with served(tmp_path_factory.mktemp("served"), "hints", hinted_generator) as place:
        yield place


@pytest.fixture
def page(browser, address, tmp_path):
    """The tab, with a gray photo in it."""
    page = browser.new_page(viewport={"width": 1400, "height": 1100})
    page.goto(address)
    page.get_by_role("tab", name="Hints").click()
    Image.fromarray(coffee()).resize(SIZE).convert("L").save(tmp_path / "cup.png")
    page.locator("#hints-photo input[type=file]").set_input_files(tmp_path / "cup.png")
    page.locator(RESULT).wait_for(timeout=LONG)
    page.locator(f"{EDITOR} canvas").first.wait_for(timeout=LONG)
    page.wait_for_timeout(1000)  # until the editor has drawn the photo
    yield page
    page.close()


def seen(page):
    """What stands under "In color"."""
    address = page.locator(RESULT).get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(page.request.get(address).body())).convert("RGB"))


def changed(page, act):
    """Do something that changes the result; return the new one."""
    before = page.locator(RESULT).get_attribute("src")
    act()
    page.wait_for_function(
        "([place, before]) => document.querySelector(place)?.src != before", arg=[RESULT, before], timeout=LONG
    )
    return seen(page)


def stroke(page, place=0.45):
    """Draw a short line with the brush, which is red at first."""
    box = page.locator(f"{EDITOR} canvas").first.bounding_box()
    x, y = box["x"] + box["width"] * place, box["y"] + box["height"] * place
    page.mouse.move(x - 10, y)
    page.mouse.down()
    page.mouse.move(x + 10, y, steps=3)
    page.mouse.up()


def redness(rgb):
    """a* of each pixel: what is red."""
    return rgb2lab(rgb)[..., 1]


@needs_browser
def test_a_likely_color_is_chosen_at_a_place_and_taken_back(page):
    first, image = seen(page), page.locator(RESULT)
    box = image.bounding_box()
    image.click(position={"x": box["width"] * PLACE[0], "y": box["height"] * PLACE[1]})
    colors = page.locator(f"{LIKELY} button img")
    colors.nth(3).wait_for(timeout=LONG)
    assert colors.count() >= 4
    said = seen_color(page, colors.nth(3))
    chosen = changed(page, colors.nth(3).click)
    height, width = chosen.shape[:2]
    here = rgb2lab(chosen)[round(height * PLACE[1]), round(width * PLACE[0])]
    assert np.hypot(*(here - said)[1:]) < 3
    assert np.array_equal(changed(page, page.get_by_text("Undo the last chosen color").click), first)


def seen_color(page, image):
    """The Lab color of a swatch."""
    body = page.request.get(image.get_attribute("src")).body()
    return rgb2lab(np.asarray(Image.open(io.BytesIO(body)).convert("RGB")))[5, 5]


@needs_browser
def test_the_photo_is_downloaded_at_its_own_size_with_its_hints(page):
    first = seen(page)
    painted = changed(page, lambda: stroke(page))
    page.get_by_text("Color at full size").click()
    button = page.get_by_text("Download cup-in-color.png")
    button.wait_for(timeout=LONG)
    with page.expect_download() as waiting:
        button.click()
    whole = Image.open(waiting.value.path()).convert("RGB")
    assert whole.size == SIZE
    small = np.asarray(whole.resize(painted.shape[1::-1], Image.Resampling.BOX))
    assert np.abs(redness(small) - redness(painted)).mean() < 1
    assert (redness(small) - redness(first)).max() > 12
    changed(page, lambda: stroke(page, 0.6))
    button.wait_for(state="hidden", timeout=LONG)  # the old result is withdrawn
