"""`make speed-bench`: photos, a folder and films from file to file, beside an earlier checkout in the folder BEFORE.

Both versions are called by their command line, each time in a process of its own that has colored a small photo first,
and take turns; medians are reported. CORES="1" or "all" limits the tables, ONLY="film 640" the rows; FILM_SECONDS=8
makes longer films, PHOTOS=200 a larger folder, ROUNDS=9 steadier numbers. It needs the machine to itself.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import cv2
import pandas as pd
import torch

PROJECT = Path(__file__).resolve().parents[2]
ROUNDS, PHOTOS, SECONDS = (int(os.environ.get(*each)) for each in (("ROUNDS", 5), ("PHOTOS", 40), ("FILM_SECONDS", 4)))
RATE = 24  # frames per second
FILMS = {"film 640x360": (360, 640), "film 1920x1080": (1080, 1920)}
MADE = {"photo of 12 MP": 1, "photo of 2 MP": 1, "folder of 2 MP photos": PHOTOS}  # photos or frames
MADE |= {"film 640x360": RATE * SECONDS, "film 1920x1080": RATE * SECONDS // 2}


def write_inputs(folder: Path) -> dict[str, Path]:
    """Write what is colored: photos of scikit-image, enlarged, and films of a camera that moves over them."""
    sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]
    import films
    from bench.common import photos_of_skimage

    paths = {name: folder / f"{name}.{'mp4' if 'film' in name else 'jpg'}" for name in MADE}
    paths["folder of 2 MP photos"] = folder / "album"
    paths["folder of 2 MP photos"].mkdir()
    photos = photos_of_skimage()
    cv2.imwrite(str(folder / "small.jpg"), photos[0][:256, :256])
    cv2.imwrite(str(paths["photo of 12 MP"]), cv2.resize(photos[0], (4243, 2828)))
    album = [paths["photo of 2 MP"], *(folder / "album" / f"{i}.jpg" for i in range(PHOTOS))]
    for i, path in enumerate(album):
        cv2.imwrite(str(path), cv2.resize(photos[i % len(photos)], (1732, 1155)))
    for name, size in FILMS.items():
        films.write(paths[name], films.shots(*[MADE[name] // 4] * 4, size=size), options={"crf": "20"}, rate=RATE)
    return paths


def command(source: Path, folder: Path, stub: bool) -> float:
    """Return the seconds that the command of the checkout in this folder needs; stub: with a network that is free."""
    sys.path[:0] = [str(Path.cwd())]
    room = "apps" if Path("helpers/apps").exists() else "inference"
    main = importlib.import_module(f"helpers.{room}.__main__").main
    if stub:
        colorizer = importlib.import_module("helpers.inference.colorizer").Colorizer
        colorizer.predict = lambda self, L, *_: torch.full((len(L), 2, *L.shape[2:]), 0.1)
    main([str(folder / "small.jpg"), str(folder / "out" / "small.jpg")])
    started = time.perf_counter()
    main([str(source), str(folder / "out" / source.name)])
    return time.perf_counter() - started


def floor(source: Path, folder: Path) -> float:
    """Return the seconds that FFmpeg needs to decode a film, turn its hue, and encode it, as `ffmpeg -vf hue=h=90`."""
    started = time.perf_counter()
    with av.open(str(source)) as film, av.open(str(folder / "hue.mp4"), "w") as result:
        stream, graph, target = film.streams.video[0], av.filter.Graph(), result.add_stream("libx264", RATE)
        target.width, target.height, target.pix_fmt = stream.width, stream.height, "yuv420p"
        graph.link_nodes(graph.add_buffer(stream), graph.add("hue", "h=90"), graph.add("buffersink")).configure()
        for frame in film.decode(stream):
            graph.push(frame)
            turned = graph.pull()
            turned.pts = None  # counted anew
            result.mux(target.encode(turned))
        result.mux(target.encode())
    return time.perf_counter() - started


def measure(checkout: Path, cores: str, source: Path, folder: Path, how: str) -> float:
    """Return the seconds of one measurement in a process of its own, on one core or all; how: "", "stub" or "floor"."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        (Path(place) / "out").mkdir()
        os.link(folder / "small.jpg", Path(place) / "small.jpg")
        call = [sys.executable, __file__, str(source), place, how, cores]
        env = os.environ | {"PYTHONPATH": str(checkout)} | ({"OMP_NUM_THREADS": "1"} if cores == "1" else {})
        done = subprocess.run(call, cwd=checkout, env=env, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])


def table(paths: dict[str, Path], folder: Path, cores: str) -> pd.DataFrame:
    """Return rows of medians: a second's photos or frames now, before and at the floor, and how many times as fast."""
    before, rows = os.environ.get("BEFORE"), {}
    chosen = [name for name in MADE if os.environ.get("ONLY", "") in name]
    for name, how in [(name, how) for how in ("", "stub") for name in chosen]:
        ways = {"now": (PROJECT, how)} | ({"before": (Path(before).resolve(), how)} if before else {})
        ways |= {"floor": (PROJECT, "floor")} if name in FILMS else {}
        taken = pd.DataFrame([{way: measure(at, cores, paths[name], folder, kind) for way, (at, kind) in ways.items()}
                              for _ in range(ROUNDS)])  # fmt: skip
        row = {f"{way}, a second": MADE[name] / seconds for way, seconds in taken.median().items()}
        row |= {f"times {way}": (taken[way] / taken["now"]).median() for way in list(ways)[1:]}
        rows[name + (", network free" if how else "")] = row
    return pd.DataFrame.from_dict(rows, orient="index")


if __name__ == "__main__":
    if sys.argv[1:]:
        source, folder, how, cores = sys.argv[1:]
        if cores == "1":
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        cv2.setNumThreads(1 if cores == "1" else -1)
        measured = floor if how == "floor" else lambda *given: command(*given, stub=how == "stub")
        print(json.dumps(measured(Path(source), Path(folder))))
    else:
        with tempfile.TemporaryDirectory() as place:
            given = write_inputs(Path(place))
            from bench.common import as_markdown, machine

            print(f"{machine()}; medians of {ROUNDS}, in turns")
            for some in os.environ.get("CORES", "1 all").split():
                print(f"\ncores: {some}\n\n{as_markdown(table(given, Path(place), some), 2)}")
