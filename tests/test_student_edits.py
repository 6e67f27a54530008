"""A student changes one cell: the change reaches files, logs and the notebooks that follow, or is refused."""

import json
import re
import shutil

import cv2
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient.exceptions import CellExecutionError
from notebook_tools import edit, printed, read, run, uncomment
from safetensors import safe_open

LPIPS = "LPIPS (untrained backbone)"
OWN = """
class Own(torch.nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, width, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(width, 2, 3, padding=1)
        )

    def forward(self, L):
        return torch.tanh(self.layers(L))
"""
CHANGED = '''
class Changed(Generator):
    """No largest skip, and group normalization in the decoder."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.encoder.register_forward_hook(lambda module, inputs, maps: [torch.zeros_like(maps[0]), *maps[1:]])
        for block in self.decoder:
            block.norm = torch.nn.GroupNorm(8, block.norm.num_features)
'''
MADE = "generator = Generator(encoder=cfg.encoder, weights=cfg.encoder_weights, res_blocks=cfg.res_blocks)"


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


def metadata(workspace, phase, run="smoke"):
    with safe_open(workspace / f"runs/{run}/{phase}.safetensors", "pt") as file:
        told = file.metadata()
    return told | {name: json.loads(told[name]) for name in ("arguments", "config")}


def table(workspace, name, run="smoke"):
    return pd.read_csv(workspace / f"runs/{run}/{name}.csv")


def refused(notebook, workspace, error):
    """Run a notebook that has to stop with an error; return what it said."""
    with pytest.raises(CellExecutionError, match=error) as caught:
        run(notebook, workspace)
    return re.sub(r"\x1b\[[0-9;]*m", "", str(caught.value))


def with_class(name, source, after="from helpers"):
    """A notebook in which a student has written a class in a cell of its own, behind the imports."""
    notebook = read(name)
    last = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and after in cell.source)
    imports = "import torch\nfrom helpers.models.generator import Generator\n"
    notebook.cells.insert(last + 1, nbformat.v4.new_code_cell(imports + source))
    return notebook


def test_size_and_encoder_of_03_hold_in_all_that_follow(tmp_path):
    notebook = uncomment(read("03_warmup_training"), 'encoder="resnet34",')
    assert "48 px" in printed(run(uncomment(notebook, "size=128,", "size=48,"), tmp_path))
    assert "from it    size=48 (here 64)" in printed(run(read("04_adversarial_training"), tmp_path))
    for phase in ("warmup", "adversarial"):
        assert metadata(tmp_path, phase)["arguments"]["encoder"] == "resnet34"
        assert metadata(tmp_path, phase)["config"]["size"] == 48
    report = printed(run(read("05_analysis"), tmp_path))
    assert "4 test photos at 48 px" in report and "smoke: adversarial" in report


def test_a_change_in_01_stays_in_01(tmp_path):
    run(uncomment(read("01_dataset"), "size=255,", "size=48,"), tmp_path)
    assert not (tmp_path / "config.json").exists()
    assert "64 px" in printed(run(read("03_warmup_training"), tmp_path))


def test_rotation_batch_and_epochs_in_notebook_03(tmp_path):
    notebook = uncomment(read("03_warmup_training"), "rotation=0,")
    uncomment(uncomment(notebook, "batch_size=8,", "batch_size=4,"), "warmup_epochs=20,", "warmup_epochs=3,")
    output = run(notebook, tmp_path)
    assert "degrees=0" in str([cell.outputs for cell in output.cells if cell.cell_type == "code"])
    assert len(table(tmp_path, "warmup_history")) == 3 and len(table(tmp_path, "warmup_steps")) == 3 * 16 // 4


def test_an_exchanged_part_is_refused_before_it_trains(tmp_path):
    notebook = edit(read("03_warmup_training"), MADE, MADE + "\ngenerator.bottleneck = torch.nn.Identity()")
    told = refused(notebook, tmp_path, "TypeError")
    assert "class MyGenerator(Generator)" in told and "bottleneck" in told
    assert not list(tmp_path.glob("runs/*/*"))


def test_a_network_written_in_a_cell_is_trained_and_loaded_where_its_class_is_known(tmp_path):
    run(edit(with_class("03_warmup_training", OWN), MADE, "generator = Own()"), tmp_path)
    assert metadata(tmp_path, "warmup")["class"] == "Own"
    told = refused(read("04_adversarial_training"), tmp_path, "NameError")
    assert "a network of the class Own, which is not known here: run its cell first" in told
    assert "Own, warmed up by" in printed(run(with_class("04_adversarial_training", OWN), tmp_path))
    assert "smoke: adversarial" in printed(run(with_class("05_analysis", OWN), tmp_path))
    own_photos = with_class("06_colorize_your_photos", OWN)
    end = next(i for i, cell in enumerate(own_photos.cells) if "## 2." in cell.source)
    own_photos.cells = own_photos.cells[:end]
    assert "smoke/adversarial.safetensors" in printed(run(own_photos, tmp_path))


def test_a_changed_u_net_as_a_class_and_what_05_says_without_it(workspace):
    notebook = uncomment(with_class("03_warmup_training", CHANGED), 'run="my experiment",', 'run="changed",')
    run(edit(notebook, MADE, MADE.replace("= Generator", "= Changed")), workspace)
    assert metadata(workspace, "warmup", "changed")["class"] == "Changed"
    adversarial = uncomment(with_class("04_adversarial_training", CHANGED), 'run="lambda 100",', 'run="changed",')
    assert "Changed, warmed up by run 'changed'" in printed(run(adversarial, workspace))
    report = printed(run(uncomment(read("05_analysis"), 'run="lambda 100",', 'run="smoke",'), workspace))
    assert "left out: 'changed' is a Changed, a class that is not known here: run its cell first" in report


def test_an_augmentation_of_ones_own_is_the_same_in_the_next_kernel(tmp_path):
    own = "def darker(rgb):\n    return rgb * 0.9\n\n\naugment = [*batches.augmentations(cfg), darker]"
    notebook = edit(read("03_warmup_training"), "augment = batches.augmentations(cfg)", own)
    run(notebook, tmp_path)
    again = edit(read("03_warmup_training"), "augment = batches.augmentations(cfg)", own)
    assert "has finished its warmup: shown as it was" in printed(run(again, tmp_path))
    brighter = edit(again, "rgb * 0.9", "rgb * 0.8")
    assert "augmentation" in refused(brighter, tmp_path, "begun with other settings")


def test_another_value_that_a_loss_term_takes_from_around_it_is_noticed(tmp_path):
    line = '    losses.LossTerm("L1", 1.0, losses.l1_loss),\n'
    vivid = line + '    losses.LossTerm("vivid", 1.0, lambda p: -w * p.ab_pred.abs().mean()),\n'
    notebook = edit(edit(read("03_warmup_training"), line, vivid), "terms = [", "w = 0.1\nterms = [")
    run(notebook, tmp_path)
    told = refused(edit(notebook, "w = 0.1", "w = 0.2"), tmp_path, "begun with other settings")
    assert "function of vivid" in told


def test_another_lambda_is_one_more_row_of_the_analysis(workspace):
    run(read("04_adversarial_training"), workspace)
    notebook = uncomment(read("04_adversarial_training"), 'run="lambda 100",')
    run(uncomment(notebook, "lambda_l1=100,"), workspace)
    steps = table(workspace, "adversarial_steps", "lambda 100")
    np.testing.assert_allclose(steps["G total"], steps["GAN"] + 100 * steps["L1"] + 10 * steps[LPIPS], rtol=1e-3)
    run(read("05_analysis"), workspace)
    rows = pd.read_csv(workspace / "tables/05_summary.csv", index_col=0).index
    assert {"gray", "mean color", "smoke: warmup", "smoke: adversarial", "lambda 100: adversarial"} <= set(rows)


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


def test_a_term_on_the_discriminators_layers_and_one_epoch_more(workspace):
    line = '    losses.LossTerm("L1", cfg.lambda_l1, losses.l1_loss),\n'
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
    run(uncomment(notebook, "adversarial_epochs=120,", "adversarial_epochs=3,"), workspace)
    steps, history = table(workspace, "adversarial_steps"), table(workspace, "adversarial_history")
    weighted = steps["GAN"] + 50 * steps["L1"] + 10 * steps[LPIPS] + 2 * steps["features"]
    np.testing.assert_allclose(steps["G total"], weighted, rtol=1e-3)
    assert len(history) == 3 and (history["features"] > 0).all()


def test_without_lpips(workspace):
    line = "    losses.LossTerm(perceptual.name, cfg.lambda_perc, perceptual.loss),\n"
    run(edit(read("04_adversarial_training"), line, ""), workspace)
    steps = table(workspace, "adversarial_steps")
    assert LPIPS not in steps
    np.testing.assert_allclose(steps["G total"], steps["GAN"] + 50 * steps["L1"], rtol=1e-3)


def test_photos_that_are_all_gray_are_a_clear_error_before_training(tmp_path):
    folder = tmp_path / "gray"
    folder.mkdir()
    for i in range(12):
        photo = np.random.default_rng(i).integers(0, 256, (5, 5), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(photo, (80, 80), interpolation=cv2.INTER_CUBIC))
    with pytest.raises(CellExecutionError, match="Only 0 photos of .* pass the rules .*near-gray.*12"):
        run(read("03_warmup_training"), tmp_path, COLORIZE_PHOTOS=str(folder))


def test_a_notebook_without_its_forerunner_names_it(tmp_path):
    for name in ("04_adversarial_training", "05_analysis", "06_colorize_your_photos"):
        refused(read(name), tmp_path, "Notebook 03_warmup_training makes it")
