"""Which changes make another training, refused by name, and which do not."""

import json
import os
import re
import subprocess
import sys
from functools import partial

import kornia.augmentation as K
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from tiny import TinyDiscriminator, TinyGenerator, TinyPhotos, before_each_batch, cell, tiny_trainer
from torch import nn

from helpers.config import Config
from helpers.training.checkpoint import describe, fingerprint

CELL = """
import functools
from torch import Tensor
w, table, weights, names = {w}, [1, {w}], torch.tensor([1.0, {w}]), {{"some", "texts", str({w})}}
closed = lambda v: lambda p: v * p
default = lambda p, q=w: p * q
keyword = lambda p, *, q=w: p * q
class Loss:
    factor = {w}
    def __init__(self): self.w = w
    def __call__(self, p): return p * self.w
class Inherited(Loss): pass
class Noise(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.strength = w
number = lambda p: w * p
decorated = torch.no_grad()(lambda p: w * p)
in_list = lambda p: table[1] * p
in_tensor = lambda p: weights[1] * p
typed = lambda p: p * w if isinstance(p, torch.Tensor) else Tensor
in_set = lambda p: p * len(names)
in_constant_set = lambda p: p in {{"some", "more", "texts", "{w}"}}
through_another = lambda p: number(p)
in_generator = lambda p: sum(w * q for q in p)
recursive = lambda n: n and recursive(w * n)
mutual = lambda n: other(n) + w
other = lambda n: mutual(n)
"""
THINGS = "closed(w),default,keyword,Loss,Loss(),Loss().__call__,Inherited(),Noise(),decorated,number,typed,"
THINGS += "in_list,in_tensor,in_set,in_constant_set,through_another,in_generator,recursive,mutual,{0: number},[number]"
THINGS = [*THINGS.split(","), "functools.partial(closed, w)", "functools.partial(closed, v=w)"]


def described(thing):
    found = {}
    describe("it", thing, found, {})
    return found


def made(thing, w):
    return eval(thing, cell(CELL.format(w=w)))


@pytest.mark.parametrize("thing", THINGS)
def test_another_value_is_another_function_and_the_same_cell_the_same(thing):
    assert described(made(thing, 0.5)) == described(made(thing, 0.5)) != described(made(thing, 0.25))
    assert " at 0x" not in str(described(made(thing, 0.5)))


def everything():
    """All of the above, and a whole Trainer."""
    cfg = Config.from_profile(precision="fp32", batch_size=4, run="tiny")
    trainer = tiny_trainer(cfg, Accelerator(cpu=True))
    return json.dumps([fingerprint(trainer), *(described(made(thing, 0.5)) for thing in THINGS)])


def test_all_of_it_means_the_same_in_another_kernel():
    env = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    program = "from test_fingerprint import everything; print(everything())"
    there = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert there.stdout.splitlines()[-1] == everything()


ROTATION, COLUMN = K.RandomRotation(15.0), torch.tensor([150])
SAME = [(cell("f = lambda p: p.ab", ab=w)["f"] for w in (1, 2)), (ROTATION, K.RandomRotation(15.0))]  # no variable `ab`
SAME += [(nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3))]  # weights are not settings
OTHER = [(F.relu, F.gelu), (ROTATION, K.RandomRotation(20.0)), (nn.Conv2d(1, 2, 3), nn.Conv2d(1, 3, 3))]
OTHER += [(torch.zeros(300, 300), torch.zeros(300, 300).index_fill(0, COLUMN, 1.0))]


def test_what_is_not_code_of_a_notebook_is_how_it_prints_and_a_tensor_its_values():
    assert all(described(one) == described(other) for one, other in SAME)
    assert all(described(one) != described(other) for one, other in OTHER)


# the same in a Trainer: each change is refused by its name


FROZEN, PHOTOS = TinyGenerator(), TinyPhotos()
FROZEN[0].requires_grad_(False)
PHOTOS.manifest["sha256"] += 1


def of_a_cell(factor):
    """A network whose class a cell defines, with a class attribute that it does not print."""
    source = f"class Mine(Base):\n    factor = {factor}\n    def color(self, L):\n        return self.factor * self(L)"
    return cell(source, Base=TinyGenerator)["Mine"]()


CHANGES = {
    "generator's lr": {"rates": (2e-3, 1e-3)},
    "discriminator's lr": {"rates": (1e-3, 2e-3)},
    "lr_warmup_steps": {"lr_warmup_steps": 3},
    "epochs": {"epochs": 3},
    "batches_per_step": {"batches_per_step": 2},
    "keep": {"keep": "last"},
    "patience": {"patience": 5},
    "burn_in": {"burn_in": 1},
    "start": {"start": "box"},
    "batch_size": {"changes": {"batch_size": 8}},
    "seed: 24 then, 3 now": {"changes": {"seed": 3}},
    "schedule": {"changes": {"schedule": "constant"}},
    "ema_decay": {"changes": {"ema_decay": None}},
    "step.cfg.clip_norm": {"changes": {"clip_norm": 2.0}},
    "step.weight: 50.0 then, 40.0 now": {"names": {"weight": 40.0}},
    "step": {"edits": [(") / 2", ") / 3")]},
    "step.l1": {"edits": [("abs().mean()", "square().mean()")]},
    "step.frozen": {"names": {"frozen": lambda network: network}},
    "validate": {"edits": [("with_ssim=False", "with_ssim=True")]},
    "validate.validation": {"names": {"validation": torch.zeros(4, 3, 8, 8)}},
    "augment.0.strength": {"names": {"strength": 0.2}},
    "augment": {"augment": False},
    "generator's optimizer": {"optimizer": torch.optim.SGD},
    "generator's betas.0: 0.5 then, 0.9 now": {"optimizer": partial(torch.optim.Adam, betas=(0.9, 0.999), fused=True)},
    "generator's weight_decay": {"optimizer": partial(torch.optim.Adam, betas=(0.5, 0.999), weight_decay=0.1)},
    "generator's layers": {"networks": [nn.Sequential(*TinyGenerator(), nn.Identity())]},
    "generator's learned weights": {"networks": [FROZEN]},
    "generator's class.factor: 1.0 then, 0.5 now": {"networks": [of_a_cell(0.5)]},
    "discriminator's layers": {"networks": [None, nn.Sequential(TinyDiscriminator())]},
    "photo height: 48 then, 32 now": {"photos": TinyPhotos(32)},
    "photos": {"photos": PHOTOS},
}
ELSEWHERE = {"show_folder": "/photos", "checkpoint_minutes": 1.0, "memory_gb": 0.0, "warmup_epochs": 7}
HARMLESS = {
    "settings of other things": {"changes": ELSEWHERE},
    "a comment": {"edits": [("ab = generator(batch.L)", "# colors\n        ab = generator(batch.L)  # (N, 2, H, W)")]},
    "a docstring": {"edits": [("Both losses.", "First the discriminator.")]},
    "a variable's name": {"edits": [("d_norm", "length"), ("(ab, truth)", "(ab, true)"), ("- truth)", "- true)")]},
}


@pytest.fixture
def finished(make):
    """Train a run to its end; return `make` with the same options, which a test may change."""

    def _make(**options):
        return make(**{"networks": [of_a_cell(1.0)]} | options)

    _make().fit()
    return _make


def test_every_change_is_refused_by_its_name_and_nothing_is_lost(finished):
    missed = []
    for name, options in CHANGES.items():
        trainer, field = finished(**options), name + ": " * (": " not in name)
        before = trainer.run.file("adversarial").read_bytes()
        with pytest.raises(ValueError, match="restart=True") as caught:
            trainer.fit()
        missed += [] if re.search(rf"(\(|; ){re.escape(field)}", str(caught.value)) else [f"{name}: {caught.value}"]
        assert trainer.run.file("adversarial").read_bytes() == before
    assert not missed


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_not_matter_is_not_refused(finished, name):
    changed = finished(**HARMLESS[name])
    before_each_batch(changed, lambda: pytest.fail("trained"))
    assert len(changed.fit()) == 2
