"""Which changes make another training, refused by name, and which do not."""

import os
import re
import subprocess
import sys

import kornia.augmentation as K
import pytest
import torch
import torch.nn.functional as F
from tiny import GAN, L1, NOISY, TinyDiscriminator, TinyGenerator, TinyPhotos, cell
from torch import nn

from helpers.training.checkpoint import described
from helpers.training.losses import LossTerm, fake_loss, real_loss

CELL = """
import functools
from torch import Tensor
w, table, weights, names = {w}, [1, {w}], torch.tensor([1.0, {w}]), {{"some", "texts", str({w})}}
def closed(v):
    return lambda p: v * p
def default(p, q=w):
    return p * q
class Loss:
    factor = {w}
    def __init__(self):
        self.w = w
    def __call__(self, p):
        return p * self.w
class Inherited(Loss):
    pass
class Noise(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.strength = w
    def forward(self, p):
        return p + self.strength
def helper(p):
    return w * p
@torch.no_grad()
def decorated(p):
    return p * w
constant = lambda p: {w} * p
number = lambda p: w * p
in_list = lambda p: table[1] * p
in_tensor = lambda p: weights[1] * p
typed = lambda p: p * w if isinstance(p, torch.Tensor) else Tensor
in_set = lambda p: p * len(names)
through_another = lambda p: helper(p)
in_generator = lambda p: sum(w * q for q in p)
"""
THINGS = ["closed(w)", "default", "Loss()", "Loss().__call__", "Inherited()", "Noise()", "decorated", "constant"]
THINGS += [
    "number",
    "typed",
    "in_list",
    "in_tensor",
    "in_set",
    "through_another",
    "in_generator",
    "{0: number}",
    "[number]",
]
THINGS += ["typed", "functools.partial(closed, w)", "functools.partial(closed, v=w)"]


@pytest.fixture(autouse=True)
def notebook(monkeypatch):
    """As in a notebook, `__main__` has no file: Python 3.13 would look there for the classes of a cell."""
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)


def made(thing, w):
    return eval(thing, cell(CELL.format(w=w)))


@pytest.mark.parametrize("thing", THINGS)
def test_another_value_is_another_function_and_the_same_cell_the_same(thing):
    assert described(made(thing, 0.5)) == described(made(thing, 0.5)) != described(made(thing, 0.25))
    assert " at 0x" not in described(made(thing, 0.5))


def test_the_same_cell_means_the_same_in_another_kernel():
    lines = ["from tiny import cell", "from helpers.training.checkpoint import described"]
    lines += [f"scope = cell({CELL.format(w=0.5)!r})", f"print([described(eval(t, scope)) for t in {THINGS}])"]
    env = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    there = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], env=env, capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == str([described(made(thing, 0.5)) for thing in THINGS])


def test_a_name_that_is_only_an_attribute_is_not_used():
    """`p.ab` is no variable `ab` of the notebook."""
    one, other = (cell("term = lambda p: p.ab", ab=value)["term"] for value in (1, 2))
    assert described(one) == described(other)


def test_a_large_tensor_is_a_short_text():
    large = torch.rand(300, 300)
    one, other = (cell("term = lambda p: p * large", large=value)["term"] for value in (large, large + 1))
    assert described(one) != described(other) and len(described(one)) < 100


def test_a_class_of_a_notebook_is_its_functions_and_those_of_its_own_parents():
    source = "class Parent:\n    def loss(self, p):\n        return {w} * p\nclass Child(Parent):\n    pass"
    one, same, other = (described(cell(source.format(w=w))["Child"]) for w in (1, 1, 2))
    assert one == same != other


def test_a_librarys_function_is_its_name_and_its_arguments():
    assert described(F.relu) == described(F.relu) != described(F.gelu)
    assert described(K.RandomHorizontalFlip(p=0.5)) != described(K.RandomHorizontalFlip(p=0.25))
    rotations = [described(K.RandomRotation(degrees)) for degrees in (15.0, 15.0, 20.0)]
    assert rotations[0] == rotations[1] != rotations[2]


@pytest.mark.parametrize(
    "source", ["def f(n):\n    return n and f(n - 1)", "def f(p):\n    return g(p)\ndef g(p):\n    return f(p)"]
)
def test_functions_that_call_each_other_come_to_an_end(source):
    assert described(cell(source)["f"])


def test_a_networks_weights_do_not_matter_and_its_layers_do():
    one, other, wider = (nn.Sequential(nn.Conv2d(1, width, 3)) for width in (2, 2, 3))
    assert described(one) == described(other) != described(wider)


# the same in a Trainer: each change is refused by its name


def sgd(parameters, lr):
    return torch.optim.SGD(parameters, lr)


def term(weight):
    return LossTerm("slope", 1.0, cell("slope = lambda p: w * p.ab_pred.mean()", w=weight)["slope"])


class Deeper(TinyGenerator):
    def __init__(self):
        super().__init__()
        self.append(nn.Identity())


def frozen():
    generator = TinyGenerator()
    generator[0].requires_grad_(False)
    return generator


def other_photos():
    photos = TinyPhotos()
    photos.manifest["sha256"] += 1
    return photos


CHANGES = {
    "lr": {"lr": 2e-3},
    "d_lr": {"d_lr": 2e-3},
    "rise": {"rise": 3},
    "epochs": {"epochs": 3},
    "n_critic": {"n_critic": 2},
    "patience": {"patience": 5},
    "batch_size": {"changes": {"batch_size": 8}},
    "seed": {"changes": {"seed": 3}},
    "schedule": {"changes": {"schedule": "constant"}},
    "clip_norm": {"changes": {"clip_norm": 2.0}},
    "ema_decay": {"changes": {"ema_decay": None}},
    "beta1": {"changes": {"beta1": 0.9}},
    "term L1": {"terms": [GAN, LossTerm("L1", 40.0, L1.function), term(0.5)]},
    "term slope": {"terms": [GAN, L1, term(0.25)]},
    "L1": {"terms": [GAN, LossTerm("L1", 50.0, torch.abs), term(0.5)]},
    "term D real": {"d_terms": [LossTerm("D real", 0.4, real_loss), LossTerm("D fake", 0.5, fake_loss)]},
    "augment": {"augment": [cell(NOISY, strength=0.2)["noisy"]]},
    "optimizer": {"optimizer": sgd},
    "generator": {"generator": Deeper()},
    "learned weights": {"generator": frozen()},
    "discriminator": {"discriminator": nn.Sequential(TinyDiscriminator())},
    "start": {"start": "box"},
    "photo size": {"photos": TinyPhotos(32)},
    "photos": {"photos": other_photos()},
}
HARMLESS = {"show_folder": "/photos", "checkpoint_minutes": 1.0, "memory_gb": 0.0, "warmup_epochs": 7, "compile": False}


@pytest.fixture
def finished(make):
    """Train a run to its end; return `make` with the same options, which a test may change."""

    def _make(**options):
        return make(**{"terms": [GAN, L1, term(0.5)]} | options)

    _make().fit()
    return _make


def test_every_change_is_refused_by_its_name_and_nothing_is_lost(finished):
    missed = []
    for name, options in CHANGES.items():
        trainer = finished(**options)
        before = trainer.run.file("adversarial").read_bytes()
        try:
            trainer.fit()
            missed.append(name)
        except ValueError as error:
            if not re.search(rf"[(;] ?([a-z' ]* )?{name}[^;:]*: ", str(error)):
                missed.append(f"{name}: {error}")
        assert trainer.run.file("adversarial").read_bytes() == before
    assert not missed


def test_a_refusal_names_what_changed_and_nothing_else(finished):
    with pytest.raises(ValueError, match="restart=True") as caught:
        finished(changes={"seed": 3}).fit()
    assert "(seed: 24 then, 3 now)" in str(caught.value)


def test_harmless_changes_are_not_refused(finished, capsys):
    changed = finished(changes=HARMLESS, generator=TinyGenerator())
    changed.training_step = None  # cannot be called
    assert len(changed.fit()) == 2


def test_restart_starts_over_and_archives_the_old_run(finished):
    again = finished(epochs=1)
    weights = again.run.file("adversarial").read_bytes()
    assert len(again.fit(restart=True)) == 1 and again.run.file("adversarial").read_bytes() != weights
    (archive,) = again.run.path.glob("earlier-adversarial-*")
    assert (archive / "adversarial.safetensors").read_bytes() == weights
    assert {"adversarial_history.csv", again.folder.name} <= {path.name for path in archive.iterdir()}
