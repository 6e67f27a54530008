"""Colorizing a folder of photos: goes on where it stopped, lists what cannot be read, never touches its input."""

import argparse
import io
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from PIL import Image, ImageCms
from tqdm.auto import tqdm

from helpers import dataset, inference, storage, upscaling, workspace

TOGETHER = 8  # photos of one size that the network sees at once
PIXELS = 2**25  # of all photos that are in memory at a time


@dataclass
class Job:
    """One photo on its way: what was read, what the network sees of it, or why it was skipped."""

    source: Path
    target: Path
    rgb: object = None
    L: torch.Tensor | None = None
    ab: torch.Tensor | None = None
    error: str = ""


def target_of(path, source, target, file_format):
    """Return where a photo's colorized version goes: the same name, in the format asked for, else its own if it can."""
    relative = path.relative_to(source)
    own = relative.suffix.lower() if relative.suffix.lower() in (".jpg", ".jpeg", ".png") else ".png"
    ending = {"": own, "jpeg": ".jpg", "png": ".png"}[file_format]
    same = relative.suffix.lower() == ending
    return target / (relative if same else relative.with_name(relative.name + ending))


def read(job, options):
    """Read a photo into its job, and what the network will see of it; an error is noted, not raised."""
    try:
        job.rgb, job.L = inference.look(job.source, options)
    except (OSError, MemoryError) as error:
        job.error = str(error)
    return job


def write(job, options, quality):
    """Paint a job's photo at its full size and write it, with the EXIF data and the colour profile of its source."""
    try:
        painted = Image.fromarray(inference.render(job.rgb, job.L, job.ab, options))
        details = metadata(job.source)
        if job.target.suffix.lower() in (".jpg", ".jpeg"):
            details |= {"format": "JPEG", "quality": quality, "subsampling": 0}
        else:
            details |= {"format": "PNG", "compress_level": 3}
        job.target.parent.mkdir(parents=True, exist_ok=True)
        storage.write_atomically(job.target, lambda path: painted.save(path, **details))
    except MemoryError as error:
        job.error = f"not enough memory: {error}"
    job.rgb = job.L = job.ab = None
    return job


def metadata(path):
    """Return the EXIF data of a file, its rotation taken out, and its colour profile if that is one for colours."""
    kept = {}
    with Image.open(path) as photo:
        exif = photo.getexif()
        exif.pop(0x0112, None)  # the pixels are turned already
        if len(exif):
            kept["exif"] = exif.tobytes()
        try:
            profile = photo.info.get("icc_profile")
            if profile and ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space == "RGB ":
                kept["icc_profile"] = profile
        except (ImageCms.PyCMSError, OSError):
            pass
    return kept


def portions(jobs):
    """Yield lists of jobs that are handled together: not too many, not too many pixels."""
    portion, pixels = [], 0
    for job in jobs:
        portion.append(job)
        pixels += 0 if job.rgb is None else job.rgb.shape[0] * job.rgb.shape[1]
        if len(portion) == TOGETHER or pixels > PIXELS:
            yield portion
            portion, pixels = [], 0
    if portion:
        yield portion


def colorize_folder(source, target, colorizer=None, quality=95, file_format="", **options):
    """Colorize all photos in a folder and below into another folder; return a table of what was skipped, and why.

    What is in the target already is left as it is, so a second call goes on where the first one stopped. Names are
    kept; `file_format` "jpeg" or "png" changes the format. quality: of JPEG, 1 to 100. options: see
    `inference.Options`. The table is also written to `skipped.csv` in the target. Raises ValueError when source and
    target are one folder.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    if source.resolve() == target.resolve():
        raise ValueError(f"{target} is the folder of the photos itself: name another one, they are never overwritten")
    inside = target.resolve()
    paths = [path for path in dataset.list_photos(source) if inside not in path.resolve().parents]
    jobs = [Job(path, target_of(path, source, target, file_format)) for path in paths]
    left = [job for job in jobs if not job.target.exists()]
    print(f"{len(jobs)} photos, {len(jobs) - len(left)} of them done before")
    colorizer = colorizer or inference.Colorizer()
    options = colorizer.options(**options)
    target.mkdir(parents=True, exist_ok=True)
    skipped = []
    with tqdm(total=len(left), unit="photo") as bar:
        loaded = workspace.in_parallel(lambda job: read(job, options), left, ahead=workspace.cores() + 1)
        for portion in portions(loaded):
            ready = [job for job in portion if not job.error]
            predict_together(colorizer, ready, options)
            done = workspace.in_parallel(lambda job: write(job, options, quality), ready)
            bar.update(len(portion) - len(ready) + sum(1 for _ in done))
            skipped += [(dataset.printable(job.source.relative_to(source)), job.error) for job in portion if job.error]
    table = pd.DataFrame(skipped, columns=["photo", "reason"])
    storage.write_atomically(target / "skipped.csv", lambda path: table.to_csv(path, index=False))
    print(f"{len(left) - len(table)} colorized, {len(table)} skipped (listed in {target / 'skipped.csv'})")
    return table


def predict_together(colorizer, jobs, options):
    """Let the network see photos of the same size at once."""
    sizes = {}
    for job in jobs:
        sizes.setdefault(job.L.shape, []).append(job)
    for group in sizes.values():
        predicted = colorizer.predict(torch.cat([job.L for job in group]), options.flip)
        for job, ab in zip(group, predicted.split(1), strict=True):
            job.ab = ab


def colorize_file(source, target, colorizer, options, quality=95):
    """Colorize one photo file into another, with its EXIF data and colour profile; returns the finished `Job`.

    `error` of the job says why, when the photo cannot be read; raises OSError when the target cannot be written.
    """
    job = read(Job(Path(source), Path(target)), options)
    if job.error:
        return job
    predict_together(colorizer, [job], options)
    return write(job, options, quality)


def main(arguments=None):
    """Colorize a photo or a folder from the command line: `python -m helpers.inference IN OUT`."""
    parser = argparse.ArgumentParser(description="Colorize a photo, or a folder of photos, at their own size.")
    parser.add_argument("source", type=Path, metavar="IN")
    parser.add_argument("target", type=Path, metavar="OUT")
    parser.add_argument("--weights", help="a generator; without it, that of the run that was trained last")
    parser.add_argument("--quality", type=int, default=95, help="of JPEG files, 1 to 100")
    parser.add_argument("--format", choices=("jpeg", "png"), default="", help="without it, each photo keeps its own")
    parser.add_argument("--upscale", choices=upscaling.WAYS, default="auto")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored photo's prediction")
    for name, kind in (("view", int), ("saturation", float), ("denoise", float), ("contrast", float)):
        parser.add_argument(f"--{name}", type=kind, default=getattr(inference.Options, name))
    given = vars(parser.parse_args(arguments))
    source, target, weights = (given.pop(name) for name in ("source", "target", "weights"))
    quality, file_format = given.pop("quality"), given.pop("format")
    try:
        colorizer = inference.Colorizer(weights)
        if source.is_dir():
            colorize_folder(source, target, colorizer, quality, file_format, **given)
            return
        if target.exists():
            raise FileExistsError(f"{target} exists already: name another file, nothing is overwritten")
        job = colorize_file(source, target, colorizer, colorizer.options(**given), quality)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if job.error:
        parser.error(job.error)
