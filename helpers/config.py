"""The configuration: one frozen dataclass, the limits beside its fields, and its profiles."""

import os
from dataclasses import Field, dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, Self, get_args, get_type_hints

from accelerate.utils import is_cuda_available


def bounded(default: float | None, low: float, high: float) -> Any:
    """Return a dataclass field whose value lies from `low` to `high`."""
    return field(default=default, metadata={"low": low, "high": high})


def chosen(default: Any, *others: Any) -> Any:
    """Return a dataclass field whose value is one of a few."""
    return field(default=default, metadata={"choices": (default, *others)})


@dataclass(frozen=True)
class Config:
    """Every value of the system; the defaults are the report's recipe (profile `paper`).

    Raises ValueError or TypeError for an impossible value, with the field, the value and what is allowed.
    """

    profile: str = "paper"
    run: str = ""  # name of a training run; empty: the profile's name
    seed: int = bounded(0, 0, 2**32 - 1)
    precision: str = chosen("auto", "fp32", "bf16", "fp16")  # auto: the fastest that the hardware has

    # photos
    data_source: str = chosen("kaggle", "folder", "sample")  # folder: your own; sample: those of scikit-image
    photos_folder: str | os.PathLike = ""  # for data_source="folder"
    show_folder: str | os.PathLike = ""  # photos that notebooks show; empty: eight that come with the project
    n_photos: int = bounded(1500, 10, 10**8)
    size: int = bounded(255, 32, 4096)  # pixels on a side
    min_colorfulness: float = bounded(6.0, 0, 200)  # photos below it count as gray
    memory_gb: float = bounded(4.0, 0, 10**4)  # larger training sets are memory-mapped

    # augmentation of training photos
    flip: float = bounded(0.5, 0, 1)  # probability
    rotation: float = bounded(15.0, 0, 180)  # degrees to either side
    crop: float = bounded(0.8, 0.05, 1)  # smallest share of the photo that a random crop covers
    jitter: float = bounded(0.3, 0, 1)  # brightness, contrast and saturation, each times 1 +- this

    # networks
    start: str = ""  # a run to fine-tune; "box": the model that comes with the project
    freeze_norms: bool = False  # batch normalization does not learn: few photos would spoil it
    encoder: str = "resnet18"  # any timm network with levels at 1/2 to 1/32, such as "tf_efficientnet_lite0"
    encoder_weights: str | None = chosen("imagenet", "auto", None)  # auto: ImageNet's if available; None: from scratch
    freeze_encoder: bool = False
    res_blocks: int = bounded(9, 0, 100)
    bottleneck: str = chosen("residual", "identity")  # identity: nothing between encoder and decoder

    # losses
    color_loss: str = chosen("L1", "ab distance")  # of both phases: a and b separately, or their distance as a point
    lambda_l1: float = bounded(50.0, 0, 10**6)  # weight of the color loss beside the GAN term
    lambda_perc: float = bounded(10.0, 0, 10**6)
    lpips_weights: str | None = chosen("imagenet", "auto", None)  # None: LPIPS on an untrained backbone

    # training: the notebooks' cells pass epochs and learning rates to the Trainer
    batch_size: int = bounded(8, 1, 10**5)
    warmup_epochs: int = bounded(20, 1, 10**6)
    warmup_lr: float = bounded(1e-4, 1e-9, 1)
    lr_warmup_steps: int = bounded(0, 0, 10**6)  # steps over which the warmup's learning rate rises linearly
    adversarial_epochs: int = bounded(120, 1, 10**6)
    adversarial_lr: float = bounded(1e-4, 1e-9, 1)
    discriminator_lr: float | None = bounded(None, 1e-9, 1)  # None: adversarial_lr
    n_critic: int = bounded(1, 1, 100)  # updates of the discriminator, each on a new batch, per one of the generator
    burn_in: int = bounded(5, 0, 10**6)  # first adversarial epochs, which count neither as the best nor for patience
    patience: int = bounded(95, 1, 10**6)  # epochs without a better validation L1 before that phase stops
    keep: str = chosen("best", "last")  # epoch whose weights the adversarial phase saves; best: lowest validation L1
    hints_epochs: int = bounded(8, 1, 10**6)  # fine-tuning with color hints, notebook 07
    hints_lr: float = bounded(1e-3, 1e-9, 1)
    superres_blocks: int = bounded(16, 1, 100)  # super-resolution, notebook 09
    superres_epochs: int = bounded(100, 1, 10**6)
    superres_lr: float = bounded(5e-4, 1e-9, 1)
    superres_gan_epochs: int = bounded(50, 1, 10**6)
    superres_gan_lr: float = bounded(1e-4, 1e-9, 1)
    original_size: int = bounded(400, 32, 10**4)  # pixels of the original's center to cut patches from
    patch_size: int = bounded(96, 32, 1024)  # pixels on a side of a large patch
    schedule: str = chosen("constant", "cosine")  # cosine: the learning rate falls to zero along half a cosine
    clip_norm: float = bounded(1.0, 1e-9, 10**9)
    ema_decay: float | None = bounded(None, 0, 0.999999)  # e.g. 0.995: save a moving average of the weights
    checkpoint_minutes: float = bounded(10.0, 0, 10**6)  # the most work that is lost if the machine disappears
    val_photos: int = bounded(1000, 1, 10**7)  # validation photos to measure after an epoch, at most
    compile: bool = False  # torch.compile the networks: minutes at the start, faster steps on a GPU

    def __post_init__(self):
        check_fields(self)
        for name in ("photos_folder", "show_folder"):
            object.__setattr__(self, name, str(getattr(self, name)))  # a Path is welcome too
        if self.run == "box":
            raise ValueError('run="box" is the model that comes with the project: name yours differently')
        if set(self.run) & set('/\\:*?"<>|') or self.run.startswith(".") or len(self.run) > 100:
            raise ValueError(f"run={self.run!r} cannot be the name of a folder; use letters, numbers, spaces, dashes")
        for name in ("original_size", "patch_size"):
            if getattr(self, name) % 4:
                raise ValueError(f"{name}={getattr(self, name)} must be a multiple of 4: it is reduced to a quarter")
        object.__setattr__(self, "run", self.run or self.profile)

    @classmethod
    def from_profile(cls, **changes: Any) -> Self:
        """Return the configuration of the profile that `COLORIZE_PROFILE` names, with changes.

        `COLORIZE_PHOTOS` names a folder of photos to train on, `COLORIZE_SHOW` one of photos to show results on.
        Raises ValueError for an unknown profile or choice, TypeError for an unknown field.
        """
        # accelerate asks the driver; torch.cuda.is_available() would start CUDA, and notebook_launcher could not fork
        name = os.environ.get("COLORIZE_PROFILE") or ("paper" if is_cuda_available() else "laptop")
        if name not in PROFILES:
            raise ValueError(f"COLORIZE_PROFILE={name!r} is no profile; choose one of {', '.join(PROFILES)}")
        values = {"profile": name, **PROFILES[name], "show_folder": os.environ.get("COLORIZE_SHOW", "")}
        if photos := os.environ.get("COLORIZE_PHOTOS"):
            values |= {"data_source": "folder", "photos_folder": photos}
        return cls(**values | changes)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with the named fields changed."""
        return replace(self, **changes)

    def generator(self) -> dict[str, Any]:
        """Return the arguments of `models.generator.Generator`."""
        names = ("encoder", "res_blocks", "bottleneck", "freeze_encoder")
        return {"weights": self.encoder_weights} | {name: getattr(self, name) for name in names}


# the report's system with what was learned since (tests/bench/ABLATION.md); an epoch has 75 steps
VIVID = {"batch_size": 16, "schedule": "cosine", "ema_decay": 0.99, "color_loss": "ab distance"}
VIVID |= {"warmup_lr": 4e-4, "lr_warmup_steps": 75, "adversarial_epochs": 6, "keep": "last"}
VIVID |= {"jitter": 0.0}  # of all changes tried, leaving out the jitter helps most
# small and short; weights from the internet where they can be had
LAPTOP = VIVID | {"encoder_weights": "auto", "lpips_weights": "auto", "size": 128, "val_photos": 64}
LAPTOP |= {"warmup_epochs": 8, "adversarial_epochs": 3}
LAPTOP |= {"bottleneck": "identity"}  # the cheapest, and none was better: tests/bench/BOTTLENECKS.md
LAPTOP |= {"lambda_perc": 0.0}  # without trained weights LPIPS adds nothing and takes most of a step
LAPTOP |= {"superres_blocks": 8, "superres_epochs": 20, "superres_gan_epochs": 10, "superres_gan_lr": 2e-4}
LAPTOP |= {"original_size": 240}
# a short fine-tuning of the model in the box on few photos
QUICK = LAPTOP | {"data_source": "sample", "start": "box", "freeze_norms": True, "lpips_weights": None}
QUICK |= {"encoder": "tf_efficientnet_lite0", "encoder_weights": None, "freeze_encoder": True, "batch_size": 8}
QUICK |= {"warmup_epochs": 6, "warmup_lr": 2e-5, "lr_warmup_steps": 0, "ema_decay": 0.8, "seed": 24}
QUICK |= {"adversarial_epochs": 3, "adversarial_lr": 1e-5, "original_size": 128}
# every line of every notebook within seconds
SMOKE = {"data_source": "sample", "encoder_weights": None, "lpips_weights": None, "size": 64, "res_blocks": 1}
SMOKE |= {"schedule": "cosine", "warmup_epochs": 2, "warmup_lr": 2e-4, "adversarial_epochs": 2, "hints_epochs": 2}
SMOKE |= {"superres_blocks": 1, "superres_epochs": 2, "superres_gan_epochs": 2, "original_size": 128, "patch_size": 64}
SMOKE |= {"ema_decay": 0.9, "seed": 24, "batch_size": 4, "n_photos": 20, "val_photos": 4}
SMOKE |= {"encoder": "test_efficientnet"}  # timm's smallest with all five levels
PROFILES = {"paper": {}, "vivid": VIVID, "laptop": LAPTOP, "quick": QUICK, "smoke": SMOKE}


def check_fields(thing: Any) -> None:
    """Raise TypeError or ValueError, with what is allowed, if a field of a dataclass has an impossible value."""
    for each, kind in zip(fields(thing), get_type_hints(type(thing)).values(), strict=True):
        _check(each, getattr(thing, each.name), get_args(kind) or (kind,))


def _check(each: Field, value: Any, kinds: tuple[type, ...]) -> None:
    allowed = tuple({float: Real, int: Integral}.get(kind, kind) for kind in kinds)
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(kind.__name__.replace("NoneType", "None") for kind in kinds)
        raise TypeError(f"{each.name}={value!r} is a {type(value).__name__}; it must be {wanted}")
    limits = each.metadata
    if "choices" in limits and value not in limits["choices"]:
        choices = ", ".join(map(str, limits["choices"]))
        raise ValueError(f"{each.name}={value!r} is not possible; choose one of {choices}")
    if "low" in limits and value is not None and not limits["low"] <= value <= limits["high"]:
        raise ValueError(f"{each.name}={value!r} is not possible; it must be from {limits['low']} to {limits['high']}")
