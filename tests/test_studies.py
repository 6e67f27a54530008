"""The studies of tests/bench in their short form: that they run, and report what was trained; not who wins."""

import os
import subprocess
import sys

import pytest
from notebook_tools import PROJECT


@pytest.mark.parametrize(
    ("script", "names", "rows"),
    [("ablation", ["hinge"], ["warmup", "hinge"]), ("bottlenecks", ["identity"], ["identity"])],
)
def test_a_study_trains_and_reports(script, names, rows, tmp_path):
    env = os.environ | {"COLORIZE_PROFILE": "smoke", "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, PROJECT / f"tests/bench/{script}.py", "--seeds", "1", "--epochs", "1"]
    command += ["--out", tmp_path, "--names", *names]
    subprocess.run(command, env=env, check=True, capture_output=True)
    report = (tmp_path / f"{script.upper()}.md").read_text()
    first = [line.split("|")[1].strip() for line in report.splitlines() if line.startswith("| ")]
    assert first[1 : 1 + len(rows)] == rows
