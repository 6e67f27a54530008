"""A generator in one file: its weights, and what is needed to make it again."""

import hashlib
import inspect
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helpers.config import Config
from helpers.models.generator import Generator
from helpers.models.superres import SRResNet
from helpers.runs.files import write_atomically

OWN = {"Generator": Generator, "SRResNet": SRResNet}  # the series' networks, by the name that a file gives


def save_generator(path: Path, generator: nn.Module, cfg: Config, half: bool = False) -> None:
    """Write a generator's weights; its class, arguments, configuration and a SHA-256 of the weights go along.

    half: the weights of convolutions in half precision, which halves the file.
    """
    weights = generator.state_dict()
    state = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}
    if half:
        state = {name: tensor.half() if tensor.ndim == 4 else tensor for name, tensor in state.items()}
    metadata = {"class": type(generator).__name__, "arguments": json.dumps(arguments_of(generator))}
    metadata |= {"config": cfg.to_json(), "sha256": digest(state)}
    write_atomically(path, lambda temporary: save_file(state, temporary, metadata))


def digest(state: dict[str, Tensor]) -> str:
    """Return the SHA-256 of all tensors of a state dict."""
    numbers = hashlib.sha256()
    for name in sorted(state):
        numbers.update(state[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return numbers.hexdigest()


def arguments_of(generator: nn.Module) -> dict[str, Any]:
    """Return the arguments that a network was made with, as `PyTorchModelHubMixin` remembers them; else none."""
    return dict(getattr(generator, "_hub_mixin_config", None) or {})


def load_generator(path: Path | str, notebook: str = "04_adversarial_training") -> nn.Module:
    """Return the generator of a weights file, in evaluation mode; `trained_size` is the size it was trained at.

    A network that a notebook's cell defines is found there by its name. Raises FileNotFoundError that names the
    notebook which makes the file, ValueError for a file that is damaged or holds something else, NameError for a
    network whose class is not known here.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(missing(path, notebook))
    try:
        metadata = metadata_of(path)
        size = json.loads(metadata.get("config", "{}")).get("size")
        Config(**({"size": size} if size else {}))  # refuses what a stranger's file may say
        generator, state = _make_again(metadata, path), load_file(path)
        full = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        generator.load_state_dict(full, assign=True)
    except (SafetensorError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is not a generator of this series as it is now (train an older one again), or is damaged: {error}"
        ) from error
    if "sha256" in metadata and digest(state) != metadata["sha256"]:
        raise ValueError(f"{path} is damaged: its numbers are not those that were written. Train it again.")
    generator.trained_size = size
    return generator.eval()


def _make_again(metadata: dict[str, str], path: Path) -> nn.Module:
    """Return a network of the class and arguments that a file names, its weights still to come."""
    if "architecture" in metadata:
        raise ValueError("an older version of this series wrote it, whose decoder was another. Train it again.")
    name, arguments = metadata["class"], json.loads(metadata["arguments"])
    kind = find_class(name)
    if kind is None:
        raise NameError(
            f"{path} holds a network of the class {name}, which is not known here: run its cell first (where there are "
            "no cells, choose other weights, as with --weights)."
        )
    if kind in OWN.values():  # what a stranger may ask for
        known = arguments.keys() - {"weights", "hints"}
        other = {"blocks": "superres_blocks", "channels": "batch_size", "maps": "batch_size"}  # of the same limits
        Config(**{other.get(name, name): arguments[name] for name in known})
    return _make(kind, arguments)


def _make(kind: type[nn.Module], arguments: dict[str, Any]) -> nn.Module:
    """Return a network, with no weights from elsewhere, and leave chance as it was."""
    passed_on = any(each.kind is each.VAR_KEYWORD for each in inspect.signature(kind.__init__).parameters.values())
    if "weights" in arguments or kind is Generator or (issubclass(kind, Generator) and passed_on):
        arguments = arguments | {"weights": None}
    # what is loaded later need not be drawn now, nor held twice; a class of one's own may not know of "meta"
    with torch.random.fork_rng(), torch.device("meta") if kind in OWN.values() else nullcontext():
        return kind(**arguments)


def metadata_of(path: Path) -> dict[str, str]:
    """Return what a weights file says of itself beside its weights; empty where it says nothing."""
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def find_class(name: str) -> type[nn.Module] | None:
    """Return the network class of a name: the series' own, else one that the notebook or program has defined."""
    kind = OWN.get(name) or getattr(sys.modules["__main__"], name, None)
    return kind if isinstance(kind, type) and issubclass(kind, nn.Module) else None


def refuse_what_cannot_return(generator: nn.Module) -> None:
    """Raise TypeError, before anything is trained, for a network that a file of weights could not bring back.

    It is made anew from its class and arguments, and has to come out the same, but for the numbers it learns.
    """
    name = type(generator).__name__
    if name in OWN and type(generator) is not OWN[name]:
        raise TypeError(f"{name} is the series' own network: give your class another name, so that it can be found.")
    where = f"class {name}(torch.nn.Module, PyTorchModelHubMixin)"
    try:
        arguments = arguments_of(generator)
        kind = find_class(name)
        again = _make(kind if isinstance(generator, kind or ()) else type(generator), arguments)
    except Exception as error:  # a student's class may want anything
        raise TypeError(
            f"{name} cannot be made again from its weights file: {error}. Give its arguments defaults, or let it "
            f"remember them: `from huggingface_hub import PyTorchModelHubMixin`, and `{where}`."
        ) from error
    ours, theirs = _structure(generator), _structure(again)
    differ = [part for part in ours | theirs if ours.get(part) != theirs.get(part)]
    if differ:
        raise TypeError(
            f"This {name} is no longer what {name}({', '.join(map(str, arguments.values()))}) makes (changed: "
            f"{', '.join(differ[:3])}), so notebook 04 could not load it. Make the change in a class of your "
            f"own: `class My{name}({name}):` with an `__init__(self, **arguments)` that calls "
            "`super().__init__(**arguments)` and then exchanges the part; use it here, and define it in the notebooks "
            "that load it."
        )


def _structure(network: nn.Module) -> dict[str, str]:
    """Return for each part of a network what it is: its kind, settings, shapes, hooks, and methods put upon it."""
    parts = {}
    for name, module in network.named_modules():
        shapes = {k: tuple(v.shape) for k, v in [*module.named_parameters("", False), *module.named_buffers("", False)]}
        patched = "forward" in vars(module) and not hasattr(module, "_original_forward")  # that is accelerate's
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
        parts[name or "itself"] = f"{type(module).__name__} {settings_of(module)} {shapes} {patched} {hooks}"
    return parts


def settings_of(module: nn.Module) -> dict[str, Any]:
    """Return the plain values that a part of a network was given: numbers, texts and the names of functions."""
    named = {k: getattr(v, "__qualname__", v) for k, v in vars(module).items() if k != "forward"}
    plain = {k: v for k, v in named.items() if isinstance(v, (bool, int, float, str, tuple, type(None)))}
    return {k: v for k, v in plain.items() if not k.startswith("_") and k not in ("training", "trained_size")}


def missing(path: Path, notebook: str) -> str:
    """Return the message for a file that an earlier notebook makes."""
    return f"{path} is missing. Notebook {notebook} makes it: run that first, with the same profile and workspace."
