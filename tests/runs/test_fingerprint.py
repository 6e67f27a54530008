"""What a function does is told by a text that changes with it, and with nothing else."""

import functools
import os
import subprocess
import sys
import time

import kornia.augmentation as K
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from notebook_tools import PROJECT
from torch import nn

from helpers.training.fingerprint import meaning

SOURCE = """
import torch
w = {w}
table = [1, {w}]
weights = torch.tensor([1.0, {w}])
def closed(x):
    v = {w}
    return lambda p: v * p
def with_default(p, q={w}):
    return p * q
class Loss:
    def __init__(self):
        self.w = {w}
    def __call__(self, p):
        return p * self.w
cases = dict(closure=closed(1), number=lambda p: w * p, list=lambda p: table[1] * p, tensor=lambda p: weights[1] * p)
cases |= dict(default=with_default, constant=lambda p: {w} * p, object=Loss())
cases |= dict(nested=lambda p: [(lambda q: q * {w})(i) for i in p])
class Base:
    _factor = {w}
    def __call__(self, p):
        return p * self._factor
class Inherited(Base):
    pass
class Noise(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.strength = {w}
    def forward(self, p):
        return p + self.strength
@dataclasses.dataclass
class Record:
    w: float = 1.0
    @property
    def doubled(self):
        return {w} * self.w
    def __call__(self, p):
        return self.doubled * p
@torch.no_grad()
def decorated(p):
    return p * {w}
cases |= dict(inherited=Inherited(), module=Noise(), record=Record(), decorated=decorated)
cases |= dict(key={{lambda p: p * {w}: "key"}}, set={{"some", "texts", str(w)}}, texts=np.array(["a", str(w)]))
cases |= dict(partial=functools.partial(with_default, q=w), method=Loss().__call__, complex=torch.tensor([1j * w]))
"""
SOURCE = "import dataclasses, functools\nimport numpy as np\n" + SOURCE
CASES = (
    "closure",
    "number",
    "list",
    "tensor",
    "default",
    "constant",
    "object",
    "nested",
    "inherited",
    "module",
    "record",
)
CASES += ("decorated", "key", "set", "texts", "partial", "method", "complex")


def defined(w):
    """What a notebook's cell defines, with a value w in it."""
    scope = {"__name__": "__main__"}
    exec(SOURCE.format(w=w), scope)
    return scope["cases"]


@pytest.mark.parametrize("case", CASES)
def test_another_value_is_another_meaning_and_the_same_source_the_same(case):
    assert meaning(defined(0.5)[case]) == meaning(defined(0.5)[case]) != meaning(defined(0.25)[case])
    assert "0x" not in meaning(defined(0.5)[case])


def test_the_same_source_means_the_same_in_another_process():
    code = f"from helpers.training.fingerprint import meaning\nexec({SOURCE.format(w=0.5)!r})\n"
    code += "print(*map(meaning, cases.values()), sep='\\n')"
    env = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(PROJECT)}
    there = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert there.splitlines() == [meaning(case) for case in defined(0.5).values()]


def test_what_libraries_hold_is_their_name_and_quickly_told():
    started = time.perf_counter()
    assert "relu" in meaning(F.relu)
    assert meaning(K.RandomHorizontalFlip(p=0.5)) != meaning(K.RandomHorizontalFlip(p=0.25))
    assert meaning(functools.partial(F.l1_loss, reduction="sum")) != meaning(functools.partial(F.l1_loss))
    assert meaning(lambda p: F.relu(p) + K.functional.__name__.count("a")) and time.perf_counter() - started < 2


def test_a_networks_weights_do_not_matter_its_parts_do():
    one, other = nn.Sequential(nn.Conv2d(1, 2, 3)), nn.Sequential(nn.Conv2d(1, 2, 3))
    assert not torch.equal(one[0].weight, other[0].weight) and meaning(one) == meaning(other)
    assert meaning(one) != meaning(nn.Sequential(nn.Conv2d(1, 2, 5)))


def test_a_function_that_calls_itself_ends():
    def countdown(n):
        return n and countdown(n - 1)

    assert meaning(countdown)


def test_a_function_whose_surroundings_are_not_all_there_yet_has_a_meaning():
    def first(p):
        return later(p)

    before = meaning(first)

    def later(p):
        return p

    assert before != meaning(first)


def test_things_that_hold_each_other_end():
    scope = {"__name__": "__main__"}
    source = """
import torch
class Pair(torch.nn.Module):
    def forward(self, p):
        return one(p) if self is not one else other(p)
one, other = Pair(), Pair()
one.friends, chain = [other], [one]
chain.append(chain)
def ping(p):
    return pong(p) + len(chain)
def pong(p):
    return ping(p)
"""
    exec(source, scope)
    started = time.perf_counter()
    assert meaning(scope["ping"]) and meaning(scope["one"]) and time.perf_counter() - started < 2


@pytest.mark.parametrize("thing", [np.random.default_rng(0), np.array([object()]), {object(): object()}, torch.abs])
def test_an_address_never_shows(thing):
    assert "0x" not in meaning(thing) and meaning(thing) == meaning(thing)


def test_arrays_of_objects_are_told_by_what_they_hold():
    assert meaning(np.array([object()])) == meaning(np.array([object()])) != meaning(np.array([object(), 1]))


def test_an_accelerator_does_not_matter_whatever_it_holds(accelerator):
    def term(p):
        return p.to(accelerator.device)

    before = meaning(term)
    accelerator.prepare(nn.Linear(1, 1))
    assert meaning(term) == before
