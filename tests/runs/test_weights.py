"""Networks of one's own: saved, made again by whoever has their class, or refused before they train."""

import json
import sys

import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import save_file
from torch import nn

from helpers.data.batches import augmentations
from helpers.models.generator import Generator
from helpers.runs.weights import load_generator, refuse_what_cannot_return, save_generator
from helpers.training.losses import LossTerm, l1_loss
from helpers.training.trainer import Trainer


class Plain(nn.Module):
    """A network as a student writes it: no arguments, or all with defaults."""

    def __init__(self, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2, 3, padding=1))

    def forward(self, L):
        return self.layers(L)


class Remembering(Plain, PyTorchModelHubMixin):
    """A network that has to be told its width, and remembers it."""

    def __init__(self, width):
        super().__init__(width)


class Changed(Generator):
    """The series' own with a part exchanged."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.bottleneck = nn.Identity()
        for block in self.decoder:
            block.norm = nn.GroupNorm(8, block.norm.num_features)


class Needy(nn.Module):
    """A network that wants an argument and does not remember it."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Conv2d(1, 2, width)


@pytest.fixture
def in_notebook(monkeypatch):
    """Define classes where a notebook's cells do."""
    for kind in (Plain, Remembering, Changed):
        monkeypatch.setattr(sys.modules["__main__"], kind.__name__, kind, raising=False)


def generator():
    return Generator(weights=None, res_blocks=1)


@pytest.mark.parametrize("make", [Plain, lambda: Remembering(6), lambda: Changed(weights=None, res_blocks=1)])
def test_a_network_of_ones_own_is_trained_saved_and_comes_back(make, in_notebook, cfg, accelerator, sample_photos):
    changed = cfg.replace(warmup_epochs=1, ema_decay=None)
    terms = [LossTerm("L1", 1.0, l1_loss)]
    trainer = Trainer(changed, accelerator, make(), terms, sample_photos, augmentations(changed))
    trainer.fit()
    loaded, L = trainer.run.load("warmup"), torch.rand(1, 1, 40, 50)
    assert type(loaded) is type(trainer.raw_generator) and loaded.trained_size == cfg.size
    with torch.no_grad():
        assert torch.allclose(loaded(L), trainer.raw_generator(L), atol=1e-5)  # of another memory format


def test_a_class_that_is_not_known_here_is_named(cfg, tmp_path):
    save_generator(tmp_path / "own.safetensors", Plain(), cfg)
    with pytest.raises(NameError, match="a network of the class Plain, which is not known here: run its cell first"):
        load_generator(tmp_path / "own.safetensors")


def exchanged_bottleneck(network):
    network.bottleneck = nn.Identity()


def group_norm(network):
    network.decoder[0].norm = nn.GroupNorm(8, 256)


def another_relu(network):
    network.bottleneck[0].body[2] = nn.LeakyReLU(0.1)


def hook(network):
    network.decoder[1].register_forward_pre_hook(lambda module, inputs: (inputs[0], torch.zeros_like(inputs[1])))


def own_forward(network):
    network.forward = lambda L: L.repeat(1, 2, 1, 1)


@pytest.mark.parametrize("change", [exchanged_bottleneck, group_norm, another_relu, hook, own_forward])
def test_an_exchanged_part_is_refused_before_it_trains(change, cfg, accelerator, sample_photos):
    network = generator()
    change(network)
    with pytest.raises(TypeError, match=r"class MyGenerator\(Generator\)"):
        Trainer(cfg, accelerator, network, [LossTerm("L1", 1.0, l1_loss)], sample_photos, [])


def test_a_network_whose_arguments_nobody_remembers_is_refused_with_what_to_do():
    with pytest.raises(TypeError, match="Needy cannot be made again.*PyTorchModelHubMixin"):
        refuse_what_cannot_return(Needy(3))


def test_looking_whether_it_can_return_leaves_chance_alone():
    network, before = generator(), torch.get_rng_state()
    refuse_what_cannot_return(network)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_of_the_version_before_are_refused_by_what_they_are(tmp_path):
    architecture = json.dumps({"encoder": "resnet18", "res_blocks": 1})
    save_file({"head.bias": torch.zeros(2)}, tmp_path / "old.safetensors", {"architecture": architecture})
    with pytest.raises(ValueError, match="an older version of this series wrote it"):
        load_generator(tmp_path / "old.safetensors")
