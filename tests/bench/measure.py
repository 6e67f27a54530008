"""One measurement in a process of its own, so that its peak memory is its own: `python measure.py '{"what": ...}'`.

Prints one line of JSON. Earlier versions of the series answer the same question in a file of the same name, so that
`speed.py` can measure two versions in turns.
"""

import json
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from common import Photos, peak_memory, photos_of_skimage, squares, write_photos
from ours import UNMEASURED, endless, new_trainer, settings, timed
from plain import PlainTraining

from helpers import workspace
from helpers.apps.folder import colorize_folder
from helpers.apps.photo_files import colorize_file
from helpers.evaluation import metrics
from helpers.inference.colorizer import Colorizer
from helpers.models.generator import Generator
from helpers.runs import save_network


def train(folder: str, way: str = "ours", phase: str = "warmup", steps: int = 6, **changes: Any) -> dict[str, float]:
    """Return the photos per second of a phase; way: "ours", or "plain" for the report's."""
    cfg, adversarial = settings(**changes), phase == "adversarial"
    photos = squares(4 * cfg.batch_size, cfg.size)
    if way == "plain":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        plain = PlainTraining(cfg, Generator(**cfg.generator()), adversarial, device)
        loader = plain.loader(write_photos(folder, photos, "png") * (steps + UNMEASURED))  # more than enough
        return {"photos/s": timed(plain.step, islice(loader, steps + UNMEASURED), cfg.batch_size)}
    trainer = new_trainer(cfg, Photos(photos), adversarial)
    batches = islice(endless(trainer.batches), steps + UNMEASURED)
    return {"photos/s": timed(trainer.step, batches, cfg.batch_size)}


def infer(folder: str, batch_size: int = 1, size: int = 255, count: int = 32) -> dict[str, float]:
    """Return the photos per second from uint8 photos to uint8 photos."""
    accelerator = workspace.make_accelerator(settings().precision)
    generator = Generator(weights=None).eval().to(accelerator.device, memory_format=torch.channels_last)
    photos = squares(16, size)[torch.arange(count) % 16]
    with accelerator.autocast():
        metrics.colorize_all(generator, photos[:batch_size], accelerator.device, batch_size)
        started = time.perf_counter()
        metrics.colorize_all(generator, photos, accelerator.device, batch_size)
    return {"photos/s": count / (time.perf_counter() - started)}


def full_size(folder: str, megapixels: float = 24, input_size: int = 255) -> dict[str, float]:
    """Return the seconds to colorize a large photo from file to file, once the weights are loaded."""
    source, height = Path(folder) / "large.jpg", round((megapixels * 1e6 / 1.5) ** 0.5)
    large = cv2.resize(photos_of_skimage()[0], (round(height * 1.5), height), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(source), large)
    del large
    generator = Generator(weights=None)
    with torch.no_grad():
        generator.head.weight.mul_(30)  # strong colors, many of them out of gamut: the hard case
    colorizer = Colorizer(generator)
    colorizer(np.zeros((input_size, input_size, 3), np.uint8))  # a network's first call takes longer
    started = time.perf_counter()
    colorize_file(source, source.with_stem("color"), colorizer, colorizer.options(input_size=input_size))
    return {"seconds": time.perf_counter() - started}


def album(folder: str, count: int = 200, size: int = 255) -> dict[str, float]:
    """Return the photos per second of a folder of JPEG files, loading the weights included."""
    source, target, weights = (Path(folder) / name for name in ("in", "out", "generator.safetensors"))
    source.mkdir()
    write_photos(source, squares(count, size))
    save_network(weights, Generator(weights=None), settings(size=size))
    started = time.perf_counter()
    colorize_folder(source, target, Colorizer(weights))
    assert len(list(target.glob("*.jpg"))) == count
    return {"photos/s": count / (time.perf_counter() - started)}


def main() -> None:
    """Take the measurement that the command line names, and print the result."""
    task = json.loads(sys.argv[1])
    known = {function.__name__: function for function in (train, infer, full_size, album)}
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        result = known[task.pop("what")](folder, **task)
    result["GB"] = peak_memory()
    if torch.cuda.is_available():
        result["GPU GB"] = torch.cuda.max_memory_allocated() / 1e9
    print(json.dumps(result))


if __name__ == "__main__":
    main()
