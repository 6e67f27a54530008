"""Training runs on disk: a folder for each, and the networks in them."""

import inspect
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from helpers import workspace
from helpers.config import PROFILES, Config
from helpers.data.dataset import PhotoSet
from helpers.data.photos import disguised
from helpers.files import write_atomically
from helpers.models.generator import Generator, arguments_of
from helpers.models.srresnet import SRResNet

COLORIZERS = {"warmup": "03_warmup_training", "adversarial": "04_adversarial_training", "hints": "07_hints"}
ENLARGERS = {"superres": "09_super_resolution", "superres_gan": "09_super_resolution"}
MADE_BY = COLORIZERS | ENLARGERS
NETWORK = ("encoder", "freeze_encoder", "res_blocks", "bottleneck")
SHARED = ("seed", "data_source", "photos_folder", "n_photos", "size", "min_colorfulness", *NETWORK)
OWN = {"Generator": Generator, "SRResNet": SRResNet}  # the series' networks, by the class name in a weights file
ENDINGS = (".safetensors", ".json", "_history.csv", "_steps.csv", "_manifest.csv", "_checkpoint", "_checkpoint.new")
LAYER = re.compile(r"\((\w+)\): (\w+)")  # in a network's print; its other words change with PyTorch's version
BOX = workspace.PROJECT / "helpers" / "models" / "box"
TRIAL = "try "  # a run whose name begins so is used only where it is named
DRIVE_NOTE = " On Colab each notebook has a machine of its own: mount Drive in the first cell of both."
IN_THE_BOX = "the model in the box, which comes with the project"


def save_network(path: Path, network: nn.Module, cfg: Config, half: bool = False) -> None:
    """Write a network's weights with its class, its arguments and the configuration; half: convolutions in fp16."""
    state = {key: value.clone(memory_format=torch.contiguous_format) for key, value in network.state_dict().items()}
    if half:
        state = {key: value.half() if value.ndim == 4 else value for key, value in state.items()}
    metadata = {"class": type(network).__name__, "arguments": json.dumps(arguments_of(network))}
    metadata |= {"config": json.dumps(asdict(cfg)), "structure": str(network)}
    write_atomically(path, lambda temporary: save_file(state, temporary, metadata))


def load_network(
    path: Path | str, into: nn.Module | None = None, notebook: str = "04_adversarial_training"
) -> nn.Module:
    """Return the network of a weights file, in evaluation mode; its `trained_size` is the photos' size in pixels.

    into: a network to load the weights into, one that was changed after it was built. Without it, a network is built
    from its class: the series' own, or one of a notebook's cell. No code of the file is run. Raises FileNotFoundError
    for a missing file, ValueError for a damaged one or one of another network, NameError for a class not defined here.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a .safetensors file in it")
    if not path.is_file():
        raise FileNotFoundError(missing(path, notebook))
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        size = json.loads(metadata["config"])["size"]
        Config(size=size)  # refuses an impossible value from a stranger's file
        network = into if into is not None else _build(metadata["class"], json.loads(metadata["arguments"]), path)
        _fill(network, path, assign=into is None)
    except (SafetensorError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = f"damaged, of an older version of this series, or holds another network: {error}. Train it again"
        into = "Weights of a network that you changed after building it are loaded with load(..., into=network)."
        raise ValueError(f"{path} is {disguised(path) or f'{reason}. {into}'}") from error
    if LAYER.findall(metadata.get("structure", str(network))) != LAYER.findall(str(network)):
        print(f"note: the network in {path.name} prints differently from this one: was it changed after building?")
    network.trained_size = size
    return network.eval()


def _build(name: str, arguments: dict[str, Any], path: Path) -> nn.Module:
    """Return a network of a class and arguments, without weights; the random state stays as it is."""
    kind = OWN.get(name) or getattr(sys.modules["__main__"], name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise NameError(f"{path} holds a network of class {name}: run the cell that defines it first, or use `into`.")
    if "weights" in arguments:
        arguments["weights"] = None  # nothing to download: the file holds all weights
    own = kind in OWN.values()
    if own:  # limits what a stranger's file can ask for; of an older version's arguments, some are gone
        arguments = {key: v for key, v in arguments.items() if key in inspect.signature(kind.__init__).parameters}
        limits = {"blocks": "superres_blocks", "channels": "batch_size", "maps": "batch_size"}
        Config(**{limits.get(key, key): v for key, v in arguments.items() if key not in ("weights", "hints")})
    with torch.random.fork_rng():
        with torch.device("meta" if own else "cpu"):  # meta needs no memory, and weights are loaded next
            network = kind(**arguments)
        if {name for name, _ in network.named_buffers()} - network.state_dict().keys():
            network = kind(**arguments)  # some timm encoders have filters that no file holds
    return network


def _fill(network: nn.Module, path: Path, assign: bool) -> None:
    """Load a file's weights into a network, in fp32; raises ValueError with the first that are not in both."""
    state = {key: value.float() if value.is_floating_point() else value for key, value in load_file(path).items()}
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    wrong = [key for key in shapes | state if key not in state or shapes.get(key) != state[key].shape]
    if wrong:
        raise ValueError(f"{len(wrong)} weights are not in both, or of another shape: {', '.join(wrong[:3])} ...")
    network.load_state_dict(state, assign=assign)


def missing(path: Path, notebook: str) -> str:
    """Return the message for a file that an earlier notebook makes."""
    hint = DRIVE_NOTE if workspace.on_colab() else ""
    return f"{path} is missing. Notebook {notebook} makes it: run that first, in the same profile and workspace.{hint}"


class Run:
    """A training run: the folder `runs/<name>` of the workspace; for "box", the one in the project.

    Per phase (keys of `MADE_BY`) it holds `<phase>.safetensors` (the network), `<phase>.json` (the configuration),
    `<phase>_history.csv` (a row per epoch), `<phase>_steps.csv` (a row per step), `<phase>_manifest.csv` (the photos).
    """

    def __init__(self, name: str):
        self.name = name
        self.path = BOX if name == "box" else workspace.folder("runs") / name

    def file(self, phase: str, ending: str = ".safetensors") -> Path:
        """Return the path of one of the run's files."""
        return self.path / f"{phase}{ending}"

    def phases(self) -> list[str]:
        """Return the phases of this run that have saved a colorizer, in order."""
        return [phase for phase in COLORIZERS if self.file(phase).exists()]

    def color_phase(self) -> tuple["Run", str]:
        """Return the run and phase that decide the colors without hints: phase "hints" changes none of them."""
        own = [phase for phase in self.phases() if phase != "hints"]
        if own:
            return self, own[-1]
        begun = self.begun_from("hints")
        return (self, "hints") if begun.name == self.name else begun.color_phase()

    def begin(self, phase: str, cfg: Config, photos: PhotoSet, start: str = "") -> None:
        """Write a phase's configuration and photos; files of an earlier training are moved to an archive folder.

        start: name of the run whose network is trained on.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        old = [path for path in (self.file(phase, ending) for ending in ENDINGS) if path.exists()]
        if old:
            archive = self.path / f"earlier-{phase}-{time.time_ns()}"
            archive.mkdir()
            for path in old:
                path.replace(archive / path.name)
            print(f"an earlier {phase} of run {self.name!r} was moved to {archive}")
        text = json.dumps({**asdict(cfg), "start": start or self.name}, indent=1)
        write_atomically(self.file(phase, ".json"), lambda path: path.write_text(text, encoding="utf-8"))
        photos.manifest.to_csv(self.file(phase, "_manifest.csv"), index=False)

    def save(self, phase: str, network: nn.Module, cfg: Config) -> None:
        """Write the network of a phase, see `save_network`."""
        save_network(self.file(phase), network, cfg)

    def log(self, phase: str, history: pd.DataFrame, steps: pd.DataFrame) -> None:
        """Write the measurements per epoch and per step."""
        for table, ending in ((history, "_history.csv"), (steps, "_steps.csv")):
            write_atomically(self.file(phase, ending), lambda path, table=table: table.to_csv(path, index=False))

    def load(self, phase: str, into: nn.Module | None = None) -> nn.Module:
        """Return the network of a phase, on the CPU, in evaluation mode; see `load_network`."""
        return load_network(self.file(phase), into, MADE_BY[phase])

    def settings(self, phase: str) -> dict:
        """Return the configuration of a phase as a dict."""
        return json.loads(self.file(phase, ".json").read_text(encoding="utf-8"))

    def begun_from(self, phase: str) -> "Run":
        """Return the run whose network a phase started with; itself if there is no other."""
        return Run(self.settings(phase)["start"])

    def photos_seen(self) -> set[str]:
        """Return the sha256 of all photos that this run, the run it began from, and so on, have trained on."""
        chain, seen = [self.name], set()
        for name in chain:  # which grows on the way
            run = Run(name)
            for phase in run.phases():
                table = run.table(phase, "manifest")
                seen |= set(table.loc[table["split"] == "train", "sha256"]) if len(table) else set()
                begun = run.settings(phase)["start"] if name != "box" else name
                chain += [begun] if begun not in chain else []
        return seen

    def table(self, phase: str, kind: str = "history") -> pd.DataFrame:
        """Return a phase's "history" (a row per epoch), "steps" or "manifest"; an empty table if there is none."""
        path = self.file(phase, f"_{kind}.csv")
        return pd.read_csv(path) if path.exists() else pd.DataFrame()

    def agree(self, cfg: Config, names: Sequence[str] = SHARED) -> Config:
        """Return a configuration in which the settings that must match this run are copied from it, and print them.

        A folder of photos may have moved: if both name one, that of `cfg` is used. From the box only the network's
        settings are copied: its photos are not here.
        """
        print(f"continuing run {self.name!r}" if self.name != "box" else f"starting with {IN_THE_BOX}")
        theirs, ours = self.settings(self.phases()[-1]), asdict(cfg)
        names = NETWORK if self.name == "box" else names
        copied = {name: theirs[name] for name in names if theirs.get(name, ours[name]) != ours[name]}
        if theirs["data_source"] == cfg.data_source and cfg.photos_folder:
            copied.pop("photos_folder", None)
        for name, value in copied.items():
            print(f"copied     {name}={value!r} (this notebook has {ours[name]!r})")
        return cfg.replace(**copied)


def runs() -> list[Run]:
    """Return all runs of the workspace that hold a colorizer, the most recent last."""
    found = [Run(path.name) for path in workspace.folder("runs").iterdir()]
    times = {run: [run.file(phase).stat().st_mtime for phase in run.phases()] for run in found}
    return sorted((run for run in found if times[run]), key=lambda run: max(times[run]))


def find_run(name: str = "", or_box: bool = False) -> Run:
    """Return the run of a name; without one, or for a profile's name without a run, the most recent one.

    A run named "try ..." is an experiment: it is taken only by its name, or if there is no other.
    or_box: fall back to the model in the box. Raises FileNotFoundError that names the notebook to run, or the runs
    there are.
    """
    found = {run.name: run for run in runs()}
    mine = [run for run in found.values() if not run.name.startswith(TRIAL)]
    if or_box and not mine and name in ("", *PROFILES):
        print(f"no run of your own yet: using {IN_THE_BOX}")
        return Run("box")
    if name == "box":
        return Run(name)
    if not found:
        raise FileNotFoundError(missing(Run(name or Config.from_profile().run).file("warmup"), MADE_BY["warmup"]))
    if name not in ("", *found, *PROFILES):
        raise FileNotFoundError(f"There is no run {name!r}; there are: {', '.join(found)}.")
    return found.get(name, (mine or [*found.values()])[-1])


def warmup_of(cfg: Config) -> Run:
    """Return the run whose warmup an adversarial phase starts with: `cfg.run`, else `cfg.start`, else the profile's.

    Raises FileNotFoundError that names the notebook to run, or the runs there are.
    """
    run = Run(cfg.run)
    if "warmup" not in run.phases():
        run = find_run(cfg.start) if cfg.start else Run(cfg.profile)
    if "warmup" not in run.phases():
        raise FileNotFoundError(missing(Run(cfg.run).file("warmup"), MADE_BY["warmup"]))
    return run


def comparable_runs(cfg: Config, photos: PhotoSet) -> list[Run]:
    """Return the runs that may be compared on the test photos of a set, and print which are left out, and why.

    A run must use the same source of photos, must not have trained on these test photos, and its network must load.
    """
    test, chosen = set(photos.manifest.loc[photos.manifest["split"] == "test", "sha256"]), []
    for run in runs():
        phases = run.phases()
        seen = len(test & run.photos_seen())
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
