"""Slow tests of memory and of large folders: `make stress`."""

import os
import subprocess
import sys
from pathlib import Path

from helpers.data.photos import list_photos

TESTS = Path(__file__).resolve().parents[1]

PREPARE = """
import sys
from bench.common import peak_memory, write_photos
from helpers.config import Config
from helpers.data import dataset
folder, count = sys.argv[1], int(sys.argv[2])
write_photos(folder, count, 512, "jpg")
cfg = Config(data_source="folder", photos_folder=folder, n_photos=count, size=128)
assert len(dataset.prepare(cfg).manifest) > 0.95 * count
print(peak_memory())  # ru_maxrss counts the parent's too
"""
FILM = """
import sys, torch, films
from bench.common import peak_memory
from helpers.apps import film_job
from helpers.inference.colorizer import Colorizer
from helpers.models.generator import Generator
torch.manual_seed(0)
film_job.LONGEST = 8
path = films.write(sys.argv[1] + "/film.mp4", films.shots(int(sys.argv[2])))
colorizer = Colorizer(Generator(weights=None, res_blocks=0), "fp32")
film_job.colorize_film(path, sys.argv[1] + "/out.mp4", colorizer, input_size=32)
print(peak_memory())
"""


def peaks(code, folder, counts):
    """Run code in a process of its own for each count, in a folder of its own; return their peak memory in GB."""
    found = []
    for count in counts:
        (own := folder / str(count)).mkdir()
        env = os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1"}
        # glibc keeps some of what was freed, else: up to 360 MB of it
        env |= {"COLORIZE_WORKSPACE": str(folder / f"workspace{count}"), "MALLOC_MMAP_THRESHOLD_": "131072"}
        call = [sys.executable, "-c", code, str(own), str(count)]
        done = subprocess.run(call, env=env, capture_output=True, text=True, check=True)
        found.append(float(done.stdout.splitlines()[-1]))
    return found


def test_the_memory_of_a_preparation_holds_no_photos(tmp_path):
    """Nine hundred photos more, 700 MB of them, take hardly more memory: they pass through, one after the other."""
    few, many = peaks(PREPARE, tmp_path, (100, 1000))
    assert many - few < 0.05


def test_memory_does_not_grow_with_the_film(tmp_path):
    few, many = peaks(FILM, tmp_path, (16, 300))
    assert many < 1.1 * few


def test_a_hundred_thousand_files_are_listed(tmp_path):
    for i in range(100):
        (tmp_path / str(i)).mkdir()
        for j in range(1000):
            (tmp_path / str(i) / f"{j}.jpg").touch()
    assert len(list_photos(tmp_path)) == 100_000
