"""What keeps a GPU busy: no step copies anything from the CPU to the device, or waits for a value of it.

The device is "meta" here: it computes shapes alone, refuses to be read, and shows what comes to it from the CPU.
"""

import traceback
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from helpers.color import L_ab_to_rgb
from helpers.data.batches import lab_batch
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.training.steps import make_adversarial_step, make_warmup_step

META = torch.device("meta")
MAKERS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)  # of Python's numbers and lists


def on(device, things):
    """Return whether a tensor of several numbers is on a device; a single number goes along with a kernel's call."""
    return any(isinstance(x, Tensor) and x.ndim and x.device.type == device for x in tree_leaves(things))


class Copies(TorchFunctionMode):
    """Collects the helpers' lines that bring Python's numbers, a list of indices or a CPU's tensor to the device."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **kwargs or {})
        by_list = function is Tensor.__getitem__ and "[" in repr(args[1])
        if on("meta", out) and (function in MAKERS or by_list or on("cpu", (args, kwargs))):
            frames = [frame for frame in traceback.extract_stack() if "/helpers/" in frame.filename]
            self.lines.add(f"{frames[-1].filename}:{frames[-1].lineno} {frames[-1].line}" if frames else "a test")
        return out

    def of(self, task):
        """Return the lines of a task."""
        self.lines = set()
        with self:
            task()
        return self.lines


NUMBERS = {"tensor": lambda x: torch.tensor([1.0, 2.0], device=META), "to": lambda x: torch.tensor([1.0, 2.0]).to(META)}
NUMBERS |= {"indices": lambda x: x[torch.tensor([0, 1])], "list": lambda x: x[[0, 1]]}


def test_the_spy_sees_a_copy():
    x = torch.zeros(3, device=META)
    assert not [name for name, make in NUMBERS.items() if not Copies().of(lambda make=make: make(x))]
    assert not Copies().of(lambda: 2.0 * x[1:].clamp(min=0.5))


@pytest.mark.parametrize("adversarial", [False, True])
def test_an_epoch_copies_its_order_and_nothing_else(make, perceptual, cfg, monkeypatch, adversarial):
    monkeypatch.setattr(Accelerator, "device", META)  # which autocast does not know
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    generator = Generator("test_efficientnet", None, res_blocks=1)
    networks = [generator, Discriminator()][: 1 + adversarial]
    trainer = make(adversarial, networks=networks, optimizer=torch.optim.SGD, augment=False)  # no fused Adam on meta
    pairs, judge, steps = [*trainer.networks.values()], deepcopy(perceptual).to(META), []
    real = make_adversarial_step(cfg, *pairs, judge, nullcontext) if adversarial else make_warmup_step(cfg, *pairs[0])
    trainer.step = lambda batch: steps.append(1) or real(batch)
    first = lab_batch(torch.zeros(1, 3, 8, 8, device=META))
    L_ab_to_rgb(first.L, first.ab)  # makes the constants of both conversions, once

    def _epoch():
        with pytest.raises(NotImplementedError, match="meta"):  # the table at its end is read
            trainer.fit()

    assert not [line for line in Copies().of(_epoch) if "self.order()" not in line] and len(steps) == 4
