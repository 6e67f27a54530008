"""Slow tests of memory and of large folders: `make stress`."""

import os
import subprocess
import sys
from pathlib import Path

from helpers.data.photos import list_photos

PROJECT = Path(__file__).resolve().parents[2]

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


def test_a_hundred_thousand_files_are_listed(tmp_path):
    for i in range(100):
        (tmp_path / str(i)).mkdir()
        for j in range(1000):
            (tmp_path / str(i) / f"{j}.jpg").touch()
    assert len(list_photos(tmp_path)) == 100_000


def test_memory_does_not_grow_with_the_film(tmp_path):
    code = """
import sys
sys.path[:0] = [{tests!r}]
import torch, films
from helpers.apps import film_job
from helpers.inference.colorizer import Colorizer
from helpers.models.generator import Generator
torch.manual_seed(0)
film_job.LONGEST = 8
path = films.write(sys.argv[1] + ".mp4", films.shots(*[int(sys.argv[2])]))
colorizer = Colorizer(Generator(weights=None, res_blocks=0), "fp32")
film_job.colorize_film(path, sys.argv[1] + "-out.mp4", colorizer, input_size=32)
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""
    peaks = []
    for count in (16, 300):
        arguments = [
            sys.executable,
            "-c",
            code.format(tests=str(PROJECT / "tests")),
            str(tmp_path / f"{count}"),
            str(count),
        ]
        env = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
        peaks.append(int(subprocess.run(arguments, env=env, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] < 1.1 * peaks[0]
