"""A browser for the tests of the page."""

import pytest
from browsing import CHROMIUM, PAINTS, QUIET


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *PAINTS])
        yield browser
        browser.close()
