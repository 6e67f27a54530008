"""What a training is: all that must be the same for it to go on, told as texts that do not change by themselves."""

import dis
import functools
import hashlib
import re
import types
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from helpers.config import Config
from helpers.runs.weights import arguments_of, settings_of

NO_MATTER = {"show_folder", "photos_folder", "memory_gb", "compile", "checkpoint_minutes", "profile", "run", "n_photos"}
ADVERSARIAL = {"adversarial_epochs", "adversarial_lr", "discriminator_lr", "n_critic", "patience", "keep"}
ADVERSARIAL |= {"lambda_l1", "lambda_perc"}
HINTS = {"hints_epochs", "hints_lr"}
SUPERRES = {"superres_blocks", "superres_epochs", "superres_lr", "original_size", "patch_size"}
SUPERRES_GAN = {"superres_gan_epochs", "superres_gan_lr"}
COLORIZING = {"warmup_epochs", "warmup_lr", "warmup_rise", "color_loss", "flip", "rotation", "crop", "jitter"}
COLORIZING |= {"encoder", "encoder_weights", "res_blocks", "bottleneck", "attention_at", "positions"}
COLORIZING |= ADVERSARIAL | HINTS
OF_OTHERS = {  # of no matter to a phase
    "warmup": ADVERSARIAL | HINTS | SUPERRES | SUPERRES_GAN,
    "adversarial": HINTS | SUPERRES | SUPERRES_GAN,
    "hints": SUPERRES | SUPERRES_GAN,
    "superres": COLORIZING | SUPERRES_GAN,
    "superres_gan": COLORIZING - {"discriminator_lr"},
}
LIBRARIES = {"site-packages", "dist-packages", Path(re.__file__).parents[1].name}  # folders of what others wrote


def fingerprint(trainer: Any) -> dict[str, Any]:
    """Return what must be the same for a training to go on: configuration, losses, augmentation, photos, networks."""
    left_out = NO_MATTER | OF_OTHERS.get(trainer.phase, set())
    told = {name: value for name, value in asdict(trainer.cfg).items() if name not in left_out}
    for role, terms in (("", trainer.terms), ("discriminator's ", trainer.discriminator_terms)):
        told |= {f"weight of {role}{term.name}": float(term.weight) for term in terms}
        told |= {f"function of {role}{term.name}": meaning(term.function) for term in terms}
    told["augmentation"] = ", ".join(meaning(transform) for transform in trainer.batches.augment)
    told["optimizer"], told["task"] = meaning(trainer.make_optimizer), meaning(trainer.task)
    for role in ("generator", "discriminator"):
        told[role] = _network(getattr(trainer, f"raw_{role}"))
    told["photos"] = hashlib.sha256(trainer.photos.manifest.to_csv().encode()).hexdigest()
    told["processes"], told["start"] = trainer.accelerator.num_processes, trainer.start
    return told


def meaning(thing: Any, seen: tuple[int, ...] = ()) -> str:
    """Return a short text of a function or value that changes with what it does, and with nothing else.

    Of a function: its name, code, default values, and the values that it takes from around it, closure and globals
    alike. Of a tensor: a hash. Of an object: its class and plain attributes. Addresses in memory never show.
    """
    if id(thing) in seen or len(seen) > 20 or isinstance(thing, (Config, Accelerator, types.ModuleType)):
        return getattr(thing, "__name__", type(thing).__name__)  # the configuration is compared by itself
    within = (*seen, id(thing))
    if isinstance(thing, types.FunctionType):
        return _function(thing, within)
    if isinstance(thing, types.MethodType):
        return f"{meaning(thing.__self__, within)}.{meaning(thing.__func__, within)}"
    if isinstance(thing, functools.partial):
        return f"partial {meaning([thing.func, thing.args, thing.keywords], within)}"
    if isinstance(thing, torch.nn.Module):
        return f"{type(thing).__name__} {_digest(_network(thing, within))}"  # not its weights: they may learn
    if isinstance(thing, (torch.Tensor, np.ndarray)):
        values = thing.tolist()
        return f"{tuple(thing.shape)} {_digest(meaning(values, within) if thing.dtype == object else repr(values))}"
    if isinstance(thing, dict):
        return f"{{{', '.join(f'{meaning(key, within)}: {meaning(value, within)}' for key, value in thing.items())}}}"
    if isinstance(thing, (list, tuple, set, frozenset)):
        told = [meaning(value, within) for value in thing]
        return f"({', '.join(told if isinstance(thing, (list, tuple)) else sorted(told))})"
    if isinstance(thing, type):
        return f"{thing.__name__} {_digest(_class(thing, within))}"
    if type(thing).__repr__ is not object.__repr__ and type(thing).__module__ != "__main__":
        return _brief(re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing)))
    return f"{meaning(type(thing), within)} {meaning(vars(thing) if hasattr(thing, '__dict__') else {}, within)}"


def _function(function: types.FunctionType, seen: tuple[int, ...]) -> str:
    """Return all that decides what a function does; of one that a package holds, its name."""
    if set(Path(function.__code__.co_filename).parts) & LIBRARIES:
        decorated = getattr(function, "__wrapped__", None)  # torch.compile, say, of a function that a notebook defines
        return meaning(decorated, seen) if decorated else f"{function.__module__}.{function.__qualname__}"
    codes, names = [function.__code__], set()
    for code in codes:  # grows: lambdas and comprehensions within are codes of their own
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        names |= {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    told = [(code.co_code.hex(), code.co_names) for code in codes]
    told += [meaning([c for c in code.co_consts if not isinstance(c, types.CodeType)], seen) for code in codes]
    told += [_content(cell, seen) for cell in function.__closure__ or ()]
    told += [meaning(function.__defaults__, seen), meaning(function.__kwdefaults__, seen)]
    around = function.__globals__
    told += [f"{name}={meaning(around[name], seen)}" for name in sorted(names & around.keys())]
    return f"{function.__name__} {_digest(repr(told))}"


def _content(cell: types.CellType, seen: tuple[int, ...]) -> str:
    try:
        return meaning(cell.cell_contents, seen)
    except ValueError:  # not assigned yet
        return "empty"


def _class(kind: type, seen: tuple[int, ...]) -> str:
    """Return what a class does: its methods and values, if a notebook defined it; what a package holds is its name."""
    own = [pair for base in kind.__mro__ if base.__module__ == "__main__" for pair in vars(base).items()]
    own = [(name, getattr(v, "__func__", None) or getattr(v, "fget", None) or v) for name, v in own]
    hidden = ("__", "_abc_", "_hub_mixin_")  # Python's own and the mixin's
    own = [(name, v) for name, v in own if isinstance(v, types.FunctionType) or not name.startswith(hidden)]
    return repr([(name, meaning(v, seen)) for name, v in own])


def _network(network: torch.nn.Module | None, seen: tuple[int, ...] = ()) -> str:
    """Return what a network is: its class, arguments, parts, their code and settings, but not its weights."""
    parts = [part for part in (network.modules() if network is not None else ()) if type(part).__module__ == "__main__"]
    told = [meaning(kind, seen) for kind in {type(part): None for part in parts}]
    told += [meaning(settings_of(part), seen) for part in parts]
    told += [name for name, value in (network.named_parameters() if network else ()) if not value.requires_grad]
    return f"{type(network).__name__} {arguments_of(network)} {_digest(repr([str(network), *told]))}"


def _brief(text: str) -> str:
    return text if len(text) <= 60 else _digest(text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
