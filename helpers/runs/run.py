"""Training runs on disk: a folder for each, with its configuration, photos, weights and history."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from torch import nn

from helpers import workspace
from helpers.config import PROFILES, Config
from helpers.data.dataset import PhotoSet
from helpers.runs.files import write_atomically
from helpers.runs.weights import load_generator, missing, save_generator

COLORIZERS = {"warmup": "03_warmup_training", "adversarial": "04_adversarial_training", "hints": "07_hints"}
ENLARGERS = {"superres": "09_super_resolution", "superres_gan": "09_super_resolution"}
MADE_BY = COLORIZERS | ENLARGERS
NETWORK = ("encoder", "res_blocks", "bottleneck", "attention_at", "positions")
SHARED = ("seed", "data_source", "photos_folder", "n_photos", "size", "min_colorfulness", *NETWORK)
BOX = workspace.PROJECT / "helpers" / "models" / "box"
IN_THE_BOX = "the model in the box, which comes with the project"


class Run:
    """A training run by its name: the folder `runs/<name>` of the workspace; of "box", the one in the project.

    It holds, per phase (`MADE_BY` names them): `<phase>.safetensors` (the network for use), `<phase>.json` (the
    configuration), `<phase>_history.csv` (a row per epoch), `<phase>_steps.csv` (a row per step) and
    `<phase>_manifest.csv` (the photos).
    """

    def __init__(self, name: str):
        self.name = name
        self.path = BOX if name == "box" else workspace.folder("runs") / name

    def file(self, phase: str, ending: str = ".safetensors") -> Path:
        """Return the path of one of the run's files."""
        return self.path / f"{phase}{ending}"

    def phases(self) -> list[str]:
        """Return the phases that have left a colorizer here, the last one at the end."""
        return [phase for phase in COLORIZERS if self.file(phase).exists()]

    def colors(self) -> tuple["Run", str]:
        """Return the run and phase whose colors these are while nobody gives a hint: phase "hints" changes none."""
        own = [phase for phase in self.phases() if phase != "hints"]
        if own:
            return self, own[-1]
        begun = self.begun_from("hints")  # itself, where its earlier phases are gone
        return (self, "hints") if begun.name == self.name else begun.colors()

    def begin(self, phase: str, cfg: Config, photos: PhotoSet, start: str | None = None) -> None:
        """Make room for a phase: what an earlier one of the same name left is archived, never lost.

        photos: the prepared `PhotoSet`; start: name of the run whose generator the phase goes on from.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        old = list(self.path.glob(f"{phase}*"))
        if old:
            archive = self.path / f"earlier-{phase}-{time.time_ns()}"
            archive.mkdir()
            for file in old:
                file.replace(archive / file.name)
            print(f"an earlier {phase} of run {self.name!r} was archived in {archive}")
        text = json.dumps({**asdict(cfg), "start": start or self.name}, indent=1)
        write_atomically(self.file(phase, ".json"), lambda path: path.write_text(text))
        photos.manifest.to_csv(self.file(phase, "_manifest.csv"), index=False)

    def save(self, phase: str, generator: nn.Module, cfg: Config) -> None:
        """Write the generator of a phase, see `save_generator`."""
        save_generator(self.file(phase), generator, cfg)

    def log(self, phase: str, history: pd.DataFrame, steps: pd.DataFrame) -> None:
        """Write what was measured, per epoch and per step."""
        for table, ending in ((history, "_history.csv"), (steps, "_steps.csv")):
            write_atomically(self.file(phase, ending), lambda path, table=table: table.to_csv(path, index=False))

    def load(self, phase: str) -> nn.Module:
        """Return the generator that a phase left, on the CPU, in evaluation mode; raises as `load_generator`."""
        return load_generator(self.file(phase), MADE_BY[phase])

    def settings(self, phase: str) -> dict:
        """Return the configuration that a phase was trained with."""
        return json.loads(self.file(phase, ".json").read_text())

    def begun_from(self, phase: str) -> "Run":
        """Return the run that a phase went on from; itself, where there was no other."""
        return Run(self.settings(phase)["start"])

    def table(self, phase: str, kind: str = "history") -> pd.DataFrame:
        """Return the phase's "history" (a row per epoch), "steps" or "manifest" as a table, empty if there is none."""
        path = self.file(phase, f"_{kind}.csv")
        return pd.read_csv(path) if path.exists() else pd.DataFrame()

    def agree(self, cfg: Config, names: Sequence[str] = SHARED) -> Config:
        """Return a configuration with what has to agree with this run (photos, size, networks) taken from it, printed.

        A folder of photos may have moved: where both name one, that of `cfg` stays. The photos of the box are not here:
        of it, the network alone has to agree.
        """
        print(f"going on from run {self.name!r}" if self.name != "box" else f"going on from {IN_THE_BOX}")
        settings, names = self.settings(self.phases()[-1]), NETWORK if self.name == "box" else names
        taken = {name: settings[name] for name in names if settings.get(name, getattr(cfg, name)) != getattr(cfg, name)}
        if settings["data_source"] == cfg.data_source and cfg.photos_folder:
            taken.pop("photos_folder", None)
        for name, value in taken.items():
            print(f"from it    {name}={value!r} (here {getattr(cfg, name)!r})")
        return cfg.replace(**taken)


def runs() -> list[Run]:
    """Return all runs of the workspace that hold a colorizer, the one that was changed last at the end."""
    found = [Run(path.name) for path in workspace.folder("runs").iterdir()]
    times = {run: [run.file(phase).stat().st_mtime for phase in run.phases()] for run in found}
    return sorted((run for run in found if times[run]), key=lambda run: max(times[run]))


def find_run(name: str = "", or_box: bool = False) -> Run:
    """Return the run of a name; without one, or for a profile's name that no run has, the one that was trained last.

    or_box: where there is none, the model in the box will do. Raises FileNotFoundError that names the notebook to run
    when there is none, or the runs that there are.
    """
    found = {run.name: run for run in runs()}
    if or_box and not found and name in ("", *PROFILES):
        print(f"no run of your own yet: colors come from {IN_THE_BOX}")
        return Run("box")
    if name == "box":
        return Run(name)
    if not found:
        raise FileNotFoundError(missing(Run(name or Config.from_profile().run).file("warmup"), MADE_BY["warmup"]))
    if name not in ("", *found, *PROFILES):
        raise FileNotFoundError(f"There is no run {name!r}; there are: {', '.join(found)}.")
    return found.get(name, [*found.values()][-1])


def warmup_of(cfg: Config) -> Run:
    """Return the run whose warmup an adversarial phase starts from: `cfg.run`, else `cfg.start`, else the profile's.

    Raises FileNotFoundError that names the notebook to run when there is none of them, or the runs that there are.
    """
    run = Run(cfg.run)
    if "warmup" not in run.phases():
        run = find_run(cfg.start) if cfg.start else Run(cfg.profile)
    if "warmup" not in run.phases():
        raise FileNotFoundError(missing(Run(cfg.run).file("warmup"), MADE_BY["warmup"]))
    return run


def comparable_runs(cfg: Config, photos: PhotoSet) -> list[Run]:
    """Return the runs that may be compared on the test photos of a `PhotoSet`; print which are left out, and why.

    A run has to come from the same source of photos, must not have trained on any of these test photos, and its
    network has to load: its class is known here, and it is of this version.
    """
    test, chosen = set(photos.manifest.loc[photos.manifest["split"] == "test", "sha256"]), []
    for run in runs():
        phases = run.phases()
        begun = run.begun_from(phases[-1])
        theirs = pd.concat([begun.table("warmup", "manifest"), *(run.table(phase, "manifest") for phase in phases)])
        seen = len(test & set(theirs.loc[theirs["split"] == "train", "sha256"]))
        source = run.settings(phases[0])["data_source"]
        if source != cfg.data_source:
            print(f"left out: {run.name!r} learned from other photos ({source})")
        elif seen:
            print(f"left out: {run.name!r} trained on {seen} of these test photos (another seed, size or number)")
        else:
            try:
                run.load(phases[-1])
                chosen.append(run)
            except (NameError, ValueError) as error:
                print(f"left out: {run.name!r}: {str(error).replace(str(run.path) + os.sep, '')}")
    return chosen
