"""The studies of tests/bench in their shortest form: they train, resume and report; not who wins."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("script", "names", "rows"),
    [("ablation", ["hinge", "R1"], ["warmup", "hinge", "R1"]), ("bottlenecks", ["identity"], ["identity"])],
)
def test_a_study_trains_and_reports(script, names, rows, tmp_path):
    env = os.environ | {"COLORIZE_PROFILE": "smoke", "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, PROJECT / f"tests/bench/{script}.py", "--seeds", "1", "--epochs", "1"]
    command += ["--out", tmp_path, "--names", *names]
    for _ in range(2):  # the second time nothing is left to train
        subprocess.run(command, env=env, check=True, capture_output=True)
        report = (tmp_path / f"{script.upper()}.md").read_text()
        first = [line.split("|")[1].strip() for line in report.splitlines() if line.startswith("| ")]
        assert first[2 : 2 + len(rows)] == rows
