"""Networks of one's own: saved, made again by whoever has their class, or refused before they train."""

import json
import sys

import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import save_file
from torch import nn

from helpers.data.batches import augmentations
from helpers.models.generator import Generator, load_resnet
from helpers.runs import load_network, XX_removed, save_network
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


class Handed(Generator):
    """The series' own, whose pretrained weights are no business of who loads it."""

    def __init__(self, **arguments):
        super().__init__(**{"res_blocks": 0} | arguments)


class Fixed(Generator):
    """The series' own without arguments."""

    def __init__(self):
        super().__init__(weights=None, res_blocks=0)


class Tied(nn.Module):
    """Two layers that share their weights."""

    def __init__(self, act=torch.relu):
        super().__init__()
        self.act, self.one, self.other = act, nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)
        self.other.weight = self.one.weight

    def forward(self, L):
        return self.other(self.act(self.one(L))).repeat(1, 2, 1, 1)


class Needy(nn.Module):
    """A network that wants an argument and does not remember it."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Conv2d(1, 2, width)


@pytest.fixture
def in_notebook(monkeypatch):
    """Define classes where a notebook's cells do."""
    for kind in (Plain, Remembering, Changed, Handed, Fixed, Tied):
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


def reloaded(network, cfg, path):
    """What comes back of a network from a file."""
    XX_removed(network)
    save_network(path, network.eval(), cfg)
    return load_network(path)


@torch.no_grad()
@pytest.mark.parametrize("make", [Fixed, Tied, lambda: Handed(weights=None)])
def test_what_a_class_does_by_itself_comes_back(make, in_notebook, cfg, tmp_path):
    network, L = make(), torch.rand(1, 1, 40, 50)
    assert torch.equal(reloaded(network, cfg, tmp_path / "own.safetensors")(L), network(L))


def test_a_class_that_passes_arguments_on_is_made_again_without_a_download(in_notebook, cfg, tmp_path, monkeypatch):
    state = load_resnet("resnet18", None).state_dict()
    monkeypatch.setattr("helpers.models.blocks.download_weights", lambda *names: state)
    network = Handed()  # with ImageNet's weights, by default
    monkeypatch.setattr("helpers.models.blocks.download_weights", lambda *names: pytest.fail("no need to"))
    assert type(reloaded(network, cfg, tmp_path / "own.safetensors")) is Handed


def test_a_class_that_is_not_known_here_is_named(cfg, tmp_path):
    save_network(tmp_path / "own.safetensors", Plain(), cfg)
    with pytest.raises(NameError, match="a network of the class Plain, which is not known here: run its cell first"):
        load_network(tmp_path / "own.safetensors")


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


def test_another_activation_of_a_network_of_ones_own_is_refused():
    network = Tied()
    network.act = torch.tanh
    with pytest.raises(TypeError, match="changed: itself"):
        XX_removed(network)


def test_a_class_with_the_name_of_the_series_own_is_refused():
    with pytest.raises(TypeError, match="give your class another name"):
        XX_removed(type("Generator", (Plain,), {"__module__": "__main__"})())


def test_a_network_that_was_trained_before_can_still_return(cfg, accelerator, sample_photos):
    network, terms = generator(), [LossTerm("L1", 1.0, l1_loss)]
    for run in ("first", "second"):  # accelerate leaves a `forward` of its own on it
        Trainer(cfg.replace(warmup_epochs=1, run=run), accelerator, network, terms, sample_photos, []).fit()
    assert load_network(
        Trainer(cfg.replace(run="second"), accelerator, network, terms, sample_photos, []).run.file("warmup")
    )


def test_a_network_whose_arguments_nobody_remembers_is_refused_with_what_to_do():
    with pytest.raises(TypeError, match="Needy cannot be made again.*PyTorchModelHubMixin"):
        XX_removed(Needy(3))


def test_looking_whether_it_can_return_leaves_chance_alone():
    network, before = generator(), torch.get_rng_state()
    XX_removed(network)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_of_the_version_before_are_refused_by_what_they_are(tmp_path):
    architecture = json.dumps({"encoder": "resnet18", "res_blocks": 1})
    save_file({"head.bias": torch.zeros(2)}, tmp_path / "old.safetensors", {"architecture": architecture})
    with pytest.raises(ValueError, match="an older version of this series wrote it"):
        load_network(tmp_path / "old.safetensors")
