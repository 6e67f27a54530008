"""One measurement in a process of its own, so that its peak memory is its own: `python measure.py '{"what": ...}'`.

Prints one JSON line. `run.py` says which measurements there are.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(Path(__file__).resolve().parent)]

import plain
from learning import profile, quality, train
from materials import Photos, settings, wait, write_photos

from helpers import workspace
from helpers.data import dataset, selection
from helpers.data.photos import read_rgb
from helpers.data.sources import show_photos
from helpers.evaluation import metrics
from helpers.inference.colorizer import Colorizer
from helpers.inference.folder import colorize_file, colorize_folder
from helpers.models.generator import Generator
from helpers.runs.weights import save_generator


def peak(folder, size=2048, seconds=4.0):
    """What matrix multiplication sustains on this machine in its own precision, GFLOP/s: the median of many."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}[workspace.native_precision()]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    started, rates = time.perf_counter(), []
    while time.perf_counter() - started < seconds:
        begin = time.perf_counter()
        a @ b
        wait()
        rates.append(2 * size**3 / (time.perf_counter() - begin) / 1e9)
    return {"GFLOP/s": sorted(rates)[len(rates) // 2]}


def prepare(folder, way="ours", cores=None, count=300):
    """Photos per second from JPEG files to a prepared set."""
    paths = write_photos(folder, count, 400, "jpg")
    os.environ["COLORIZE_WORKSPACE"] = f"{folder}/workspace"
    if cores:
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:cores]))
        torch.set_num_threads(cores)
    started = time.perf_counter()
    if way == "plain":
        plain.prepare(paths, Path(folder) / "plain", 255)
    else:
        cfg = settings(data_source="folder", photos_folder=folder, n_photos=count)
        photos = dataset.prepare(cfg)
        count = len(photos.manifest)
    result = {"photos/s": count / (time.perf_counter() - started)}
    if way == "ours":
        started = time.perf_counter()
        dataset.prepare(cfg)
        result["second run, s"] = time.perf_counter() - started
        result["KB a photo"] = sum(file.stat().st_size for file in photos.folder.glob("*.png")) / count / 1e3
    return result


def duplicates(folder, count=20_000):
    """Seconds that the search for near-duplicates takes among `count` photos; it grows with the square of the count."""
    hashes = np.random.default_rng(0).integers(0, 2**63, count, dtype=np.uint64)
    started = time.perf_counter()
    selection.near_duplicates(hashes, np.zeros((count, 3), np.uint8))
    return {"seconds": time.perf_counter() - started, "count": count}


def infer(folder, batch_size=1, size=255, count=32):
    """Photos per second from uint8 photos to uint8 photos."""
    cfg = settings(size=size)
    accelerator = workspace.make_accelerator(cfg.precision)
    photos = Photos(Path(folder), write_photos(folder, 16, size)).load("train")[torch.arange(count) % 16]
    generator = Generator(weights=None).eval().to(accelerator.device, memory_format=torch.channels_last)
    with accelerator.autocast():
        metrics.colorize_all(generator, photos[:batch_size], accelerator.device, batch_size)
        started = time.perf_counter()
        metrics.colorize_all(generator, photos, accelerator.device, batch_size)
    return {"photos/s": count / (time.perf_counter() - started)}


def full_size(folder, megapixels=24, input_size=255):
    """Seconds to colorize a photo of many pixels, from file to file, with the weights there already."""
    source, height = Path(folder) / "large.jpg", round((megapixels * 1e6 / 1.5) ** 0.5)
    photo = read_rgb(show_photos("")[0])
    cv2.imwrite(str(source), cv2.resize(photo, (round(height * 1.5), height), interpolation=cv2.INTER_CUBIC))
    del photo
    generator = Generator(weights=None)
    with torch.no_grad():
        generator.head.weight.mul_(30)  # loud colors, many of them out of gamut: the hard case
    colorizer = Colorizer(generator)
    colorizer(np.zeros((input_size, input_size, 3), np.uint8))  # the first call of a network takes longer
    started = time.perf_counter()
    colorize_file(source, source.with_stem("color"), colorizer, colorizer.options(input_size=input_size))
    return {"seconds": time.perf_counter() - started}


def album(folder, way="a folder at once", count=200, size=255):
    """Photos per second from JPEG files to JPEG files, the weights' loading included: a folder, or one by one."""
    source, target, weights = (Path(folder) / name for name in ("in", "out", "generator.safetensors"))
    source.mkdir()
    target.mkdir()
    paths = write_photos(source, count, size, "jpg")
    save_generator(weights, Generator(weights=None), settings(size=size))
    started = time.perf_counter()
    if way == "a folder at once":
        colorize_folder(source, target, Colorizer(weights))
    elif way == "a call a photo":
        colorizer = Colorizer(weights)
        for path in paths:
            colorize_file(path, target / path.name, colorizer, colorizer.options())
    else:
        for path in paths:
            command = ["-m", "helpers.inference", str(path), str(target / path.name), "--weights", str(weights)]
            subprocess.run([sys.executable, *command], check=True, env=os.environ | {"PYTHONPATH": str(PROJECT)})
    assert len(list(target.glob("*.jpg"))) == count
    return {"photos/s": count / (time.perf_counter() - started)}


def main():
    """Take the measurement that the command line names, and print what was found."""
    task = json.loads(sys.argv[1])
    known = (train, peak, profile, prepare, duplicates, quality, infer, full_size, album)
    measure = {function.__name__: function for function in known}[task.pop("what")]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(folder, **task)
    memory = [resource.getrusage(who).ru_maxrss / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result["GB"] = sum(memory)
    if torch.cuda.is_available():
        result["GPU GB"] = torch.cuda.max_memory_allocated() / 1e9
    print(json.dumps(result))


if __name__ == "__main__":
    main()
