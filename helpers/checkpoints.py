"""Training runs on disk: a folder for each, with its configuration, photos, weights and history."""

import json
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from helpers import workspace
from helpers.config import Config
from helpers.networks import Generator
from helpers.storage import has_checksum, is_whole, write_atomically, write_verified

MADE_BY = {"warmup": "03_warmup_training", "adversarial": "04_adversarial_training"}


class Run:
    """A training run by its name: the folder `runs/<name>` of the workspace.

    It holds, per phase ("warmup", "adversarial"): `<phase>.safetensors` (the generator for use), `<phase>.json` (the
    configuration), `<phase>_history.csv` (a row per epoch), `<phase>_steps.csv` (a row per step) and
    `<phase>_manifest.csv` (the photos).
    """

    def __init__(self, name):
        self.name = name
        self.path = workspace.folder("runs") / name

    def file(self, phase, ending=".safetensors"):
        """Return the path of one of the run's files."""
        return self.path / f"{phase}{ending}"

    def has(self, phase):
        """Say whether a phase has left a generator here."""
        return self.file(phase).exists()

    def begin(self, phase, cfg, photos, start=None):
        """Make room for a phase: what an earlier one of the same name left is set aside, never lost.

        photos: the prepared `PhotoSet`; start: name of the run whose warmup an adversarial phase goes on from.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        old = list(self.path.glob(f"{phase}*"))
        if old:
            aside = self.path / f"earlier-{phase}-{time.time_ns()}"
            aside.mkdir()
            for file in old:
                file.replace(aside / file.name)
            print(f"an earlier {phase} of run {self.name!r} was set aside in {aside}")
        text = json.dumps({**asdict(cfg), "start": start or self.name}, indent=1)
        write_atomically(self.file(phase, ".json"), lambda path: path.write_text(text))
        photos.manifest.to_csv(self.file(phase, "_manifest.csv"), index=False)

    def save(self, phase, generator, cfg):
        """Write the generator of a phase, see `save_generator`."""
        save_generator(self.file(phase), generator, cfg)

    def log(self, phase, history, steps):
        """Write what was measured, per epoch and per step."""
        for table, ending in ((history, "_history.csv"), (steps, "_steps.csv")):
            write_atomically(self.file(phase, ending), lambda path, table=table: table.to_csv(path, index=False))

    def load(self, phase):
        """Return the generator that a phase left, on the CPU, in evaluation mode; raises as `load_generator`."""
        return load_generator(self.file(phase), MADE_BY[phase])

    def settings(self, phase):
        """Return the configuration that a phase was trained with, as a dict."""
        return json.loads(self.file(phase, ".json").read_text())

    def table(self, phase, kind="history"):
        """Return the phase's "history" (a row per epoch), "steps" or "manifest" as a table, empty if there is none."""
        path = self.file(phase, f"_{kind}.csv")
        return pd.read_csv(path) if path.exists() else pd.DataFrame()


def save_generator(path, generator, cfg):
    """Write a generator's weights, with its architecture and configuration in the file's metadata; and a checksum."""
    metadata = {"architecture": json.dumps(generator.architecture), "config": cfg.to_json()}
    state = {name: tensor.contiguous() for name, tensor in generator.state_dict().items()}
    write_verified(path, lambda temporary: save_file(state, temporary, metadata))


def runs():
    """Return all runs of the workspace that hold a generator, the one that was changed last at the end."""
    folders = [path for path in workspace.folder("runs").iterdir() if list(path.glob("*.safetensors"))]
    changed = {path: max(file.stat().st_mtime for file in path.glob("*.safetensors")) for path in folders}
    return [Run(path.name) for path in sorted(folders, key=changed.get)]


def comparable_runs(cfg, photos):
    """Return the runs that may be compared on the test photos of a `PhotoSet`; print which are left out, and why.

    A run has to come from the same source of photos, and must not have trained on any of these test photos.
    """
    test, chosen = set(photos.manifest.loc[photos.manifest["split"] == "test", "sha256"]), []
    for run in runs():
        phases = [phase for phase in MADE_BY if run.has(phase)]
        begun = Run(run.settings(phases[-1])["start"])
        theirs = pd.concat([begun.table("warmup", "manifest"), *(run.table(phase, "manifest") for phase in phases)])
        seen = len(test & set(theirs.loc[theirs["split"] == "train", "sha256"]))
        source = run.settings(phases[0])["data_source"]
        if source != cfg.data_source:
            print(f"left out: {run.name!r} learned from other photos ({source})")
        elif seen:
            print(f"left out: {run.name!r} trained on {seen} of these test photos (another seed, size or number)")
        else:
            chosen.append(run)
    return chosen


def warmup_of(cfg):
    """Return the run whose warmup an adversarial phase starts from: that of `cfg.run`, else the profile's.

    Raises FileNotFoundError that names the notebook to run when there is neither.
    """
    for name in (cfg.run, cfg.profile):
        if Run(name).has("warmup"):
            return Run(name)
    raise FileNotFoundError(missing(Run(cfg.run).file("warmup"), MADE_BY["warmup"]))


def missing(path, notebook):
    """Return the message for a file that an earlier notebook makes."""
    return f"{path} is missing. Notebook {notebook} makes it: run that first, with the same profile and workspace."


def load_generator(path, notebook="04_adversarial_training"):
    """Return the generator of a weights file, in evaluation mode.

    Raises FileNotFoundError that names the notebook which makes the file, ValueError for a file that is damaged
    or holds something else.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(missing(path, notebook))
    if has_checksum(path) and not is_whole(path):
        raise ValueError(f"{path} is damaged: it is not what was written, its checksum does not fit. Train it again.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        architecture, size = json.loads(metadata["architecture"]), json.loads(metadata.get("config", "{}")).get("size")
        Config(**architecture, **({"size": size} if size else {}))  # refuses what a stranger's file may ask for
        with torch.device("meta"):  # numbers come from the file: none need be drawn, nor held twice
            generator = Generator(weights=None, **architecture)
        generator.load_state_dict(load_file(path), assign=True)
        generator.trained_size = size
    except (SafetensorError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a generator of this series, or is damaged: {error}") from error
    return generator.eval()
