"""One measurement in a process of its own, so that its peak memory is its own: `python measure.py '{"what": ...}'`.

Prints one JSON line. `run.py` says which measurements there are.
"""

import json
import os
import resource
import sys
import tempfile
import time
from itertools import chain, islice, repeat
from pathlib import Path

import cv2
import numpy as np
import skimage
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import update_bn
from torch.utils.flop_counter import FlopCounterMode

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

import plain  # noqa: E402

from helpers import batches, dataset, losses, metrics, networks, selection, training, workspace  # noqa: E402
from helpers.config import Config  # noqa: E402

COMPILE = "torch.compile left off"
UNMEASURED = 2  # steps at the start, in which memory is taken and code is chosen


def settings(**changes):
    """The paper's recipe, with networks that need no download."""
    return Config(profile="paper", **{"encoder_weights": None, "lpips_weights": None} | changes)


def write_photos(folder, count, size, ending="png"):
    """Fill a folder with `count` different squares cut from scikit-image's photos; return their paths."""
    shipped = Path(skimage.__file__).parent / "data"
    photos = [cv2.imread(str(shipped / name)) for name in dataset.SAMPLES[:5]]
    random, paths = np.random.default_rng(0), []
    for i in range(count):
        photo = photos[i % len(photos)]
        side = int(random.integers(min(size, 250), min(photo.shape[:2])))
        top, left = (int(random.integers(0, length - side + 1)) for length in photo.shape[:2])
        square = cv2.resize(photo[top : top + side, left : left + side], (size, size))
        paths.append(Path(folder) / f"image{i:04d}.{ending}")
        cv2.imwrite(str(paths[-1]), square)
    return paths


class Photos(dataset.PhotoSet):
    """A prepared set whose photos all are training photos."""

    def __init__(self, folder, paths):
        self.folder, self.paths = folder, paths

    def names(self, split):
        return [path.name for path in self.paths[: None if split == "train" else 16]]


def fixed_trainer(cfg, photos, adversarial):
    """The series' own trainer for a phase."""
    accelerator = workspace.make_accelerator(cfg.precision)
    perceptual = losses.Perceptual(None).to(accelerator.device)
    terms = losses.report_terms(cfg, perceptual) if adversarial else [losses.LossTerm("L1", 1.0, losses.l1_loss)]
    generator = networks.Generator(cfg.encoder, None, cfg.res_blocks)
    discriminator = networks.Discriminator() if adversarial else None
    parts = (generator, terms, photos, batches.augmentations(cfg), perceptual, discriminator)
    return training.Trainer(cfg, accelerator, *parts)


def without(name):
    """Switch one measure off (or torch.compile on); return the changes of the configuration that this takes."""
    if name == "channels_last":
        torch.channels_last = torch.contiguous_format
    if name == "fused Adam":
        adam = torch.optim.Adam
        torch.optim.Adam = lambda *args, **options: adam(*args, **options | {"fused": False})
    if name == "LPIPS in pieces":
        losses.FeatureDistance = OrdinaryDistance
    if name == "Lab a batch at a time":
        batches.rgb_to_L_ab = skimage_lab
    if name == "losses read once an epoch":
        step = training.Trainer.training_step
        training.Trainer.training_step = lambda self, batch: {k: v.cpu() for k, v in step(self, batch).items()}
    changes = {"bf16 or fp16": {"precision": "fp32"}, "photos in memory": {"memory_gb": 0.0}}
    return changes.get(name, {"compile": True} if name == COMPILE else {})


class OrdinaryDistance:
    """LPIPS of a layer with ordinary operations."""

    @staticmethod
    def apply(ours, theirs, weight):
        ours, theirs = (F.normalize(maps.float(), dim=1, eps=1e-10) for maps in (ours, theirs))
        return ((ours - theirs) ** 2 * weight.view(1, -1, 1, 1)).sum(1).mean((1, 2))


def skimage_lab(rgb):
    """Lab photo by photo on the CPU, as the report does it."""
    labs = [skimage.color.rgb2lab(photo.permute(1, 2, 0).cpu().numpy()) for photo in rgb]
    lab = torch.from_numpy(np.stack(labs)).float().permute(0, 3, 1, 2).to(rgb.device)
    return lab[:, :1] / 50 - 1, lab[:, 1:] / 128


def wait():
    """Let a GPU finish what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def train(folder, way="ours", phase="warmup", steps=6, off=None, n_photos=None, **changes):
    """Photos per second of a phase, and what goes with it."""
    cfg = settings(**changes, **without(off))
    paths = write_photos(folder, n_photos or (steps + UNMEASURED) * cfg.batch_size, cfg.size)
    spent = timed_plain if way == "plain" else timed_ours
    return spent(cfg, folder, paths, phase == "adversarial", steps + UNMEASURED)


def rate(cfg, ends):
    """Photos per second from the moments at which the steps ended."""
    return {"photos/s": cfg.batch_size * (len(ends) - UNMEASURED) / (ends[-1] - ends[UNMEASURED - 1])}


def timed_plain(cfg, folder, paths, adversarial, steps):
    """Run the plain way."""
    training_plain = plain.PlainTraining(cfg, adversarial, "cuda" if torch.cuda.is_available() else "cpu")
    ends = []
    for L, ab in islice(training_plain.loader(paths), steps):
        training_plain.step(L, ab)
        ends.append(time.perf_counter())
    return rate(cfg, ends)


def timed_ours(cfg, folder, paths, adversarial, steps):
    """Run the series' own epoch loop, and look at what of it is spent in the steps."""
    trainer = fixed_trainer(cfg, Photos(Path(folder), paths), adversarial)
    trainer.batches.__class__.__len__ = lambda self: steps
    inside, ends, step = [], [], trainer.training_step

    def timed(batch):
        started = time.perf_counter()
        log = step(batch)
        if len(ends) in (UNMEASURED - 1, steps - 1):
            wait()
        ends.append(time.perf_counter())
        inside.append(ends[-1] - started)
        return log

    trainer.training_step = timed
    trainer.train_epoch(1)
    result = rate(cfg, ends)
    if not torch.cuda.is_available():  # a GPU works on while the loop runs
        result["outside steps"] = 1 - sum(inside[UNMEASURED:]) / (ends[-1] - ends[UNMEASURED - 1])
    with FlopCounterMode(display=False) as counter:
        step(next(iter(trainer.batches)))
    result["GFLOP/photo"] = counter.get_total_flops() / cfg.batch_size / 1e9
    return result


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


def quality(folder, steps=150, size=128):
    """Validation L1 after the same steps on the same photos from the same first weights: ours, and the report's way.

    Both without augmentation; each with its own precision, layout, optimiser and Lab. Batch statistics are measured
    anew at the end: after few steps their running means are mostly noise.
    """
    cfg = settings(size=size)
    paths = write_photos(folder, 8 * 40 + 64, size)
    photos = Photos(Path(folder), paths[:320])
    truth = Photos(Path(folder), paths[320:]).load("train", None)
    ours = fixed_trainer(cfg, photos, False)
    first = {name: tensor.clone() for name, tensor in ours.raw_generator.state_dict().items()}
    theirs = plain.PlainTraining(cfg, False, "cuda" if torch.cuda.is_available() else "cpu")
    theirs.generator.load_state_dict(first)
    kept = batches.Batches(photos.load("train", None), cfg.batch_size, ours.accelerator.device)
    for batch in islice(chain.from_iterable(repeat(kept)), steps):
        ours.training_step(batch)
    loader = theirs.loader(paths[:320], augment=False, shuffle=False)
    for L, ab in islice(chain.from_iterable(repeat(loader)), steps):
        theirs.step(L, ab)
    found = {}
    for name, generator in (("ours", ours.raw_generator), ("the report's way", theirs.generator)):
        update_bn((batch.L for batch in batches.Batches(photos.load("train", 256), 32)), generator)
        painted = ours.colorize(generator, truth)
        found[name] = metrics.measure_all(painted, truth, with_ssim=False)["L1"].mean()
    return found | {"ratio": found["ours"] / found["the report's way"]}


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
    generator = networks.Generator(weights=None).eval().to(accelerator.device, memory_format=torch.channels_last)
    with accelerator.autocast():
        metrics.colorize_all(generator, photos[:batch_size], accelerator.device, batch_size)
        started = time.perf_counter()
        metrics.colorize_all(generator, photos, accelerator.device, batch_size)
    return {"photos/s": count / (time.perf_counter() - started)}


def main():
    """Take the measurement that the command line names, and print what was found."""
    task = json.loads(sys.argv[1])
    known = (train, peak, prepare, duplicates, quality, infer)
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
