"""`make bench`: how fast the series is, beside the report's way, and beside an earlier version with BEFORE=revision.

The versions take turns, each measurement is a process of its own (`measure.py`), and medians are reported. It needs the
machine to itself. The report goes to artifacts/bench/speed.md; copy to RESULTS.md by hand what is worth it.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import as_markdown, machine

PROJECT = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("ROUNDS", 3))
TASKS = {
    "warmup, 255 px": {"what": "train", "phase": "warmup"},
    "adversarial, 255 px": {"what": "train", "phase": "adversarial"},
    "warmup, 128 px": {"what": "train", "phase": "warmup", "size": 128},
    "adversarial, 128 px": {"what": "train", "phase": "adversarial", "size": 128},
    "inference, batch 8": {"what": "infer", "batch_size": 8},
    "a photo of 24 megapixels": {"what": "full_size"},
    "a folder of 200 photos": {"what": "album"},
}


def measure(project: Path, task: dict) -> dict[str, float]:
    """Run one measurement of a version of the project; return the result, empty if it fails."""
    command = [sys.executable, project / "tests" / "bench" / "measure.py", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(project)})
    if done.returncode:
        print(f"{task} failed in {project}:", done.stderr.strip().splitlines()[-1:])
        return {}
    result = json.loads(done.stdout.splitlines()[-1])
    print(task, {name: round(value, 3) for name, value in result.items()}, flush=True)
    return result


def in_turns(ways: dict[str, tuple[Path, dict]]) -> dict[str, dict[str, float]]:
    """Measure several ways in turns; return the medians of each that never failed."""
    found = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            found[name].append(measure(*way))
    whole = {name: results for name, results in found.items() if all(results)}
    return {
        name: {key: statistics.median(result[key] for result in results) for key in results[0]}
        for name, results in whole.items()
    }


def row(task: dict, before: Path | None) -> dict[str, float]:
    """Return a row of the table: this version, the one before, the report's way, and how many times as fast it is."""
    ways = {"now": (PROJECT, task)}
    if before:
        ways["before"] = (before, task)
    if task["what"] == "train":
        ways["the report's way"] = (PROJECT, task | {"way": "plain"})
    found, unit = in_turns(ways), "seconds" if task["what"] == "full_size" else "photos/s"
    cells = {"unit": unit} | {name: result[unit] for name, result in found.items()}
    for other in [name for name in found if name != "now" and "now" in found]:
        faster = cells["now"] / cells[other]
        cells[f"times {other}"] = 1 / faster if unit == "seconds" else faster
    return cells | {f"GB {name}": result["GB"] for name, result in found.items()}


def main() -> None:
    """Measure everything, and write the table."""
    out = PROJECT / "artifacts" / "bench" / "speed.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    revision, rows = os.environ.get("BEFORE"), {}
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before" if revision else None
        git = ["git", "-C", PROJECT, "worktree"]
        if before:
            subprocess.run([*git, "add", "--detach", before, revision], check=True)
        try:
            for name, task in TASKS.items():
                rows[name] = row(task, before)
                title = f"# Speed\n\n{machine()}; medians of {ROUNDS}, in turns" + f"; before: {revision}" * bool(
                    before
                )
                out.write_text(f"{title}\n\n{as_markdown(rows)}\n")
        finally:
            if before:
                subprocess.run([*git, "remove", "--force", before], check=True)
    print(out.read_text())


if __name__ == "__main__":
    main()
