"""The static page in a real browser: the colors of Python, hints, offline, bad files; and the exported graph."""

import copy
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnxruntime
import pytest
import torch
from bench.measures import taught
from browsing import LONG, UPLOAD, needs_browser
from PIL import Image
from skimage.data import astronaut, coffee
from torch import nn

from helpers.apps import share
from helpers.inference.colorizer import Colorizer
from helpers.inference.user_hints import Hint
from helpers.models.hint_attention import HintAttention

export, in_half = taught("11_share", "export", "in_half")
PHONE = {"width": 360, "height": 740}


class Small(nn.Module):
    """Strong colors from few layers, and hints."""

    trained_size = 128

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 5, padding=2), nn.Conv2d(8, 2, 5, padding=2)
        self.hint_attention = HintAttention((8,))

    def forward(self, L, hints=None):
        features = self.first(L).relu()
        ab = torch.tanh(self.last(features))
        return ab if hints is None else ab + self.hint_attention([features], L, ab, hints)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    network = Small().eval()
    with torch.no_grad():
        for weights in (network.first.weight, network.last.weight):
            weights.copy_(weights.half())  # as the page stores them
    return network


@pytest.fixture(scope="module")
def straight(network):
    """The network as it is on the page, where hints reach through edges."""
    network = copy.deepcopy(network)
    network.hint_attention.slots = 64
    return network


@pytest.fixture(scope="module")
def model(network):
    return in_half(export(network))


@pytest.fixture(scope="module")
def address(tmp_path_factory, model):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLORIZE_WORKSPACE", str(tmp_path_factory.mktemp("workspace")))
        try:
            folder = tmp_path_factory.mktemp("page")
            share.write_page(model, folder, "mine", Small.trained_size)
        except RuntimeError as error:
            pytest.skip(str(error))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture
def page(browser, address):
    """The page with its network loaded; nothing is asked of another host."""
    context, asked = browser.new_context(viewport={"width": 1280, "height": 900}), []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.goto(address)
    page.locator("#progress").wait_for(state="hidden", timeout=LONG)
    yield page
    context.close()
    assert len(asked) > 8 and all(url.startswith((address, "blob:", "data:")) for url in asked)


def color(page, path):
    """Give the page a photo, and wait for its colors."""
    page.set_input_files(UPLOAD, path)
    page.locator("#download:enabled").wait_for(timeout=LONG)


def downloaded(page):
    """Return the photo that the button "Download" saves, (H, W, 3)."""
    with page.expect_download(timeout=LONG) as waiting:
        page.get_by_role("button", name="Download").click()
    return np.asarray(Image.open(waiting.value.path()).convert("RGB")).astype(int)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "coffee.png"
    Image.fromarray(coffee()).resize((768, 512)).save(path)
    return path


@needs_browser
def test_the_page_has_the_colors_of_python_with_hints_and_saturation(page, photo, straight):
    colorizer = Colorizer(straight, "fp32")
    color(page, photo)
    plain, expected = downloaded(page), colorizer(photo).astype(int)
    assert np.ptp(expected, axis=2).mean() > 20  # it is in color
    difference = np.abs(plain - expected)
    assert plain.shape == (512, 768, 3) and difference.mean() < 0.1 and difference.max() <= 4
    stage = page.locator("#stage").bounding_box()
    page.locator("#stage").click(position={"x": stage["width"] * 0.2625, "y": stage["height"] * 0.5125})
    page.locator("#color").fill("#2040c0")
    page.locator("#saturation").fill("1.5")
    hinted, expected = downloaded(page), colorizer(photo, [Hint(202, 262, "#2040c0")], saturation=1.5).astype(int)
    difference = np.abs(hinted - expected)
    assert difference.mean() < 0.5 and difference.max() <= 4
    assert np.argmax(hinted[262, 202]) == 2 and np.abs(hinted - plain)[262, 202].max() > 20
    page.get_by_role("button", name="Undo").click()
    page.locator("#saturation").fill("1")
    assert np.array_equal(downloaded(page), plain)


@needs_browser
def test_after_one_visit_the_page_works_offline_on_a_phone(page, photo):
    page.context.set_offline(True)
    page.set_viewport_size(PHONE)
    page.reload()
    page.locator("#progress").wait_for(state="hidden", timeout=LONG)
    color(page, photo)
    assert downloaded(page).shape == (512, 768, 3)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@needs_browser
def test_what_is_no_photo_is_named_and_a_turned_photo_is_upright(page, tmp_path):
    (tmp_path / "notes.jpg").write_text("no photo")
    page.set_input_files(UPLOAD, tmp_path / "notes.jpg")
    page.get_by_text("notes.jpg is no photo").wait_for(timeout=LONG)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(astronaut()[:200, :320]).save(tmp_path / "turned.jpg", exif=exif)
    color(page, tmp_path / "turned.jpg")
    assert downloaded(page).shape == (320, 200, 3)


@pytest.mark.parametrize("size", [(64, 64), (160, 96), (96, 224)])
def test_the_graph_is_the_network_at_any_size_with_few_hints_and_many(straight, model, size):
    graph = onnxruntime.InferenceSession(model.SerializeToString())
    L, hints = torch.rand(1, 1, *size) * 2 - 1, torch.zeros(1, 3, *size)
    with torch.inference_mode():
        for spots in (0, 3, 20):
            for i in range(spots):
                hints[0, :, i, i : i + 5] = torch.tensor([0.2, -0.1, 1]).view(3, 1)
            expected = straight(L, hints) if spots else straight(L)
            found = graph.run(None, {"L": L.numpy(), "hints": hints.numpy()})[0]
            assert np.abs(found - expected.numpy()).max() < (1e-5 if spots == 0 else 2e-4)


class Untranslatable(nn.Module):
    def forward(self, x):
        return torch.linalg.qr(x)[0]


class Branching(nn.Module):
    def forward(self, x):
        return x if x.mean() > 0 else -x


@pytest.mark.parametrize("layer", [Untranslatable(), Branching()])
def test_a_layer_that_onnx_cannot_express_is_named(layer):
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.ReLU(), layer), nn.Tanh())
    with pytest.raises(ValueError, match="the layer '1.1' cannot be expressed in ONNX"):
        export(network)


def test_without_npm_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="Install Node.js"):
        share.library()
