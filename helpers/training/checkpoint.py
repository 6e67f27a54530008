"""Checkpoints: one file, replaced whole, and resumed only by a training with the same settings."""

import dis
import inspect
import random
import re
from collections.abc import Callable
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers.config import Config
from helpers.files import write_atomically

CONFIGURED = ("seed", "precision", "schedule", "ema_decay", "encoder_weights")
ARGUMENTS = ("epochs", "lr_warmup_steps", "batches_per_step", "keep", "patience", "burn_in", "start")
ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")  # instructions that look up the name after a dot
AGAIN = 'Give this one another name (run="..."), or start over with fit(restart=True), which archives the old.'


def write(path: Path, state: dict[str, Any]) -> None:
    """Replace a checkpoint, so that there is always a whole one; raises OSError if the disk is full."""
    new = path.with_name(path.name + ".new")
    write_atomically(new, lambda temporary: torch.save(state, temporary))
    if path.exists():
        path.open("wb").close()  # what Drive replaces still fills its trash
    new.replace(path)


def load(path: Path, settings: dict[str, str], run: str) -> dict[str, Any] | None:
    """Return a checkpoint, None if there is none; raises ValueError for other settings, by name, or a damaged file."""
    new = path.with_name(path.name + ".new")
    path = new if new.exists() else path  # after a kill between emptying and replacing
    if not path.exists():
        return None
    try:
        if path.is_dir():
            raise ValueError("an older version of this series wrote it")
        state = torch.load(path, map_location="cpu", weights_only=True)
        then = state["fingerprint"]
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(f"The checkpoint {path} cannot be read ({error}). {AGAIN}") from error
    pairs = {name: (then.get(name, "absent"), settings.get(name, "absent")) for name in settings | then}
    if differ := [f"{name}: {old} then, {now} now" for name, (old, now) in pairs.items() if old != now]:
        raise ValueError(f"Run {run!r} was begun with other settings ({'; '.join(differ)}). {AGAIN}")
    return state


def random_states() -> dict[str, Any]:
    """Return the states of this process's random number generators."""
    name, numbers, *rest = np.random.get_state()
    states = {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all(), "python": random.getstate()}
    return states | {"numpy": (name, numbers.tolist(), *rest)}


def set_random_states(states: dict[str, Any]) -> None:
    """Set the states that `random_states` returned."""
    torch.set_rng_state(states["torch"])
    torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])


def fingerprint(trainer: Any) -> dict[str, str]:
    """Return everything of a Trainer that must match before its run may resume, as text by name."""
    batches, known = trainer.batches, [trainer.accelerator, trainer.photos, trainer.batches]
    things = {name: getattr(trainer.cfg, name) for name in CONFIGURED}
    things |= {name: getattr(trainer, name) for name in ARGUMENTS}
    things |= {"batch_size": batches.batch_size, "photo size": tuple(batches.photos.shape[2:])}
    things |= {"photos": digest(trainer.photos.manifest.to_csv()), "processes": trainer.accelerator.num_processes}
    for name, (network, optimizer) in trainer.networks.items():
        raw = trainer.unwrapped[name]
        known += [network, raw, optimizer]
        learned = sum(p.numel() for p in raw.parameters() if p.requires_grad)
        things |= {name: (f"{learned} learned weights", digest(str(raw))), f"{name}'s class": type(raw)}
        things |= {f"{name}'s optimizer": type(optimizer.optimizer)}
        for i, group in enumerate(optimizer.param_groups):
            values = {key: value for key, value in group.items() if key not in ("params", "initial_lr")}
            values["lr"] = group.get("initial_lr", group["lr"])
            things |= {f"{name}'s {key}" + f" ({i})" * (i > 0): value for key, value in values.items()}
    things |= {"augment": batches.augment, "step": trainer.step, "validate": trainer.validate}
    found, seen = {}, {id(each): ("described elsewhere", each) for each in known}
    for name, thing in things.items():
        describe(name, thing, found, seen)
    return found


def digest(content: Any) -> str:
    """Return a short hash of bytes, or of how something prints."""
    return sha256(content if isinstance(content, bytes) else repr(content).encode()).hexdigest()[:12]


def describe(name: str, thing: Any, found: dict[str, str], seen: dict[int, tuple[str, Any]]) -> None:
    """Add to `found` what decides what a function, class or object of a notebook does, each thing by its name.

    A function is its code, without comments, and the values that it uses, in turn: a `step` that uses `cfg.lambda_l1`
    adds "step.cfg.lambda_l1". Of a library's things only how they print is known, of tensors a hash. Not noticed:
    weights, fields of layers that a network does not print, and what happens inside a library.
    """
    if id(thing) in seen:  # functions may call each other
        found[name] = seen[id(thing)][0]
        return
    found[name], parts = _described(thing)
    if parts:
        seen[id(thing)] = f"the same as {name}", thing  # kept alive, so that no other gets its number
    for key, part in parts.items():
        describe(f"{name}.{key}", part, found, seen)


def _described(thing: Any) -> tuple[str, dict[str, Any]]:
    """Return the text for a thing itself, and its parts by name."""
    kind = thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing)
    if isinstance(thing, (list, tuple, dict)):
        return f"{len(thing)} things", thing if isinstance(thing, dict) else dict(enumerate(thing))
    if isinstance(thing, (Tensor, np.ndarray)):
        return f"values {digest(torch.as_tensor(thing).detach().cpu().float().numpy().tobytes())}", {}
    if str(kind.__module__).split(".")[0] not in ("__main__", "helpers"):  # a library's, or a plain value
        listed = sorted(thing, key=repr) if isinstance(thing, (set, frozenset)) else thing  # the order changes
        return getattr(thing, "__name__", re.sub(" at 0x[0-9a-f]+", "", repr(listed))), {}
    if inspect.isfunction(thing):
        return _function(thing)
    if inspect.ismethod(thing):
        return "method", {"function": thing.__func__, "of": thing.__self__}
    if inspect.isclass(thing):
        own = {key: getattr(value, "fget", getattr(value, "__func__", value)) for key, value in vars(thing).items()}
        parts = {key: value for key, value in own.items() if inspect.isfunction(value) or key[:2] != "__"}
        return "class", parts | {f"parent {i}": parent for i, parent in enumerate(thing.__bases__)}
    hidden = {*vars(nn.Module()), "_compiled_call_impl"} if isinstance(thing, nn.Module) else {}
    fields = {key: value for key, value in vars(thing).items() if key not in hidden}
    return digest(str(thing)) if hidden else kind.__name__, {"class": kind} | fields


def _function(function: Callable) -> tuple[str, dict[str, Any]]:
    """Return a function's code as a hash, and the values that it uses by name; of a configuration, its fields."""
    codes = [function.__code__]
    for code in codes:  # which grows by the functions within it
        codes += filter(inspect.iscode, code.co_consts)
    orders = [order for code in codes for order in dis.get_instructions(code)]
    names = {order.argval for order in orders if order.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    parts = {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}
    parts |= inspect.getclosurevars(function).nonlocals
    for name in [name for name, value in parts.items() if isinstance(value, Config)]:
        values, pairs = asdict(parts.pop(name)), zip(orders, orders[1:], strict=False)
        used = {after.argval for each, after in pairs if each.argval == name and after.opname in ATTRIBUTES}
        parts |= {f"{name}.{field}": values[field] for field in sorted(used & values.keys() or values)}
    texts = [each for code in codes for each in code.co_consts if each != function.__doc__ and not inspect.iscode(each)]
    constants = [sorted(each, key=repr) if isinstance(each, frozenset) else each for each in texts]
    text = digest(([(code.co_code, code.co_names) for code in codes], constants))
    parts |= {f"default {i}": value for i, value in enumerate(function.__defaults__ or ())}
    return f"code {text}", parts | (function.__kwdefaults__ or {})
