"""A browser for the tests of the page, and a generator that takes hints."""

import pytest
import torch
from browsing import CHROMIUM, PAINTS, QUIET
from skimage.data import coffee

from helpers.models.generator import Generator
from helpers.models.likely_colors import count_colors


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *PAINTS])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def hinted_generator():
    """A generator whose hints matter, though it was never trained."""
    torch.manual_seed(0)
    generator = Generator(weights=None, res_blocks=0, hints=True)
    with torch.no_grad():
        generator.head.weight.mul_(5)
        for conv in generator.hint_convs:
            torch.nn.init.normal_(conv.weight, std=0.05)
        generator.palette.copy_(count_colors(generator, torch.from_numpy(coffee()).permute(2, 0, 1)[None]))
    generator.trained_size = 64
    return generator.eval()
