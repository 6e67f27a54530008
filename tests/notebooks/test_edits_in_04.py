"""A student changes a cell of 04, or goes on from a changed 03: it reaches files, logs and what follows."""

import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
from notebook_tools import MADE, before, edit, metadata, printed, read, refused, run, table, uncomment, with_class

LPIPS = "LPIPS (untrained backbone)"
CHANGED = '''
class Changed(Generator):
    """No largest skip, and group normalization in the decoder."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.encoder.register_forward_hook(lambda module, inputs, maps: [torch.zeros_like(maps[0]), *maps[1:]])
        for block in self.decoder:
            block.norm = torch.nn.GroupNorm(8, block.norm.num_features)
'''


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


def test_a_changed_u_net_and_another_lambda_and_what_05_makes_of_both(workspace):
    notebook = uncomment(with_class("03_warmup_training", CHANGED), 'run="my experiment",', 'run="changed",')
    run(edit(notebook, MADE, MADE.replace("else Generator", "else Changed")), workspace)
    assert metadata(workspace, "warmup", "changed")["class"] == "Changed"
    adversarial = uncomment(with_class("04_adversarial_training", CHANGED), 'run="lambda 100",', 'run="changed",')
    assert "Changed, warmed up by run 'changed'" in printed(run(adversarial, workspace))
    notebook = uncomment(read("04_adversarial_training"), 'run="lambda 100",')
    run(uncomment(notebook, "lambda_l1=100,"), workspace)
    steps = table(workspace, "adversarial_steps", "lambda 100")
    np.testing.assert_allclose(steps["G total"], steps["GAN"] + 100 * steps["L1"] + 10 * steps[LPIPS], rtol=1e-3)
    report = printed(run(uncomment(read("05_analysis"), 'run="lambda 100",', 'run="smoke",'), workspace))
    assert "left out: 'changed': " in report and "class Changed, which is not known here: run its cell first" in report
    rows = pd.read_csv(workspace / "tables/05_summary.csv", index_col=0).index
    assert {"gray", "mean color", "smoke: warmup", "lambda 100: adversarial"} <= set(rows)


def test_hinge_for_both_networks_sgd_a_rate_for_the_discriminator_and_n_critic(workspace):
    notebook = read("04_adversarial_training")
    for old, new in {
        "losses.real_loss": "lambda p: torch.relu(1 - p.real_logits).mean()",
        "losses.fake_loss": "lambda p: torch.relu(1 + p.fake_logits).mean()",
        "losses.gan_loss)": "lambda p: -p.fake_logits.mean())",
        "optimizer, augment = step.adam(cfg)": "optimizer, augment = lambda weights, lr: torch.optim.SGD(weights, lr)",
    }.items():
        cell = next(c for c in notebook.cells if c.cell_type == "code" and old in c.source)
        cell.source = cell.source.replace(old, new, 1)
    uncomment(uncomment(notebook, "discriminator_lr=4e-4,"), "n_critic=2,")
    notebook.cells.append(nbformat.v4.new_code_cell("print(type(trainer.d_optimizer.optimizer).__name__)"))
    assert "SGD" in printed(run(notebook, workspace))
    steps = table(workspace, "adversarial_steps")
    assert len(steps) == 2  # of two epochs: 16 photos, batches of 8, two for each step
    assert metadata(workspace, "adversarial")["config"]["discriminator_lr"] == 4e-4


def test_a_term_on_the_discriminators_layers_in_place_of_lpips_and_one_epoch_more(workspace):
    line = "    losses.LossTerm(cfg.color_loss, cfg.lambda_l1, losses.COLOR_LOSSES[cfg.color_loss]),\n"
    matching = """def features(p, ab):
    x, maps = torch.cat([p.L, ab], dim=1), []
    for layer in p.discriminator.layers[:-1]:
        x = layer(x)
        maps.append(x)
    return maps[2::3]


def feature_matching(p):
    pairs = zip(features(p, p.ab_pred), features(p, p.ab), strict=True)
    return sum((ours - theirs.detach()).abs().mean() for ours, theirs in pairs)


terms = ["""
    notebook = edit(read("04_adversarial_training"), "\nterms = [", "\n" + matching)
    edit(notebook, line, line + '    losses.LossTerm("features", 2.0, feature_matching),\n')
    edit(notebook, "    losses.LossTerm(perceptual.name, cfg.lambda_perc, perceptual.loss),\n", "")
    run(uncomment(notebook, "adversarial_epochs=120,", "adversarial_epochs=3,"), workspace)
    steps, history = table(workspace, "adversarial_steps"), table(workspace, "adversarial_history")
    weighted = steps["GAN"] + 50 * steps["L1"] + 2 * steps["features"]
    np.testing.assert_allclose(steps["G total"], weighted, rtol=1e-3)
    assert LPIPS not in steps and len(history) == 3 and (history["features"] > 0).all()


def test_notebook_04_starts_two_processes(workspace):
    notebook = read("04_adversarial_training")
    launcher = next(cell for cell in notebook.cells if "# accelerate.notebook_launcher(" in cell.source)
    before(notebook, "make_accelerator").cells.append(launcher)  # a fresh kernel: configuration, launcher
    edit(notebook, "# accelerate.notebook_launcher(", "accelerate.notebook_launcher(")
    run(edit(notebook, "gpus = torch.cuda.device_count()", "gpus = 2"), workspace, OMP_NUM_THREADS="1")
    assert (workspace / "runs/smoke/adversarial.safetensors").exists()
    assert len(table(workspace, "adversarial_steps")) == 2  # epochs of one step: 16 photos, 2 processes, batches of 8


def test_a_notebook_without_its_forerunner_names_it(tmp_path):
    for name in ("04_adversarial_training", "05_analysis"):
        refused(read(name), tmp_path, "Notebook 03_warmup_training makes it")


def test_training_starts_from_the_box_with_or_without_a_warmup_of_its_own(tmp_path):
    report = printed(run(edit(read("04_adversarial_training"), "# start=", "start="), tmp_path))
    assert "going on from the model in the box" in report and "warmed up by run 'box'" in report
    assert "from it    bottleneck='identity' (here 'residual')" in report
    notebook = uncomment(edit(read("03_warmup_training"), "# start=", "start="), "freeze_norms=True,")
    assert "resnet18, weights: of run 'box'" in printed(run(before(notebook, "deepcopy(generator)"), tmp_path))
