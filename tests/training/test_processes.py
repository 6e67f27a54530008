"""Two processes train one network: the same weights, photos shared out, one set of metrics, one that writes."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from notebook_tools import PROJECT
from safetensors.torch import load_file

from helpers.config import Config
from helpers.data import dataset
from helpers.evaluation import metrics
from helpers.runs import Run, load_network

# what `accelerate launch` calls for several GPUs; on a CPU it would ask for MPI
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def launch(*command, **variables):
    done = start(*command, **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def start(*command, **variables):
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLORIZE_PROFILE": "smoke"} | variables
    return subprocess.run([*LAUNCH, *map(str, command)], env=env, cwd=PROJECT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two processes wrote down, and their workspace."""
    folder = tmp_path_factory.mktemp("two")
    launch(PROJECT / "tests/two_processes.py", folder, COLORIZE_WORKSPACE=str(folder / "workspace"))
    return [json.loads((folder / f"process{i}.json").read_text()) for i in (0, 1)], folder / "workspace"


@pytest.mark.parametrize("phase", [0, 1], ids=["warmup", "adversarial"])
def test_weights_are_equal_after_every_step_and_change_from_step_to_step(both, phase):
    first, second = ([step["weights"] for step in process["phases"][phase]["steps"]] for process in both[0])
    assert first == second
    assert len(set(first)) == len(first) == 4  # 16 photos, 2 processes, batches of 4, 2 epochs


@pytest.mark.parametrize("phase", [0, 1], ids=["warmup", "adversarial"])
def test_the_processes_see_different_photos_that_together_are_the_epoch(both, phase):
    for epoch in (slice(0, 2), slice(2, 4)):
        parts = [sum((step["photos"] for step in p["phases"][phase]["steps"][epoch]), []) for p in both[0]]
        assert not set(parts[0]) & set(parts[1])
        assert sorted(parts[0] + parts[1]) == list(range(16))


def test_one_set_of_metrics_over_all_validation_photos(both, monkeypatch):
    (first, second), workspace = both
    assert [p["history"] for p in first["phases"]] == [p["history"] for p in second["phases"]]
    monkeypatch.setenv("COLORIZE_WORKSPACE", str(workspace))
    validation = dataset.prepare(Config.from_profile(precision="fp32", batch_size=4)).load("validation")
    assert len(validation) > 1
    colorized = metrics.colorize_all(Run("smoke").load("warmup"), validation)
    table = metrics.measure_all(colorized, validation, with_ssim=False)
    assert first["phases"][0]["history"]["val L1"][-1] == pytest.approx(table["L1"].mean(), rel=1e-4)


def test_only_the_first_process_writes(both):
    (first, second), _ = both
    assert len(first["saved"]) >= 2 and any(
        "_history.csv." in path and path.endswith(".part") for path in first["written"]
    )
    assert second["saved"] == [] and second["written"] == []


@pytest.fixture(scope="module")
def commanded(tmp_path_factory):
    """What the command printed when it trained both phases, and its workspace."""
    workspace = tmp_path_factory.mktemp("commanded")
    fields = ("precision=fp32", "batch_size=2", "warmup_epochs=1", "adversarial_epochs=1", "run=pair")
    fields += ("bottleneck=attention", "attention_at=8")
    return launch("-m", "helpers.training", "--set", *fields, COLORIZE_WORKSPACE=str(workspace)), workspace


def test_the_command_trains_both_phases(commanded):
    printed, workspace = commanded
    assert printed.count("warmup 1/1") == 1 and printed.count("adversarial 1/1") == 1
    assert load_network(workspace / "runs/pair/adversarial.safetensors")
    assert json.loads((workspace / "runs/pair/warmup.json").read_text())["batch_size"] == 2


def test_two_processes_that_died_within_an_epoch_go_on_as_if_they_had_not(commanded, tmp_path):
    script, folders = PROJECT / "tests/stopped_pair.py", (commanded[1] / "runs/pair", tmp_path / "runs/smoke")
    assert start(script, 3, COLORIZE_WORKSPACE=str(tmp_path)).returncode != 0
    printed = launch(script, 0, COLORIZE_WORKSPACE=str(tmp_path))
    assert "going on with warmup epoch 1/1, after step 2" in printed
    whole, broken = (load_file(folder / "warmup.safetensors") for folder in folders)
    assert all(torch.equal(tensor, broken[name]) for name, tensor in whole.items())
    whole, broken = (pd.read_csv(folder / "warmup_steps.csv") for folder in folders)
    pd.testing.assert_frame_equal(whole, broken, check_exact=True)
