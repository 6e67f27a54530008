"""A student changes one cell, and the change reaches the files, the logs and the notebooks that follow."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from notebook_tools import edit, printed, read, run, uncomment
from safetensors import safe_open

LPIPS = "LPIPS (untrained trunk)"


@pytest.fixture(scope="module")
def warmed_up(tmp_path_factory):
    """A workspace with a finished warmup of the unchanged notebook 03."""
    workspace = tmp_path_factory.mktemp("warmed_up")
    run(read("03_warmup_training"), workspace)
    return workspace


@pytest.fixture
def workspace(warmed_up, tmp_path):
    """A copy of that workspace for one test."""
    return shutil.copytree(warmed_up, tmp_path / "workspace")


def metadata(workspace, phase):
    with safe_open(workspace / f"runs/smoke/{phase}.safetensors", "pt") as file:
        return {name: json.loads(text) for name, text in file.metadata().items()}


def table(workspace, name, run="smoke"):
    return pd.read_csv(workspace / f"runs/{run}/{name}.csv")


def test_another_size_in_01_and_another_encoder_in_03_hold_in_all_that_follow(tmp_path):
    run(uncomment(read("01_dataset"), "size=255,", "size=48,"), tmp_path)
    assert "48 px" in printed(run(uncomment(read("03_warmup_training"), 'encoder="resnet34",'), tmp_path))
    run(read("04_adversarial_training"), tmp_path)
    for phase in ("warmup", "adversarial"):
        assert metadata(tmp_path, phase)["architecture"]["encoder"] == "resnet34"
        assert metadata(tmp_path, phase)["config"]["size"] == 48
    report = printed(run(read("05_analysis"), tmp_path))
    assert "4 test photos at 48 px" in report and "smoke: adversarial" in report


def test_size_rotation_batch_and_epochs_in_notebook_03(tmp_path):
    notebook = uncomment(read("03_warmup_training"), "size=128,", "size=48,")
    for line, new in (
        ("rotation=0,", None),
        ("batch_size=8,", "batch_size=4,"),
        ("warmup_epochs=20,", "warmup_epochs=3,"),
    ):
        uncomment(notebook, line, new)
    output = run(notebook, tmp_path)
    assert "degrees=0" in str([cell.outputs for cell in output.cells if cell.cell_type == "code"])
    steps, history = table(tmp_path, "warmup_steps"), table(tmp_path, "warmup_history")
    assert len(history) == 3
    assert len(steps) == 3 * 16 // 4
    assert metadata(tmp_path, "warmup")["config"]["size"] == 48


def test_another_lambda_is_one_more_row_of_the_analysis(workspace):
    run(read("04_adversarial_training"), workspace)
    notebook = uncomment(read("04_adversarial_training"), 'run="lambda 100",')
    run(uncomment(notebook, "lambda_l1=100,"), workspace)
    steps = table(workspace, "adversarial_steps", "lambda 100")
    np.testing.assert_allclose(steps["G total"], steps["GAN"] + 100 * steps["L1"] + 10 * steps[LPIPS], rtol=1e-3)
    run(read("05_analysis"), workspace)
    rows = pd.read_csv(workspace / "tables/05_summary.csv", index_col=0).index
    assert {"grey", "mean colour", "smoke: warmup", "smoke: adversarial", "lambda 100: adversarial"} <= set(rows)


def test_a_fourth_term_and_one_epoch_more_are_trained_logged_and_plotted(workspace):
    line = '    losses.LossTerm("L1", cfg.lambda_l1, losses.l1_loss),\n'
    fourth = (
        '    losses.LossTerm("saturation", 2.0, lambda p: (p.ab_pred.norm(dim=1) - p.ab.norm(dim=1)).abs().mean()),\n'
    )
    notebook = uncomment(read("04_adversarial_training"), "adversarial_epochs=120,", "adversarial_epochs=3,")
    run(edit(notebook, line, line + fourth), workspace)
    steps = table(workspace, "adversarial_steps")
    weighted = steps["GAN"] + 50 * steps["L1"] + 10 * steps[LPIPS] + 2 * steps["saturation"]
    np.testing.assert_allclose(steps["G total"], weighted, rtol=1e-3)
    history = table(workspace, "adversarial_history")
    assert len(history) == 3 and "saturation" in history


def test_without_lpips(workspace):
    line = "    losses.LossTerm(perceptual.name, cfg.lambda_perc, perceptual.loss),\n"
    run(edit(read("04_adversarial_training"), line, ""), workspace)
    steps = table(workspace, "adversarial_steps")
    assert LPIPS not in steps
    np.testing.assert_allclose(steps["G total"], steps["GAN"] + 50 * steps["L1"], rtol=1e-3)


def test_a_notebook_without_its_forerunner_names_it(tmp_path):
    with pytest.raises(Exception, match="03_warmup_training makes it"):
        run(read("04_adversarial_training"), tmp_path)
