"""The configuration: one frozen dataclass, three profiles, and the changes that notebooks make."""

import json
import os
from dataclasses import asdict, dataclass, fields, replace

import torch

from helpers import workspace

CHOICES = {
    "data_source": ("kaggle", "folder", "sample"),
    "encoder": ("resnet18", "resnet34"),
    "schedule": ("constant", "cosine"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
}


@dataclass(frozen=True)
class Config:
    """Every value of the system; the defaults are the report's recipe (profile `paper`).

    Raises ValueError for a value that is not among the choices of its field.
    """

    profile: str = "paper"
    run: str = ""  # name of a training run; empty: the profile's name
    seed: int = 0
    precision: str = "auto"  # what the hardware has; or fp32, bf16, fp16

    # photos
    data_source: str = "kaggle"  # or folder (your own photos), sample (what scikit-image ships)
    photos_folder: str = ""  # for data_source="folder"
    show_folder: str = ""  # photos for the last section of notebook 05; empty: those that scikit-image ships
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
    val_photos: int = 1000  # how many validation photos an epoch's end looks at, at most

    def __post_init__(self):
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not possible; choose one of {', '.join(allowed)}")
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
        unknown = changes.keys() - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"unknown field {', '.join(sorted(unknown))}; helpers/config.py lists all fields")
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


def _keep_changes(profile, notebook, changes):
    """Keep a notebook's changes in the workspace; return them on top of those of the notebooks before it."""
    path = workspace.root() / "config.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    of_profile = kept.setdefault(profile, {})
    of_profile[str(notebook)] = changes
    path.write_text(json.dumps(kept, indent=1, default=str))
    merged = {}
    print(f"profile    {profile}")
    for number in sorted(of_profile, key=int):
        if int(number) <= notebook and of_profile[number]:
            merged |= of_profile[number]
            print(f"changed    in notebook {int(number):02d}: {of_profile[number]}")
    return merged
