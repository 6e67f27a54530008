"""What keeps memory bounded: photos streamed from disk instead of kept, and a preparation that lets them pass."""

import os
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from notebook_tools import PROJECT

from helpers.data import dataset
from helpers.data.batches import Batches


def test_streamed_photos_make_the_same_batches_as_photos_in_memory(sample_photos):
    def rgb(photos):
        batches = Batches(photos, 5, augment=[lambda rgb: rgb.flip(-1)], seed=3)
        return [batch.rgb for _ in range(2) for batch in batches]

    kept, streamed = (rgb(sample_photos.open("train", budget)) for budget in (1.0, 0.0))
    assert len(kept) == 6 and all(torch.equal(a, b) for a, b in zip(kept, streamed, strict=True))


def test_a_budget_decides_what_is_streamed_and_says_why(sample_photos, capsys):
    need = sample_photos.load("train").numel() / 1e9
    assert torch.is_tensor(sample_photos.open("train", need * 1.01))
    assert "kept in memory" in capsys.readouterr().out
    assert isinstance(sample_photos.open("train", need * 0.99), dataset.PhotoFiles)
    assert "streamed from disk" in capsys.readouterr().out


def test_a_lost_file_of_a_stream_is_named(sample_photos):
    files = dataset.PhotoFiles(sample_photos.folder, ["gone.png"])
    with pytest.raises(OSError, match="gone.png"):
        list(Batches(files, 1))


PREPARE = """
import sys
from pathlib import Path
import cv2, numpy as np
from helpers.config import Config
from helpers.data import dataset
folder, count = Path(sys.argv[1]), int(sys.argv[2])
random = np.random.default_rng(0)
for i in range(count):
    small = random.integers(0, 256, (6, 6, 3), np.uint8)
    cv2.imwrite(str(folder / f"{i:05d}.jpg"), cv2.resize(small, (512, 512), interpolation=cv2.INTER_CUBIC))
cfg = Config(data_source="folder", photos_folder=str(folder), n_photos=count, size=128)
chosen = len(dataset.prepare(cfg).manifest)
print(chosen, Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])  # ru_maxrss counts the parent's too
"""


def test_the_memory_of_a_preparation_holds_no_photos(tmp_path):
    """Nine hundred photos more, 700 MB of them, take hardly more memory: they pass through, one after the other."""
    given_back = {"MALLOC_MMAP_THRESHOLD_": "131072"}  # glibc keeps some of what was freed, else: up to 360 MB of it
    kilobytes = []
    for count in (100, 1000):
        (tmp_path / str(count)).mkdir()
        command = [sys.executable, "-c", PREPARE, tmp_path / str(count), str(count)]
        env = os.environ | {"COLORIZE_WORKSPACE": str(tmp_path / f"workspace{count}"), "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(command, env=env | given_back, capture_output=True, text=True, check=True)
        chosen, peak = map(int, done.stdout.split()[-2:])
        assert chosen > 0.95 * count
        kilobytes.append(peak)
    assert kilobytes[1] - kilobytes[0] < 50_000


def test_a_second_preparation_finds_the_first(cfg):
    first = dataset.prepare(cfg)
    started = time.perf_counter()
    again = dataset.prepare(cfg)
    assert time.perf_counter() - started < 2
    pd.testing.assert_frame_equal(first.manifest, again.manifest)
