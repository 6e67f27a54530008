"""A study of tests/bench in its shortest form: it trains, resumes and reports; not who wins."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def test_a_study_trains_and_reports(tmp_path):
    env = os.environ | {"COLORIZE_PROFILE": "smoke", "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, PROJECT / "tests/bench/bottlenecks.py", "--seeds", "1", "--epochs", "1"]
    command += ["--out", tmp_path, "--names", "identity"]
    for _ in range(2):  # the second time nothing is left to train
        subprocess.run(command, env=env, check=True, capture_output=True)
        report = (tmp_path / "BOTTLENECKS.md").read_text()
        first = [line.split("|")[1].strip() for line in report.splitlines() if line.startswith("| ")]
        assert first[2] == "identity"
