"""The page for the browser, in a real one: photos in, color out; a result is withdrawn when its input changes."""

import io

import gradio as gr
import numpy as np
import odd_photos
import pytest
from browsing import LONG, UPLOAD, needs_browser, served
from PIL import Image
from skimage.color import rgb2lab
from skimage.data import coffee

from helpers.apps import page as page_module
from helpers.inference.colorizer import Colorizer
from helpers.inference.user_hints import Hint
from helpers.models.srresnet import SRResNet

EDITOR, RESULT, RINGS = "#hints-editor", "#hints-result img", "#hints-asked img"
LIKELY, TILES = "#hints-likely button img", page_module.LIKELY + 1


@pytest.fixture(scope="module")
def address(tmp_path_factory, hinted_generator):
    with served(tmp_path_factory.mktemp("served"), "hints", hinted_generator, superres=SRResNet(1)) as place:
        yield place


@pytest.fixture
def page(browser, address):
    """The page, opened; nothing is sent elsewhere (Gradio 5 asks for a font and a script)."""
    page, asked = browser.new_page(viewport={"width": 1400, "height": 1100}), []
    page.on("request", lambda request: asked.append(request))
    page.goto(address)
    page.locator(UPLOAD).first.wait_for(state="attached", timeout=LONG)
    yield page
    page.close()
    assert all(each.method == "GET" or each.url.startswith((address, "data:", "blob:")) for each in asked)


def downloaded(page, name):
    """Press the button that downloads a result; return it as a Pillow image."""
    button = page.get_by_text(f"Download {name}", exact=True)
    button.wait_for(timeout=LONG)
    with page.expect_download() as waiting:
        button.click()
    assert waiting.value.suggested_filename == name
    return Image.open(waiting.value.path())


def chroma(image):
    """The mean distance of an image from gray."""
    return np.hypot(*np.moveaxis(rgb2lab(image.convert("RGB")), 2, 0)[1:]).mean()


def body(page, address):
    """What is at an address of the page, as a Pillow image."""
    return Image.open(io.BytesIO(page.request.get(address).body())).convert("RGB")


@needs_browser
def test_photos_are_seen_in_color_and_downloaded_and_what_is_no_photo_is_named(page, tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "grandmother, 1911"
    odd_photos.color((320, 215)).convert("L").save(tmp_path / "old print.jpg", exif=exif)
    odd_photos.color((40, 30)).save(tmp_path / "other.png")
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    (tmp_path / "film.mp4").write_bytes(b"a film")
    files = [tmp_path / name for name in ("old print.jpg", "other.png", "broken.jpg", "film.mp4")]
    page.set_input_files(f"{UPLOAD} >> nth=0", files)
    page.get_by_text("broken.jpg cannot be read as a photo").wait_for(timeout=LONG)
    page.get_by_text("film.mp4: this is a film: drop it on the tab Films").wait_for(timeout=LONG)
    result = downloaded(page, "old print-in-color.jpg")
    assert result.size == (320, 215) and result.getexif()[0x010E] == "grandmother, 1911" and chroma(result) > 1.2
    shown = page.locator("img[src*='/file=']")
    before, after = (body(page, shown.nth(i).get_attribute("src")) for i in range(2))
    assert before.size == after.size == (320, 215) and chroma(before) < 0.5 < 1.2 < chroma(after)
    assert downloaded(page, "other-in-color.png").size == (40, 30)
    first = shown.nth(1).get_attribute("src")
    page.get_by_label("number input for Saturation").fill("0")
    page.keyboard.press("Tab")
    page.wait_for_function("before => !document.querySelector(`img[src='${before}']`)", arg=first, timeout=LONG)
    assert chroma(downloaded(page, "old print-in-color.jpg")) < 0.5
    page.get_by_label("Enlarge four times").check()
    page.get_by_text("other.png, 160x120").first.wait_for(timeout=LONG)


def open_cup(page, folder, photo=None):
    """Drop a gray photo on the tab for hints, and wait until it is in color."""
    page.get_by_role("tab", name="Hints").click()
    Image.fromarray(coffee() if photo is None else photo).convert("L").save(folder / "cup.png")
    page.locator("#hints-photo input[type=file]").first.set_input_files(folder / "cup.png")
    page.locator(RINGS).wait_for(timeout=LONG)


def shown(page):
    """The picture under "In color"."""
    return np.asarray(body(page, page.locator(RESULT).get_attribute("src")))


def wait_for_questions(page, count):
    """Wait until the page shows the likely colors of so many questions."""
    tiles = "([place, count]) => document.querySelectorAll(place).length == count"
    page.wait_for_function(tiles, arg=[LIKELY, count * TILES], timeout=LONG)


def answered(page, tile):
    """Click one of the likely colors; return the new picture, and the Lab color that was clicked."""
    color = page.locator(LIKELY).nth(tile)
    wanted = rgb2lab(np.asarray(body(page, color.get_attribute("src"))))[30, 30]
    return changed(page, color.click), wanted


def changed(page, act):
    """Do something that changes the picture under "In color"; return the new one."""
    before = page.locator(RESULT).get_attribute("src")
    act()
    page.wait_for_function(
        "([place, before]) => document.querySelector(place)?.src != before", arg=[RESULT, before], timeout=LONG
    )
    return shown(page)


def stroke(page):
    """Draw a short line with the brush, which is red at first."""
    box = page.locator(f"{EDITOR} canvas").first.bounding_box()
    x, y = box["x"] + box["width"] * 0.45, box["y"] + box["height"] * 0.45
    page.mouse.move(x - 10, y)
    page.mouse.down()
    page.mouse.move(x + 10, y, steps=3)
    page.mouse.up()


@needs_browser
def test_a_hint_changes_the_picture_and_withdraws_the_old_download(page, tmp_path):
    open_cup(page, tmp_path)
    page.locator(f"{EDITOR} canvas").first.wait_for(timeout=LONG)
    page.wait_for_timeout(1000)  # until the editor has drawn the photo
    first = shown(page)
    page.get_by_text("Color at full size").click()
    plain = downloaded(page, "cup-in-color.png")
    painted = changed(page, lambda: stroke(page))
    red = (rgb2lab(painted) - rgb2lab(first))[..., 1]
    assert red.max() > 15 and (red > 10).mean() < 0.25 and np.median(np.abs(red)) < 3  # where the stroke is
    page.get_by_text("Download cup-in-color.png", exact=True).wait_for(state="hidden", timeout=LONG)
    page.get_by_text("Color at full size").click()
    whole = downloaded(page, "cup-in-color.png")
    assert whole.size == plain.size == (600, 400)
    small = np.asarray(whole.resize(painted.shape[1::-1], Image.Resampling.BOX))
    assert np.abs((rgb2lab(small) - rgb2lab(painted))[..., 1]).mean() < 1
    assert np.array_equal(changed(page, page.get_by_role("button", name="Undo", exact=True).click), first)
    picture = page.locator(RESULT)
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] * 0.4, "y": box["height"] * 0.3})
    wait_for_questions(page, 1)  # one question: this place
    chosen, wanted = answered(page, 3)
    here = rgb2lab(chosen)[round(len(chosen) * 0.3), round(chosen.shape[1] * 0.4)]
    assert np.hypot(*(here - wanted)[1:]) < 3
    assert np.array_equal(changed(page, page.get_by_text("Undo the last chosen color").click), first)


@needs_browser
def test_three_questions_are_answered_by_clicks(page, tmp_path):
    open_cup(page, tmp_path)
    seen = {page.locator(RINGS).get_attribute("src")}
    for tile in (1, 1, TILES - 1):  # the same tile twice, then "none of these"
        if tile == TILES - 1:
            page.locator(LIKELY).nth(tile).click()
            wait_for_questions(page, 1)
            before, use = rgb2lab(shown(page)), page.get_by_text("Use this color")
            after, wanted = rgb2lab(changed(page, use.click)), rgb2lab([[[0xC0 / 255, 0x30 / 255, 0x20 / 255]]])[0, 0]
        else:
            before = rgb2lab(shown(page))
            after, wanted = answered(page, tile)
            after = rgb2lab(after)
        far = lambda lab, wanted=wanted: np.hypot(*np.moveaxis(lab - wanted, 2, 0)[1:])  # noqa: E731
        assert (far(after) < 3).sum() > (far(before) < 3).sum() + 20  # there, and around it
        page.wait_for_function(
            "([place, old]) => !old.includes(document.querySelector(place)?.src)",
            arg=[RINGS, sorted(seen)],
            timeout=LONG,
        )  # other questions follow
        seen.add(page.locator(RINGS).get_attribute("src"))
        wait_for_questions(page, 3)
    page.get_by_text("Ask me more").click()
    wait_for_questions(page, 6)


@needs_browser
def test_a_flat_photo_raises_no_question(page, tmp_path):
    open_cup(page, tmp_path, np.full((90, 120), 130, np.uint8))
    page.get_by_text("The model has no question").first.wait_for(timeout=LONG)
    assert page.locator(LIKELY).count() == 0


def test_hints_are_scaled_to_the_photo_and_empty_layers_are_none(hinted_generator):
    with gr.Blocks():
        tab = page_module.HintsTab(Colorizer(hinted_generator, "fp32"), "")
    layers = [None, np.zeros((4, 4, 4), np.uint8), np.full((4, 4, 4), 255, np.uint8)]
    found = tab.hints(coffee(), {"layers": layers}, [Hint(10, 20, "red")], None, 1.0, share=2.5)
    assert found[0] is layers[2] and found[1:] == [Hint(25, 50, "red")]
    assert len(tab.hints(coffee(), None, [], coffee(), 1.0)) == 1


def test_wrong_weights_are_a_clear_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        page_module.main(["--weights", str(tmp_path / "gone.safetensors")])
    assert ended.value.code == 2 and "gone.safetensors is missing" in capsys.readouterr().err
