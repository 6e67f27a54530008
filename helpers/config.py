"""The configuration: one frozen dataclass, three profiles, and the changes that notebooks make."""

import difflib
import json
import os
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import get_args, get_type_hints

import torch

from helpers import workspace
from helpers.storage import write_atomically

CHOICES = {
    "data_source": ("kaggle", "folder", "sample"),
    "encoder": ("resnet18", "resnet34"),
    "schedule": ("constant", "cosine"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
}

LIMITS = {  # the smallest and the largest value that make sense
    **{"seed": (0, 2**32 - 1), "n_photos": (10, 10**8), "size": (32, 4096), "min_colourfulness": (0, 200)},
    **{"flip": (0, 1), "rotation": (0, 180), "crop": (0.05, 1), "jitter": (0, 1), "memory_gb": (0, 10**4)},
    **{"res_blocks": (0, 100), "lambda_l1": (0, 10**6), "lambda_perc": (0, 10**6), "batch_size": (1, 10**5)},
    **{"warmup_epochs": (1, 10**6), "adversarial_epochs": (1, 10**6), "patience": (1, 10**6), "val_photos": (1, 10**7)},
    **{"warmup_lr": (1e-9, 1), "adversarial_lr": (1e-9, 1), "beta1": (0, 0.9999), "beta2": (0, 0.999999)},
    **{"clip_norm": (1e-9, 10**9), "ema_decay": (0, 0.999999), "checkpoint_minutes": (0, 10**6)},
}


@dataclass(frozen=True)
class Config:
    """Every value of the system; the defaults are the report's recipe (profile `paper`).

    Raises ValueError or TypeError for a value that is impossible, with the field, the value and what is allowed.
    """

    profile: str = "paper"
    run: str = ""  # name of a training run; empty: the profile's name
    seed: int = 0
    precision: str = "auto"  # what the hardware has; or fp32, bf16, fp16

    # photos
    data_source: str = "kaggle"  # or folder (your own photos), sample (what scikit-image ships)
    photos_folder: str = ""  # for data_source="folder"
    show_folder: str = ""  # photos for notebooks 05 and 06 to show; empty: those that scikit-image ships
    n_photos: int = 1500
    size: int = 255  # pixels on a side
    min_colourfulness: float = 6.0  # Hasler-Suesstrunk; below it a photo counts as grey

    # speed
    compile: bool = False  # torch.compile the networks: minutes at the start, faster steps on a GPU
    memory_gb: float = 4.0  # training photos up to this size stay on the device; larger sets are streamed from disk

    # augmentation of training photos
    flip: float = 0.5  # probability
    rotation: float = 15.0  # degrees to either side
    crop: float = 0.8  # smallest share of the photo that a random crop keeps
    jitter: float = 0.3  # brightness, contrast and saturation, each times 1 +- this

    # networks
    encoder: str = "resnet18"
    encoder_weights: str | None = "IMAGENET1K_V1"  # None: from scratch
    res_blocks: int = 9

    # losses
    lambda_l1: float = 50.0
    lambda_perc: float = 10.0
    lpips_weights: str | None = "IMAGENET1K_V1"  # None: LPIPS on a trunk that was never trained

    # training
    batch_size: int = 8
    warmup_epochs: int = 20
    adversarial_epochs: int = 120
    patience: int = 30  # epochs without a better validation L1 before the adversarial phase stops
    warmup_lr: float = 1e-4
    adversarial_lr: float = 1e-4
    schedule: str = "constant"  # or cosine: the learning rate falls to zero along half a cosine
    beta1: float = 0.5
    beta2: float = 0.999
    clip_norm: float = 1.0
    ema_decay: float | None = None  # e.g. 0.995: use the moving average of the generator's weights
    checkpoint_minutes: float = 5.0  # at most so much work is lost when the machine disappears
    val_photos: int = 1000  # how many validation photos an epoch's end looks at, at most

    def __post_init__(self):
        for name, kind in get_type_hints(type(self)).items():
            _check(name, getattr(self, name), kind)
        for name in ("photos_folder", "show_folder"):
            object.__setattr__(self, name, str(getattr(self, name)))  # a Path is welcome too
        if not self.run:
            object.__setattr__(self, "run", self.profile)

    @classmethod
    def from_profile(cls, notebook=None, **changes):
        """Return the configuration of the profile that `COLORIZE_PROFILE` names, with changes.

        notebook: the number of the calling notebook. Its `changes` are kept in the workspace, and the
            notebooks after it start from them too; what holds is printed.
        `COLORIZE_PHOTOS` names a folder of photos to train on in place of the profile's, `COLORIZE_SHOW` one of
        photos to show the result on.

        Raises ValueError for an unknown profile, field or choice.
        """
        name = os.environ.get("COLORIZE_PROFILE") or ("paper" if torch.cuda.is_available() else "laptop")
        if name not in PROFILES:
            raise ValueError(f"COLORIZE_PROFILE={name!r} is no profile; choose one of {', '.join(PROFILES)}")
        known = [field.name for field in fields(cls)]
        for field in sorted(changes.keys() - set(known)):
            near = difflib.get_close_matches(field, known, 1)
            hint = f"did you mean {near[0]}?" if near else "helpers/config.py lists all fields"
            raise ValueError(f"unknown field {field}={changes[field]!r}; {hint}")
        values = {"profile": name, **PROFILES[name]}
        if photos := os.environ.get("COLORIZE_PHOTOS"):
            values |= {"data_source": "folder", "photos_folder": photos}
        values["show_folder"] = os.environ.get("COLORIZE_SHOW", "")
        if notebook is not None:
            cls(**values | changes)  # refuse a wrong value before it is kept
            changes = _keep_changes(name, notebook, changes)
        return cls(**values | changes)

    def replace(self, **changes):
        """Return a copy with the named fields changed."""
        return replace(self, **changes)

    def to_json(self):
        """Return the configuration as a JSON text."""
        return json.dumps(asdict(self), indent=1)


PROFILES = {
    "paper": {},
    "laptop": {
        "size": 128,  # a multiple of 32 wastes nothing on padding
        "lambda_l1": 20.0,  # lower than the report's, so that colour comes in few epochs
        "encoder_weights": None,
        "lpips_weights": None,
        "warmup_epochs": 8,
        "adversarial_epochs": 2,
        "warmup_lr": 2e-4,
        "adversarial_lr": 2e-4,
        "schedule": "cosine",
        "ema_decay": 0.985,  # an average over some 70 of the 150 steps of an epoch
        "val_photos": 64,
    },
    "smoke": {
        "seed": 24,  # puts ordinary photos, not the stars, into validation and test
        "data_source": "sample",
        "size": 64,
        "encoder_weights": None,
        "res_blocks": 1,
        "lpips_weights": None,
        "warmup_epochs": 2,
        "adversarial_epochs": 2,
        "warmup_lr": 2e-4,
        "schedule": "cosine",
        "ema_decay": 0.9,
    },
}


def _check(name, value, kind):
    """Raise TypeError or ValueError, with what is allowed, when a field cannot have a value."""
    kinds = get_args(kind) or (kind,)
    if name in ("photos_folder", "show_folder"):
        kinds = (str, os.PathLike)
    allowed = tuple({float: Real, int: Integral}.get(k, k) for k in kinds)
    wanted = " or ".join(getattr(k, "__name__", str(k)).replace("NoneType", "None") for k in kinds)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}; it must be {wanted}")
    if name in CHOICES and value not in CHOICES[name]:
        raise ValueError(f"{name}={value!r} is not possible; choose one of {', '.join(CHOICES[name])}")
    low, high = LIMITS.get(name, (None, None))
    if low is not None and value is not None and not low <= value <= high:
        raise ValueError(f"{name}={value!r} is not possible; it must be from {low} to {high}")
    if name == "run" and (set(value) & set('/\\:*?"<>|') or value.startswith(".") or len(value) > 100):
        raise ValueError(f"run={value!r} cannot be the name of a folder; use letters, numbers, spaces and dashes")


def _keep_changes(profile, notebook, changes):
    """Keep a notebook's changes in the workspace; return them on top of those of the notebooks before it."""
    path = workspace.root() / "config.json"
    try:
        kept = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        print(f"{path} is damaged: the changes that earlier notebooks kept in it are lost; run those again")
        kept = {}
    of_profile = kept.setdefault(profile, {})
    of_profile[str(notebook)] = changes
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(kept, indent=1, default=str)))
    merged = {}
    print(f"profile    {profile}")
    for number in sorted(of_profile, key=int):
        if int(number) <= notebook and of_profile[number]:
            merged |= of_profile[number]
            print(f"changed    in notebook {int(number):02d}: {of_profile[number]}")
    return merged
