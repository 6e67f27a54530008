"""What keeps a GPU busy: no step copies anything from the CPU to the device, or waits for a value of it.

The device is "meta" here: it computes shapes alone, refuses to be read, and shows what comes to it from the CPU.
"""

import traceback
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from accelerate import Accelerator
from helpers.training.tasks import HintedColorization, SuperResolution
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator
from helpers.models.srresnet import SRResNet
from helpers.training.losses import LossTerm, gan_loss, generator_terms

META = torch.device("meta")
MAKERS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)  # of Python's numbers and lists


def on(device, things):
    """Return whether a tensor of several numbers is on a device; a single number goes along with a kernel's call."""
    return any(isinstance(x, Tensor) and x.ndim and x.device.type == device for x in tree_leaves(things))


def here():
    """Return the line of the helpers that is running."""
    frames = [frame for frame in traceback.extract_stack() if "/helpers/" in frame.filename]
    return f"{frames[-1].filename}:{frames[-1].lineno} {frames[-1].line}" if frames else "a test"


class Makers(TorchFunctionMode):
    """Collects lines that make tensors of Python's numbers, or index by a list."""

    def __init__(self, lines):
        self.lines = lines

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **kwargs or {})
        by_list = function is Tensor.__getitem__ and "[" in repr(args[1])
        if (function in MAKERS or by_list) and on("meta", out):
            self.lines.add(here())
        return out


class Mixtures(TorchDispatchMode):
    """Collects lines whose operations take a tensor from the CPU to the device."""

    def __init__(self, lines):
        super().__init__()
        self.lines = lines

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **kwargs or {})
        if on("cpu", (args, kwargs)) and on("meta", out):
            self.lines.add(here())
        return out


def copies_of(task):
    lines = set()
    with Makers(lines), Mixtures(lines):
        task()
    return lines


@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.tensor([1.0, 2.0], device=META),
        lambda x: torch.tensor([1.0, 2.0]).to(META),
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: x[[0, 1]],
        lambda x: x[torch.tensor([0, 1])],
    ],
)
def test_the_spy_sees_a_copy(make):
    x = torch.zeros(3, device=META)
    assert copies_of(lambda: make(x)) and not copies_of(lambda: 2.0 * x[1:].clamp(min=0.5))
    with pytest.raises(RuntimeError, match="meta"):
        x.sum().item()


@pytest.fixture(autouse=True)
def meta(monkeypatch):
    """Let accelerate place everything on the meta device, which autocast does not know."""
    monkeypatch.setattr(Accelerator, "device", META)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())


@pytest.fixture
def on_meta(make):
    """Return a function that gives the copies of a trainer's second batch and step."""

    def _copies(**options):
        sgd = {"optimizer": torch.optim.SGD}  # Adam's fused kernels do not run there
        trainer = make(**sgd | options)
        batches, steps = iter(trainer.batches), []
        trainer.training_step(next(batches))
        return copies_of(lambda: steps.append(trainer.training_step(next(batches))))

    return _copies


def colorizer():
    return Generator("test_efficientnet", None, res_blocks=1, bottleneck="attention", attention_at=8)


def test_no_step_of_the_warmup_copies(on_meta):
    assert not on_meta(adversarial=False, generator=colorizer(), augment=[])


def test_no_adversarial_step_copies(on_meta, perceptual, cfg):
    terms = generator_terms(cfg, deepcopy(perceptual).to(META))
    assert not on_meta(terms=terms, generator=colorizer(), discriminator=Discriminator(), augment=[])


def test_no_step_with_hints_copies(on_meta, monkeypatch):
    """Attention to hints reads how many there are, once per step; here the answer is always nine."""
    monkeypatch.setattr(Tensor, "__int__", lambda self: 9)
    generator = Generator("test_efficientnet", None, res_blocks=1, hints=True)
    assert not on_meta(adversarial=False, generator=generator, augment=[], task=HintedColorization())


def test_no_step_of_super_resolution_copies(on_meta):
    terms = [LossTerm("GAN", 1.0, gan_loss), LossTerm("L1", 1.0, lambda p: (p.L - p.L_pred).abs().mean())]
    task = SuperResolution("superres_gan")
    assert not on_meta(terms=terms, generator=SRResNet(1), discriminator=Discriminator(1), augment=[], task=task)
