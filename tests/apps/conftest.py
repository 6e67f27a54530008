"""What the tests of files share: a colorizer, a run with its network, a film, and a browser."""

import films
import pytest
from browsing import CHROMIUM, PAINTS, QUIET

from helpers.inference.colorizer import Colorizer
from helpers.runs import Run


@pytest.fixture
def colorizer(loud_generator):
    return Colorizer(loud_generator, "fp32")


@pytest.fixture
def run(loud_generator, cfg):
    """A run that has left a colorizer, for the command and the page."""
    run = Run("mine")
    run.path.mkdir(parents=True)
    run.save("adversarial", loud_generator, cfg)
    return run


@pytest.fixture
def clip(tmp_path):
    """A film of two shots with sound."""
    return films.write(tmp_path / "clip.mp4", films.shots(10, 12), sound=("aac",))


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *PAINTS])
        yield browser
        browser.close()
