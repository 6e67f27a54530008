"""Checkpoints: written beside the last one, and resumed only by a training with the same settings."""

import functools
import inspect
import json
import os
import re
import shutil
from hashlib import sha256
from pathlib import Path
from types import CodeType
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from helpers.config import Config

AGAIN = 'Give this one another name (run="..."), or start over with fit(restart=True), which archives the old.'


def latest(folder: Path) -> Path | None:
    """Return the newest complete checkpoint; a kill while one is written leaves a second folder beside it."""
    beside = [folder.with_name(folder.name + ending) for ending in ("", ".new", ".old")]
    return next((path for path in beside if (path / "settings.json").exists()), None)  # the last file to be written


def write(folder: Path, accelerator: Accelerator, settings: dict[str, str]) -> None:
    """Write the accelerator's state, every process calling this; raises OSError if the disk is full."""
    main, (new, old) = accelerator.is_main_process, (folder.with_name(folder.name + end) for end in (".new", ".old"))
    if main:
        if not folder.exists() and latest(folder):  # after a kill between the renames below
            latest(folder).rename(folder)
        discard(new)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(new)
        accelerator.wait_for_everyone()
        for path in [*new.iterdir()] if main else []:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    except Exception as error:  # torch and safetensors raise their own errors for a full disk
        raise OSError(
            f"{new} cannot be written ({error}). Is the disk or Drive full? The last checkpoint is intact: make room "
            "and run this again."
        ) from error
    if main:
        (new / "settings.json").write_text(json.dumps(settings))
        discard(old)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        discard(old)
    accelerator.wait_for_everyone()


def load(path: Path, accelerator: Accelerator, settings: dict[str, str], run: str) -> None:
    """Load a checkpoint into what is registered; raises ValueError for other settings, by name, or a damaged file."""
    try:
        then = json.loads((path / "settings.json").read_text())
        pairs = [(name, then.get(name, "absent"), settings.get(name, "absent")) for name in then | settings]
        differ = [f"{name}: {_short(old)} then, {_short(new)} now" for name, old, new in pairs if old != new]
        for file in path.glob("custom_checkpoint_*"):  # accelerate would run code in them
            torch.load(file, map_location="cpu", weights_only=True)
        if not differ:
            accelerator.load_state(path)
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(f"The checkpoint {path} cannot be read ({error}). {AGAIN}") from error
    if differ:
        raise ValueError(f"Run {run!r} was begun with other settings ({'; '.join(differ)}). {AGAIN}")


def discard(folder: Path) -> None:
    """Delete a folder of files, each truncated first: what Drive deletes still fills its trash."""
    for path in folder.glob("*"):
        path.open("wb").close()
    shutil.rmtree(folder, ignore_errors=True)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:40]}... ({sha256(text.encode()).hexdigest()[:8]})"


def described(thing: Any, seen: tuple = ()) -> str:
    """Return a text that changes with a function's code or the values it uses, or with an object's class or fields."""
    if isinstance(thing, functools.partial):
        return described([thing.func, thing.args, thing.keywords], seen)
    if isinstance(thing, (set, frozenset)):
        thing = sorted(thing, key=repr)  # each kernel has another order
    if isinstance(thing, (list, tuple, dict)):
        items = thing.items() if isinstance(thing, dict) else thing
        return str([described(item, seen) for item in items])
    if hasattr(thing, "tolist"):  # a tensor or an array
        return str(thing.tolist())
    if inspect.ismodule(thing):
        return thing.__name__
    kind = thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing)
    if (kind.__module__ or "").split(".")[0] not in ("__main__", "helpers") or id(thing) in seen:
        return re.sub(" at 0x[0-9a-f]+", "", repr(thing))  # without addresses in memory
    if isinstance(thing, Config):
        return "the configuration"  # compared field by field
    try:
        text = inspect.getsource(kind)
    except OSError:  # a class of a notebook, or anything at a prompt
        methods = (
            [method for method in vars(kind).values() if inspect.isfunction(method)] if inspect.isclass(kind) else []
        )
        text = kind.__qualname__ + described(methods, (*seen, id(thing)))
    seen = (*seen, id(thing))
    if inspect.isfunction(thing):
        used = {name: thing.__globals__[name] for name in sorted(_names(thing.__code__) & thing.__globals__.keys())}
        closure = inspect.getclosurevars(thing).nonlocals
        return text + described([used, closure, thing.__defaults__, thing.__kwdefaults__], seen)
    if inspect.isroutine(thing):
        return text + described(getattr(thing, "__self__", None), seen)
    if isinstance(thing, nn.Module):
        fields = {name: value for name, value in vars(thing).items() if name not in vars(nn.Module())}
        return text + str(thing) + described(fields, seen)
    return text + described(vars(thing), seen)


def _names(code: CodeType) -> set[str]:
    """Return the names that a function's code uses, in functions within it too."""
    return set(code.co_names).union(*(_names(inner) for inner in code.co_consts if inspect.iscode(inner)))
