"""Two processes train one network: the same weights, shared photos, one set of metrics, one that writes."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tiny import TinyGenerator, TinyPhotos

from helpers import workspace
from helpers.evaluation import metrics
from helpers.runs import Run, load_network

# `accelerate launch` does this for several GPUs; on a CPU it would ask for MPI
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
SCRIPT = workspace.PROJECT / "tests" / "two_processes.py"
PHASES = ("warmup", "adversarial")


def launch(folder, *command):
    env = os.environ | {"OMP_NUM_THREADS": "1", "COLORIZE_PROFILE": "smoke", "COLORIZE_WORKSPACE": str(folder)}
    command = [*LAUNCH, *map(str, command)]
    return subprocess.run(command, env=env, cwd=workspace.PROJECT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two processes that die in their second epoch, and are started again; what each wrote down, and the runs."""
    folder = tmp_path_factory.mktemp("two")
    assert launch(folder, SCRIPT, folder, 3).returncode != 0
    done = launch(folder, SCRIPT, folder, 0)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "after step 1" in done.stdout
    return [json.loads((folder / f"process{i}.json").read_text()) for i in (0, 1)], folder / "runs"


@pytest.mark.parametrize("phase", PHASES)
def test_the_processes_share_an_epochs_photos_and_have_the_same_weights_after_every_step(both, phase):
    first, second = (process[phase]["steps"] for process in both[0])
    weights = [step["weights"] for step in first]
    assert weights == [step["weights"] for step in second] and len(set(weights)) == len(weights) == 4  # in 2 epochs
    for epoch in (slice(0, 2), slice(2, 4)):
        assert sorted(sum((step["photos"] for step in first[epoch] + second[epoch]), [])) == list(range(16))


def test_there_is_one_set_of_metrics_over_all_validation_photos(both, monkeypatch):
    (first, second), folder = both
    assert [first[phase]["history"] for phase in PHASES] == [second[phase]["history"] for phase in PHASES]
    validation = TinyPhotos().load("validation")
    network = load_network(folder / "whole/warmup.safetensors", into=TinyGenerator())
    table = metrics.measure_all(metrics.colorize_all(network, validation), validation, with_ssim=False)
    assert first["warmup"]["history"]["val L1"][-1] == pytest.approx(table["L1"].mean(), rel=1e-4)


def test_only_the_first_process_writes(both):
    first, second = (process["written"] for process in both[0])
    assert any("history" in path for path in first) and any("checkpoint" in path for path in first)
    assert not second


def test_two_processes_that_died_go_on_as_if_they_had_not(both):
    processes, folder = both
    assert [len(process["resumed"]["steps"]) for process in processes] == [1, 1]
    whole, broken = (load_file(folder / run / "warmup.safetensors") for run in ("whole", "broken"))
    assert all(torch.equal(tensor, broken[name]) for name, tensor in whole.items())
    whole, broken = (pd.read_csv(folder / run / "warmup_steps.csv") for run in ("whole", "broken"))
    pd.testing.assert_frame_equal(whole, broken, check_exact=True)


def test_the_command_trains_both_phases_on_all_processes_and_the_second_copies_what_must_match(tmp_path, monkeypatch):
    small = {"precision": "fp32", "warmup_epochs": 1, "adversarial_epochs": 1, "run": "pair", "batch_size": 2}
    warmup = small | {"seed": 3, "size": 32, "encoder": "test_efficientnet", "res_blocks": 0}
    for phase, values in (("warmup", warmup), ("adversarial", small)):
        command = ["-m", "helpers.training", "--profile", "smoke", "--phase", phase, "--set", json.dumps(values)]
        done = launch(tmp_path, *command)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count(f"{phase} 1/1") == 1
    assert "size=32" in done.stdout
    monkeypatch.setenv("COLORIZE_WORKSPACE", str(tmp_path))
    run = Run("pair")
    first, second = (run.settings(phase) for phase in PHASES)
    assert run.load("adversarial") and first == second
    photos, other = (run.table(phase, "manifest") for phase in PHASES)
    assert photos.equals(other) and len(run.table("warmup", "steps")) == (photos["split"] == "train").sum() // 4
