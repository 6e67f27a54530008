"""Colorizing a folder of photos: goes on where it stopped, lists what cannot be read, never touches its input."""

import argparse
import errno
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from PIL import Image, ImageCms
from tqdm.auto import tqdm

from helpers import dataset, inference, storage, upscaling, workspace

TOGETHER = 8  # photos of one size that the network sees at once
PIXELS = 2**25  # of all photos that are in memory at a time
SEEN = 2**20  # pixels that the network sees at once
DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)  # what, camera, program, when, who, whose


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
    """Paint a job's photo at its full size and write it, with the EXIF data and the colour profile of its source.

    What goes wrong with this photo is noted; raises OSError when nothing can be written any more.
    """
    try:
        content = encoded(inference.render(job.rgb, job.L, job.ab, options), job, quality)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        storage.write_atomically(job.target, lambda path: path.write_bytes(content))
    except (MemoryError, RuntimeError, ValueError) as error:  # of torch, a lack of memory is a RuntimeError
        job.error = f"cannot be colorized: {error}"
    except OSError as error:
        if errno.ENAMETOOLONG not in (error.errno, getattr(error.__cause__, "errno", None)):
            raise
        job.error = "its name is too long to be written"
    job.rgb = job.L = job.ab = None
    return job


def encoded(rgb, job, quality):
    """Return a photo (H, W, 3) as the bytes of a file; details of the source that cannot be written are left out."""
    jpeg = {"format": "JPEG", "quality": quality, "subsampling": 0}
    way = jpeg if job.target.suffix.lower() in (".jpg", ".jpeg") else {"format": "PNG", "compress_level": 3}
    painted, buffer = Image.fromarray(rgb), io.BytesIO()
    try:
        painted.save(buffer, **way, **metadata(job.source))
    except Exception:  # damaged EXIF data fail in many ways
        buffer = io.BytesIO()
        painted.save(buffer, **way)
    return buffer.getvalue()


def metadata(path):
    """Return the EXIF data of a file, its rotation taken out, and its colour profile if that is one for colours."""
    kept = {}
    with Image.open(path) as photo:
        exif = photo.getexif()
        exif.pop(0x0112, None)  # the pixels are turned already
        for tag in set(exif) - (set(DESCRIPTIVE) if photo.format == "TIFF" else set(exif)):
            del exif[tag]  # where a TIFF keeps its pixels says nothing about another file
        if len(exif):
            kept["exif"] = exif.tobytes()
        profile = photo.info.get("icc_profile")
        if profile and ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space == "RGB ":
            kept["icc_profile"] = profile
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


def jobs_for(source, target, file_format):
    """Return a job for every photo in a folder and below; no two have one target, and none is in the target."""
    inside, taken, jobs = target.resolve(), set(), []
    for path in dataset.list_photos(source):
        if source.resolve() in inside.parents and inside in path.resolve().parents:
            continue
        place = target_of(path, source, target, file_format)
        while place in taken:
            place = place.with_stem(place.stem + "+")
        taken.add(place)
        jobs.append(Job(path, place))
    return jobs


def refuse_another(target, source, colorizer, options):
    """Raise ValueError when a folder holds what was colorized from, with, or in another way; else note what it is."""
    note, now = target / "made_with.json", {"photos": str(source.resolve()), "weights": colorizer.fingerprint()}
    now |= asdict(options)
    then = json.loads(note.read_text()) if note.exists() else now
    differ = [f"{name}: {then.get(name)} then, {value} now" for name, value in now.items() if then.get(name) != value]
    if differ:
        raise ValueError(f"{target} holds photos made in another way ({'; '.join(differ)}): name another folder.")
    storage.write_atomically(note, lambda path: path.write_text(json.dumps(now, indent=1)))


def colorize_folder(source, target, colorizer=None, quality=95, file_format="", **options):
    """Colorize all photos in a folder and below into another folder; return a table of what was skipped, and why.

    What is in the target already is left as it is, so a second call goes on where the first one stopped. Names are
    kept; `file_format` "jpeg" or "png" changes the format. quality: of JPEG, 1 to 100. options: see
    `inference.Options`. The table is also written to `skipped.csv` in the target. Raises ValueError when source and
    target are one folder, or the target was begun in another way; BlockingIOError when another program fills it.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    if source.resolve() == target.resolve():
        raise ValueError(f"{target} is the folder of the photos itself: name another one, they are never overwritten")
    jobs = jobs_for(source, target, file_format)
    left = [job for job in jobs if not job.target.exists()]
    colorizer = colorizer or inference.Colorizer()
    options = colorizer.options(**options)
    with storage.in_use(target) as alive:
        refuse_another(target, source, colorizer, options)
        print(f"{len(jobs)} photos, {len(jobs) - len(left)} of them done before; weights: {colorizer}")
        skipped = work_off(left, colorizer, options, quality, alive)
    names = [(dataset.printable(job.source.relative_to(source)), job.error) for job in skipped]
    table = pd.DataFrame(names, columns=["photo", "reason"])
    storage.write_atomically(target / "skipped.csv", lambda path: table.to_csv(path, index=False))
    print(f"{len(left) - len(table)} colorized, {len(table)} skipped (listed in {target / 'skipped.csv'})")
    return table


def work_off(jobs, colorizer, options, quality, alive):
    """Read, predict and write, some photos at a time; return the jobs that were skipped."""
    skipped = []
    with tqdm(total=len(jobs), unit="photo") as bar:
        loaded = workspace.in_parallel(lambda job: read(job, options), jobs, ahead=workspace.cores() + 1)
        for portion in portions(loaded):
            predict_together(colorizer, [job for job in portion if not job.error], options)
            ready = [job for job in portion if not job.error]
            for _ in workspace.in_parallel(lambda job: write(job, options, quality), ready):
                bar.update()
            bar.update(len(portion) - len(ready))
            skipped += [job for job in portion if job.error]
            alive()
    return skipped


def predict_together(colorizer, jobs, options):
    """Let the network see photos of the same size at once, as many as memory holds with ease."""
    sizes = {}
    for job in jobs:
        sizes.setdefault(job.L.shape, []).append(job)
    for shape, group in sizes.items():
        together = max(1, SEEN // (shape[-2] * shape[-1]))
        for start in range(0, len(group), together):
            part = group[start : start + together]
            try:
                predicted = colorizer.predict(torch.cat([job.L for job in part]), options.flip)
            except RuntimeError as error:
                if "memory" not in str(error):
                    raise
                predicted = [None] * len(part)
            for job, ab in zip(part, predicted, strict=True):
                job.ab = None if ab is None else ab[None]
                job.error = "" if ab is not None else f"not enough memory for view={options.view}: try a smaller one"


def colorize_file(source, target, colorizer, options, quality=95):
    """Colorize one photo file into another, with its EXIF data and colour profile; returns the finished `Job`.

    `error` of the job says why, when the photo cannot be read; raises OSError when the target cannot be written.
    """
    job = read(Job(Path(source), Path(target)), options)
    if not job.error:
        predict_together(colorizer, [job], options)
    return job if job.error else write(job, options, quality)


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
        if target.suffix.lower() not in (".jpg", ".jpeg", ".png"):
            raise ValueError(f"{target}: name a file that ends in .jpg or .png")
        if target.exists():
            raise FileExistsError(f"{target} exists already: name another file, nothing is overwritten")
        print(f"weights: {colorizer}")
        job = colorize_file(source, target, colorizer, colorizer.options(**given), quality)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if job.error:
        parser.error(job.error)
