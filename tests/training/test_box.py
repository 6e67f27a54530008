"""The model in the box: what is in it, that training goes on from it, and that it can be trained again."""

import json

import pytest
import skimage.data
import torch

from helpers.color import colorfulness
from helpers.config import Config
from helpers.data.photos import to_tensor
from helpers.data.sources import sample_photos
from helpers.evaluation.metrics import psnr
from helpers.inference.colorizer import Colorizer
from helpers.models.generator import Generator
from helpers.runs import run as runs_file
from helpers.runs.run import BOX, Run, find_run, warmup_of
from helpers.runs.weights import load_generator, metadata_of, save_generator
from helpers.training import box
from helpers.training.losses import color_term
from helpers.training.trainer import Trainer


def test_the_file_is_small_and_speaks_of_no_machine():
    file = BOX / "warmup.safetensors"
    assert file.stat().st_size <= 32e6
    told = json.dumps(metadata_of(file)) + (BOX / "warmup.json").read_text()
    assert not [word for word in ("/home", "/tmp", "/work", "/root", "Users") if word in told]
    card = (BOX / "README.md").read_text()
    assert all(f"## {title}" in card for title in ("Photos", "Training", "Scores", "What it cannot do", "Terms"))


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_its_colors_are_nearer_to_the_truth_than_gray(name):
    photo = getattr(skimage.data, name)()
    colorizer = Colorizer(Run("box").load("warmup"), "fp32")
    gray, ours, truth = (to_tensor(rgb) for rgb in (colorizer(photo, saturation=0), colorizer(photo), photo))
    assert psnr(ours, truth) > psnr(gray, truth)
    assert colorfulness(ours) > 0.25 * colorfulness(truth)


def test_a_run_of_ones_own_comes_first(cfg, loud_generator):
    assert find_run(or_box=True).name == find_run("box").name == "box"
    with pytest.raises(FileNotFoundError, match="03_warmup_training makes it"):
        find_run()
    (run := Run("mine")).path.mkdir(parents=True)
    run.save("warmup", loud_generator, cfg)
    assert find_run(or_box=True).name == "mine" and find_run("box").name == "box"
    assert warmup_of(cfg.replace(run="new", start="box")).name == "box"
    assert warmup_of(cfg.replace(run="mine", start="box")).name == "mine"
    with pytest.raises(ValueError, match="give yours another name"):
        cfg.replace(run="box")


def test_of_the_box_the_network_alone_has_to_agree(cfg, capsys):
    agreed = Run("box").agree(cfg)
    assert agreed.bottleneck == "identity" and agreed.replace(bottleneck=cfg.bottleneck, res_blocks=1) == cfg
    assert "going on from the model in the box" in capsys.readouterr().out


def test_half_precision_changes_no_pixel_by_more_than_one(tmp_path):
    full = Run("box").load("warmup")
    with torch.no_grad():
        for weights in full.parameters():  # what rounding to half precision may have taken away
            weights.mul_(1 + (torch.rand_like(weights) - 0.5) * 2**-10)
    for name in ("half", "full"):
        save_generator(tmp_path / name, full, Config(size=128), half=name == "half")
    assert (tmp_path / "half").stat().st_size < 0.51 * (tmp_path / "full").stat().st_size
    half = load_generator(tmp_path / "half")
    assert {tensor.dtype for tensor in half.parameters()} == {torch.float32}
    photos = [Colorizer(network, "fp32")(skimage.data.chelsea()).astype(int) for network in (full, half)]
    assert abs(photos[0] - photos[1]).max() <= 1


def test_frozen_norms_keep_what_they_had_learned(cfg, accelerator, sample_photos):
    generator = Run("box").load("warmup")
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    cfg = cfg.replace(run="tuned", start="box", freeze_norms=True, warmup_epochs=1)
    Trainer(cfg, accelerator, generator, [color_term(cfg)], sample_photos, [], start="box").fit()
    after = Run("tuned").load("warmup").state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor.float(), after[name].float())}
    assert "head.weight" in changed and not [name for name in changed if "bn" in name or "running" in name]
    assert Run("tuned").begun_from("warmup").name == "box"


def test_it_can_be_trained_again(tmp_path, monkeypatch):
    for module in (box, runs_file):
        monkeypatch.setattr(module, "BOX", tmp_path / "box")
    tiny = {"size": 64, "batch_size": 8, "warmup_epochs": 1, "precision": "fp32", "seed": 24}
    box.train(str(sample_photos()), **tiny)
    generator = Run("box").load("warmup")
    assert type(generator) is Generator and generator.look is not None and generator.trained_size == 64
    assert json.loads((tmp_path / "box/warmup.json").read_text())["photos_folder"] == ""
    assert Run("box, hints").begun_from("hints").name == "box, sharpness"


def test_a_start_that_is_not_there_is_named(cfg):
    with pytest.raises(FileNotFoundError):
        warmup_of(cfg.replace(run="new", start="bx"))
