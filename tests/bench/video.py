"""`make video-bench`: how steady films come out, which cuts are found, speed, memory, and runs that are killed.

On made films over scikit-image's photos (and Kodak24, where KODAK24 names its folder), with the colorizer that was
trained last; on real films too, with estimated flow, where FILMS names a folder of some.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[i]) for i in (1, 2)]

import films
from measures import color_change, pan, warping_error
from skimage import data
from superres import peak_memory, table_of

from helpers.color import rgb_to_L_ab
from helpers.data.photos import read_rgb, to_tensor
from helpers.evaluation.metrics import psnr
from helpers.inference import steadying as video
from helpers.inference.colorizer import Colorizer, render
from helpers.inference.film import Film, find_cuts
from helpers.inference.steadying import motion, trusted

MOVES = ({}, {"shift": (-1.5, 1), "zoom": -0.002, "turn": 0.4}, {"shift": (3, 0), "zoom": 0.004}, {"zoom": 0.006})
KILLS = 20


def photos():
    """Return scikit-image's color photos, and Kodak24 where it is."""
    kodak = sorted(Path(os.environ.get("KODAK24", "-")).glob("*.png"))
    return [data.coffee(), data.chelsea(), data.astronaut(), data.rocket()] + [read_rgb(path) for path in kodak]


def score(colorizer, frames, flows=None):
    """Return a row for gray, truth, frame by frame and steady; without flows, with those of the film itself."""
    pictures, grays, colors = video.paint(colorizer, frames, colorizer.options(), [[] for _ in frames])
    size = frames[0].shape[1::-1]
    truth = [rgb_to_L_ab(to_tensor(rgb))[1][0].permute(1, 2, 0).numpy() for rgb in frames]
    masks = [np.ones(size[::-1], np.float32)] * (len(frames) - 1)
    if flows is None:
        whole = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in frames]
        both = [(motion(now, before), motion(before, now)) for before, now in pairwise(whole)]
        flows, masks = [flow for flow, _ in both], [trusted(*pair) for pair in both]
    steadied = {"frame by frame": colors, "steady, forwards": video.steady(grays, colors, backward=False)[0]}
    steadied["steady, both ways"] = video.steady(grays, colors)[0]
    named = {"gray": [0 * ab for ab in truth], "truth": truth}
    named |= {name: [cv2.resize(ab, size) for ab in some] for name, some in steadied.items()}
    rows = {}
    for name, some in named.items():
        chroma = np.mean([np.linalg.norm(ab, axis=2).mean() for ab in some])
        pairs = zip(pictures[::6], some[::6], strict=True)
        made = [render(rgb, torch.from_numpy(ab).permute(2, 0, 1)) for rgb, ab in pairs]
        off = [psnr(to_tensor(a), to_tensor(b)).item() for a, b in zip(made, frames[::6], strict=True)]
        numbers = 1e4 * warping_error(some, flows, masks), 1e4 * color_change(some), 128 * chroma, np.mean(off)
        rows[name] = dict(zip(("warping error, 1e-4", "CDC, 1e-4", "chroma", "PSNR"), numbers, strict=True))
    return pd.DataFrame(rows).T


def cuts_found(similar, seed, count=41):
    """Make a film of many shots, and return how many of its cuts are found, and how many others.

    similar: four shots in a row come from one photo, from other places in it.
    """
    chance, sources, shots, cuts = np.random.default_rng(seed), photos(), [], []
    for i in range(count):
        photo = sources[(i // 4 + seed) % len(sources)] if similar else sources[chance.integers(len(sources))]
        if similar:
            height, width = (round(0.75 * length) for length in photo.shape[:2])
            top, left = chance.integers(photo.shape[0] - height), chance.integers(photo.shape[1] - width)
            photo = photo[top : top + height, left : left + width]
        moves = chance.uniform(-4, 4, 2), chance.uniform(-0.006, 0.006), chance.uniform(-0.6, 0.6)
        cuts.append(len(shots))
        frames, _ = pan(photo, int(chance.integers(8, 40)), (160, 284), *moves)
        shots += [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in frames]
    found = set(find_cuts(shots, 25))
    return len(found & set(cuts[1:])), len(cuts) - 1, len(found - set(cuts))


def speed(colorizer, folder, count=100):
    """Return frames a second at 640x360, and each part's share of the time."""
    path, spent = films.write(folder / "speed.mp4", films.shots(count, size=(360, 640))), {}

    def timed(module, name):
        real = getattr(module, name)

        def _timed(*arguments, **named):
            began = time.perf_counter()
            result = real(*arguments, **named)
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - began
            return result

        setattr(module, name, _timed)
        return lambda: setattr(module, name, real)

    back = [timed(video, name) for name in ("plan", "paint", "steady", "render", "write_film")]
    began = time.perf_counter()
    video.colorize_film(path, folder / "out.mp4", colorizer)
    whole = time.perf_counter() - began
    for undo in back:
        undo()
    return count / whole, {name: seconds / whole for name, seconds in spent.items()}


def start(*arguments):
    """Start this file's other half: a film is colorized in a process of its own."""
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def killed(folder, film):
    """Kill runs at random moments and go on with them; return how many ended, and whether all frames were the same.

    The same as those of a run that was never killed.
    """
    start("one", film, folder / "whole.mp4").wait()
    wanted, result = [rgb for _, rgb in Film(folder / "whole.mp4").frames()], folder / "killed.mp4"
    chance, same = random.Random(0), []
    for kill in range(KILLS + 1):
        process = start("one", film, result)
        if kill < KILLS:
            time.sleep(chance.uniform(3.0, 8.0))
            process.send_signal(signal.SIGKILL)
        process.wait()
        if result.exists():
            frames = [rgb for _, rgb in Film(result).frames()]
            same.append(len(frames) == len(wanted) and all((a == b).all() for a, b in zip(frames, wanted, strict=True)))
            result.unlink()
    return len(same), all(same)


def main():
    """Measure, and print tables as Markdown."""
    colorizer = Colorizer()
    print(f"{colorizer}; {torch.get_num_threads()} threads\n")
    tables = [score(colorizer, *pan(photo, 48, **MOVES[i % 4])) for i, photo in enumerate(photos()[:12])]
    print(f"{len(tables)} made films of 48 frames, their true motion\n")
    table_of(sum(tables).div(len(tables)).T.to_dict())
    for path in sorted(Path(os.environ.get("FILMS", "-")).glob("*")):
        shot = [rgb for _, rgb in Film(path).frames()][:30]
        print(f"\n{path.name}, its first shot, estimated motion\n")
        table_of(score(colorizer, shot).T.to_dict())
    for similar in (False, True):
        hits = np.sum([cuts_found(similar, seed) for seed in (100, 101, 102)], axis=0)
        print(
            f"\ncuts, {'similar' if similar else 'hard'}: {hits[0]} of {hits[1]} found, {hits[2]} others taken for one"
        )
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rate, shares = speed(colorizer, folder)
        print(f"\n640x360: {rate:.1f} frames a second; " + ", ".join(f"{k} {v:.0%}" for k, v in shares.items()))
        peaks = {}
        for count in (10, 1000):
            film = films.write(folder / f"{count}.mp4", (films.shots(10) * 100)[:count])
            process = start("one", film, folder / f"{count}-out.mp4")
            peaks[count] = json.loads(process.communicate()[0].splitlines()[-1])
        print(f"memory: {peaks[10]:.2f} GB for 10 frames, {peaks[1000]:.2f} GB for 1,000")
        ended, same = killed(folder, folder / "1000.mp4")
        print(
            f"killed {KILLS} times, gone on with to {ended} whole films: {'all' if same else 'NOT all'} frames the same"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        video.colorize_film(sys.argv[2], sys.argv[3])
        print(peak_memory())
    else:
        main()
