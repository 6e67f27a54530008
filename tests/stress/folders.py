"""The page under stress: ten people at once."""

import odd_photos
from browsing import CHROMIUM, LONG, PAINTS, QUIET, UPLOAD, needs_browser, served
from PIL import Image


@needs_browser
def test_ten_people_with_ten_photos_each_are_all_answered(loud_generator, tmp_path):
    from playwright.sync_api import sync_playwright

    (tmp_path / "served").mkdir()
    with served(tmp_path / "served", "adversarial", loud_generator) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *PAINTS])
        pages = [browser.new_page() for _ in range(10)]
        for i, page in enumerate(pages):
            page.goto(address)
            page.locator(UPLOAD).first.wait_for(state="attached", timeout=LONG)
            files = [tmp_path / f"{i}-{j}.jpg" for j in range(10)]
            for j, file in enumerate(files):
                odd_photos.color((200 + i, 150 + j)).save(file)
            page.set_input_files(f"{UPLOAD} >> nth=0", files)
        for i, page in enumerate(pages):
            for j in range(10):
                button = page.get_by_text(f"Download {i}-{j}-in-color.jpg", exact=True)
                button.wait_for(timeout=LONG)
                with page.expect_download() as waiting:
                    button.click()
                assert Image.open(waiting.value.path()).size == (200 + i, 150 + j)
        browser.close()
