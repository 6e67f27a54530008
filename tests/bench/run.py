"""`make bench`: how fast the series is, as ratios within one run; tables in artifacts/bench/ and RESULTS.md.

Each measurement is a process of its own (`measure.py`). Alone on the machine, please: two programs that share the cores
measure each other. When all are taken, they are put at the top of RESULTS.md, above those of earlier runs.
"""

import datetime
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import torch

HERE = Path(__file__).resolve().parent
OUT, RESULTS = HERE.parents[1] / "artifacts" / "bench", HERE / "RESULTS.md"
PHASES = ("warmup", "adversarial")
MEASURES = (
    "bf16 or fp16",
    "channels_last",
    "fused Adam",
    "photos in memory",
    "Lab a batch at a time",
    "LPIPS in the maps' precision",
    "losses read once an epoch",
    "torch.compile left off",
)


def measure(what, **task):
    """Run one measurement; return what it found, empty if it failed (its last words are shown)."""
    print(f"  {what} {task} ...", end=" ", flush=True)
    command = [sys.executable, HERE / "measure.py", json.dumps({"what": what, **task})]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print("failed:", done.stderr.strip().splitlines()[-1:])
        return {}
    result = json.loads(done.stdout.splitlines()[-1])
    print({name: round(value, 3) for name, value in result.items()}, flush=True)
    return result


def best(count, what, **task):
    """Return the fastest of several runs: others on the machine only ever slow one down."""
    return max((measure(what, **task) for _ in range(count)), key=lambda result: result.get("photos/s", 0))


def against_the_report(peak):
    """1 and 3: photos per second in training, ours against the report's way, and arithmetic as a share of the peak."""
    rows = {}
    for phase in PHASES:
        ours, plain = (best(2, "train", way=way, phase=phase) for way in ("ours", "plain"))
        rows[phase] = {
            "ours, photos/s": ours["photos/s"],
            "the report's way": plain["photos/s"],
            "ratio": ours["photos/s"] / plain["photos/s"],
            "of matmul peak": ours["photos/s"] * ours["GFLOP/photo"] / peak,
            "outside the steps": ours.get("outside steps"),
            "ours, GB": ours["GB"],
            "the report's way, GB": plain["GB"],
        }
    return pd.DataFrame(rows).T


def each_measure_alone(training):
    """2: what switching one measure off costs, as a ratio of photos per second (below 1: slower without it)."""
    rows = {name: {} for name in MEASURES}
    for phase, full in training["ours, photos/s"].items():
        for name in MEASURES[: -1 if phase == "adversarial" else None]:  # to compile all three networks takes minutes
            rows[name][phase] = measure("train", phase=phase, off=name, steps=4).get("photos/s", 0) / full
    return pd.DataFrame(rows).T


def growth():
    """6: photos per second and memory of training as batch, size and set grow, one at a time."""
    changes = [{"batch_size": n} for n in (1, 4, 8, 16)] + [{"size": n} for n in (128, 255, 384)]
    changes += [{"n_photos": n} for n in (150, 1500)] + [{"n_photos": 1500, "memory_gb": 0.0}]
    rows = []
    for phase in PHASES:
        for change in changes:
            found = measure("train", phase=phase, steps=3, **change)
            rows.append(
                {"phase": phase, "what": ", ".join(f"{name} {value}" for name, value in change.items()), **found}
            )
    return pd.DataFrame(rows).set_index(["phase", "what"])


def preparation():
    """4: photos per second from JPEG files to a prepared set."""
    ways = {"scikit-image, one core": {"way": "plain", "cores": 1, "count": 100}, "ours, one core": {"cores": 1}}
    ways |= {"ours, all cores": {}, "ours, all cores, five times the photos": {"count": 1500}}
    table = pd.DataFrame({name: measure("prepare", **task) for name, task in ways.items()}).T
    table.insert(1, "ratio", table["photos/s"] / table["photos/s"].iloc[0])
    return table


def inference():
    """5: photos per second from bytes to bytes."""
    tasks = [{"size": 255, "batch_size": n} for n in (1, 4, 8, 16)] + [{"size": n, "batch_size": 8} for n in (128, 384)]
    return pd.DataFrame([{**task, **measure("infer", **task)} for task in tasks]).set_index(["size", "batch_size"])


def own_photos():
    """Colorizing photos of one's own: large ones, from file to file; and 200 small ones, at once or one by one."""
    rows = {f"{size} megapixels": measure("full_size", megapixels=size) for size in (1, 24, 100)}
    for way, count in {"a folder at once": 200, "a call a photo": 200, "a command a photo": 10}.items():
        rows[f"255 px, {way}"] = measure("album", way=way, count=count)
    return pd.DataFrame(rows).T


def on_paper(tables):
    """What pools far beyond memory would take on this machine: the measured rates, multiplied out."""
    prepared, search = tables["preparation"].loc["ours, all cores"], measure("duplicates")
    rows = {}
    for name, count in {"COCO 2017, train": 118_287, "ImageNet-1k, train": 1_281_167}.items():
        rates = tables["training"]["ours, photos/s"]
        rows[name] = {
            "photos": count,
            "disk, prepared, GB": count * prepared["KB a photo"] / 1e6,
            "preparation, h": count / prepared["photos/s"] / 3600,
            "near-duplicates, h": search["seconds"] * (count / search["count"]) ** 2 / 3600,
            **{f"an epoch of {phase}, h": count / rate / 3600 for phase, rate in rates.items()},
        }
    return pd.DataFrame(rows).T


def machine():
    """Return the name of what the measurements run on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text()) if info.exists() else []
    return f"{torch.get_num_threads()} threads of {names[0] if names else platform.machine()}"


def markdown(table):
    """Return a table as lines of Markdown, its numbers rounded to three digits."""

    def cell(value):
        if isinstance(value, str):
            return value
        return "–" if pd.isna(value) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

    if not isinstance(table.index, pd.RangeIndex):
        table = table.reset_index().rename(columns={"index": ""})
    rows = [list(table), ["---"] * table.shape[1]]
    rows += [[cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main():
    """Take all measurements, write each table as soon as it is there: the whole takes half an hour."""
    OUT.mkdir(parents=True, exist_ok=True)
    peak, tables = measure("peak")["GFLOP/s"], {}
    text = [
        f"## {datetime.date.today()}, {machine()}",
        f"PyTorch {torch.__version__}; matrix multiplication sustains {peak:.0f} GFLOP/s. Photos are squares cut from "
        "scikit-image's; 255 px and batch 8 unless said otherwise; preparation reads JPEG files of 400 px.",
    ]
    makers = {
        "training": lambda: against_the_report(peak),
        "measures": lambda: each_measure_alone(tables["training"]),
        "profile": lambda: pd.DataFrame({phase: measure("profile", phase=phase) for phase in PHASES}),
        "growth": growth,
        "preparation": preparation,
        "inference": inference,
        "own photos": own_photos,
        "validation L1 after 200 steps": lambda: pd.DataFrame([measure("quality")]),
        "on paper": lambda: on_paper(tables),
    }
    for name, make in makers.items():
        tables[name] = make()
        tables[name].to_csv(OUT / f"{name}.csv")
        text += [f"### {name[0].upper()}{name[1:]}", markdown(tables[name])]
        (OUT / "report.md").write_text("\n\n".join(text) + "\n")
    title, _, earlier = RESULTS.read_text().partition("\n\n")
    RESULTS.write_text("\n\n".join([title, *text, earlier]))
    print("\n\n".join(text))


if __name__ == "__main__":
    main()
