"""Folders and the page under stress: a folder that is killed again and again, ten people on the page at once."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import odd_photos
import pytest
from browsing import CHROMIUM, LONG, PAINTS, QUIET, UPLOAD, needs_browser, served
from PIL import Image

from helpers.runs import save_network

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kills", [20])
def test_a_folder_that_is_killed_at_any_time_ends_complete_and_without_copies(kills, loud_generator, cfg, tmp_path):
    chance, source, out = random.Random(0), tmp_path / "in", tmp_path / "out"
    source.mkdir()
    save_network(tmp_path / "weights.safetensors", loud_generator, cfg)
    sizes = {f"{i:02}.jpg": (300 + i, 200) for i in range(60)}
    for name, size in sizes.items():
        odd_photos.color(size).save(source / name)
    call = [sys.executable, "-m", "helpers.apps", source, out, "--weights", tmp_path / "weights.safetensors"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    for _ in range(kills):
        before = len(list(out.glob("*.jpg")))
        with subprocess.Popen(call, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while len(list(out.glob("*.jpg"))) == before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(chance.random() * 0.2)
            process.kill()
    subprocess.run(call, env=env, check=True, stderr=subprocess.DEVNULL)
    assert {path.name: Image.open(path).size for path in out.glob("*.jpg")} == sizes
    again = subprocess.run(call, env=env, check=True, capture_output=True, text=True).stdout
    assert "0 colorized, 60 done before" in again


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
