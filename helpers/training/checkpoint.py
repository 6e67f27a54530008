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
from helpers.files import write_atomically

MARK = "settings.json"  # written last and deleted first: a folder that has it is complete
CONFIGURED = ("seed", "precision", "batch_size", "schedule", "clip_norm", "ema_decay", "freeze_norms", "keep")
CONFIGURED += ("encoder_weights", "val_photos", "beta1", "beta2")
ARGUMENTS = ("epochs", "lr", "d_lr", "rise", "n_critic", "patience", "start")
VERSION = 2  # of the settings
AGAIN = 'Give this one another name (run="..."), or start over with fit(restart=True), which archives the old.'


def beside(folder: Path) -> Path:
    """Return the folder in which the next checkpoint is written, before it replaces the last one."""
    return folder.with_name(folder.name + ".new")


def write(folder: Path, accelerator: Accelerator, settings: dict[str, str]) -> None:
    """Write the accelerator's state, every process calling this; raises OSError if the disk is full."""
    new = beside(folder)
    if accelerator.is_main_process:
        discard(new)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(new)
        accelerator.wait_for_everyone()
        for path in new.iterdir() if accelerator.is_main_process else ():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    except Exception as error:  # torch and safetensors raise their own errors for a full disk
        raise OSError(
            f"{new} cannot be written ({error}). Is the disk or Drive full? The last checkpoint is intact: make room "
            "and run this again."
        ) from error
    if accelerator.is_main_process:
        write_atomically(new / MARK, lambda path: path.write_text(json.dumps(settings), encoding="utf-8"))
        (folder / MARK).unlink(missing_ok=True)
        recover(folder)
    accelerator.wait_for_everyone()


def recover(folder: Path) -> None:
    """Put a complete new checkpoint in the place of the last one; also after a kill in the middle of that."""
    if not (folder / MARK).exists() and (beside(folder) / MARK).exists():
        discard(folder)
        beside(folder).rename(folder)


def load(folder: Path, accelerator: Accelerator, settings: dict[str, str], run: str) -> None:
    """Load a checkpoint into what is registered; raises ValueError for other settings, by name, or a damaged file."""
    try:
        then = json.loads((folder / MARK).read_text(encoding="utf-8"))
        pairs = {name: (then.get(name, "absent"), settings.get(name, "absent")) for name in settings | then}
        differ = [f"{name}: {_short(old)} then, {_short(new)} now" for name, (old, new) in pairs.items() if old != new]
        for file in folder.glob("custom_checkpoint_*"):  # accelerate would run code in them
            torch.load(file, map_location="cpu", weights_only=True)
        if not differ:
            accelerator.load_state(folder)
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(f"The checkpoint {folder} cannot be read ({error}). {AGAIN}") from error
    if differ:
        raise ValueError(f"Run {run!r} was begun with other settings ({'; '.join(differ)}). {AGAIN}")


def discard(folder: Path) -> None:
    """Delete a folder of files, each truncated first: what Drive deletes still fills its trash."""
    for path in folder.glob("*"):
        path.open("wb").close()
    shutil.rmtree(folder, ignore_errors=True)


def settings_of(trainer: Any) -> dict[str, str]:
    """Return everything of a Trainer that must match before its run may resume, as text."""
    found = {"version": VERSION} | {name: getattr(trainer.cfg, name) for name in CONFIGURED}
    found |= {name: getattr(trainer, name) for name in ARGUMENTS}
    for role, terms in (("term", trainer.terms), ("discriminator's term", trainer.d_terms)):
        found |= {f"{role} {term.name}": f"{float(term.weight)} * {described(term.function)}" for term in terms}
    found |= {name: described(getattr(trainer, name)) for name in ("augment", "optimizer", "task")}
    for role, network in (("generator", trainer.raw_generator), ("discriminator", trainer.raw_discriminator)):
        found[role] = f"{described(type(network))}, layers {digest(str(network))}"
    found["learned weights"] = sum(p.numel() for p in trainer.raw_generator.parameters() if p.requires_grad)
    found |= {"photo size": tuple(trainer.validation.shape[2:]), "photos": digest(trainer.photos.manifest.to_csv())}
    found["processes"] = trainer.accelerator.num_processes
    return {name: str(value) for name, value in found.items()}


def digest(text: str) -> str:
    """Return a short hash of a text."""
    return sha256(text.encode(errors="backslashreplace")).hexdigest()[:12]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:40]}... ({digest(text)})"


def described(thing: Any, seen: tuple = ()) -> str:
    """Return a text that changes with what a function, class, module or other object of a cell does.

    What a library defines is described as it prints; the rest by a name and a hash of the source, the values that the
    source uses, and the fields of an object. Not noticed: weights, fields of layers within a network that it does not
    print, properties of a notebook's class, and what happens inside a library.
    """
    if isinstance(thing, Config) or inspect.ismodule(thing):
        return getattr(thing, "__name__", "the configuration, which is compared field by field")
    if isinstance(thing, functools.partial):
        thing = [thing.func, thing.args, thing.keywords]
    if isinstance(thing, (set, frozenset)):
        thing = sorted(thing, key=repr)  # each kernel has another order
    if isinstance(thing, (list, tuple, dict)):
        items = thing.items() if isinstance(thing, dict) else thing
        return f"[{', '.join(described(item, seen) for item in items)}]"
    kind = thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing)
    if hasattr(thing, "tolist") and kind is not thing:  # a tensor or an array
        return f"{kind.__name__} {digest(str(thing.tolist()))}"
    if not _own(kind) or id(thing) in seen:
        return re.sub(" at 0x[0-9a-f]+", "", repr(thing))  # without addresses in memory
    return f"{kind.__qualname__} {digest(described(_parts(thing), (*seen, id(thing))))}"


def _own(kind: Any) -> bool:
    return str(kind.__module__).split(".")[0] in ("__main__", "helpers")


def _parts(thing: Any) -> list[Any]:
    """Return what decides how an object of a notebook or of the helpers behaves."""
    if inspect.isfunction(thing):
        text = inspect.getsource(thing)
        names = [name for name in sorted(_names(thing.__code__)) if re.search(rf"(?<![.\w]){name}\b", text)]
        used = {name: thing.__globals__[name] for name in names if name in thing.__globals__}  # and no p.name
        return [text, used, inspect.getclosurevars(thing).nonlocals, thing.__defaults__, thing.__kwdefaults__]
    if inspect.ismethod(thing):
        return [thing.__func__, thing.__self__]
    if inspect.isclass(thing):
        kinds = [each for each in thing.__mro__ if _own(each)]
        try:
            return [inspect.getsource(each) for each in kinds]
        except OSError:  # of a notebook's class only the functions can be looked up
            return [[value for value in vars(each).values() if inspect.isfunction(value)] for each in kinds]
    hidden = {*vars(nn.Module()), "_compiled_call_impl"} if isinstance(thing, nn.Module) else {}
    fields = {name: value for name, value in vars(thing).items() if name not in hidden}
    return [type(thing), fields, str(thing) if hidden else ""]


def _names(code: CodeType) -> set[str]:
    """Return the names that a function's code uses, in functions within it too."""
    return set(code.co_names).union(*(_names(inner) for inner in code.co_consts if inspect.iscode(inner)))
