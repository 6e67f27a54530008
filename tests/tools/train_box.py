"""Trains the model in the box: `make box PHOTOS=folder`. Run it again to continue.

PHOTOS holds a folder for each source of photos. Sources are balanced, and each has validation photos of its own.
Networks trained on other mixtures of the sources teach the one in the box: their mean is better on photos from
elsewhere than any of them, and one network can learn it (Hinton et al. 2015, arXiv 1503.02531).
With `--enlarger` it trains the enlarger in the box, on photos of 200 pixels and more on their shorter side.
"""

import copy
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import kornia.augmentation as K
import numpy as np
import torch
import torch.nn.functional as F
from bench.measures import compress, paste
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision import transforms
from tqdm.auto import tqdm

from helpers import workspace
from helpers.color import rgb_to_L_ab
from helpers.config import Config
from helpers.data.hint_squares import draw_squares, hints_of
from helpers.data.photos import center_square, list_photos, read_rgb, to_tensor
from helpers.evaluation.frontier import frontier
from helpers.models.generator import Generator
from helpers.models.hinted import with_hints
from helpers.models.srresnet import SRResNet, bicubic
from helpers.runs import BOX, save_network
from helpers.training.losses import ab_distance

SIZE, PACKED = 128, 144  # pixels on a side: of a crop, of a photo in memory
VALIDATION = 15  # photos of each source with more than 60
BATCH = 16
PATCH, SMALLEST = 96, 200  # of the enlarger, pixels: a large patch, the shorter side of a photo
DECAY = 0.998  # of the EMA weights
BEYOND = 1.5  # how far to go from the network "colors" to "general", and on in that direction
SCENES = ("intel_scenes", "weather", "travel1", "travel2")
Teacher = tuple[str, float, int, bool]


@dataclass(frozen=True)
class Phase:
    """How one network is trained: AdamW's rate rises for `rise` steps and falls along a cosine.

    weights: how often photos of some sources are drawn, compared with the others; others: 0 draws no other photos.
    crop: smallest share of a photo's area. start: the phase whose weights it starts from. teachers: phases, with the
    weight of each in the mean, the size in pixels at which it sees the photos, and whether it sees them mirrored.
    taught: share of the loss that compares with the teachers' mean, not with the truth. strange: teachers, likewise,
    for the half of each batch that is then `strange`.
    """

    steps: int
    rate: float = 4e-4
    rise: int = 300
    weights: dict[str, float] = field(default_factory=lambda: {"landscapes": 2})
    others: float = 1
    crop: float = 0.7
    start: str = ""
    teachers: tuple[Teacher, ...] = ()
    taught: float = 0.7
    strange: tuple[Teacher, ...] = ()


def favoring(landscapes: float, scenes: float) -> dict[str, float]:
    """Return the weights of a phase for landscapes and similar sources."""
    return {"landscapes": landscapes} | dict.fromkeys(SCENES, scenes)


OTHERS = (("landscapes", 1, SIZE, False), ("short", 1, SIZE, False))
ALL = (("colors", 1.2, 160, True), *OTHERS)
PHASES = {
    "colors": Phase(9_000),
    "short": Phase(1_500, weights={}, crop=1.0),
    "landscapes": Phase(600, others=0, crop=0.8),
    "student": Phase(600, 2e-4, 100, favoring(6, 2), start="colors", teachers=(("colors", 1, SIZE, False), *OTHERS)),
    "general": Phase(1_200, 3e-4, 100, favoring(4, 2), start="student", teachers=ALL, strange=ALL),
    "box": Phase(
        600, 2e-4, 100, favoring(4, 3), start="general",
        teachers=(("student", 1, SIZE, False),), taught=0.4, strange=(("beyond", 1, SIZE, False),),
    ),
    "hints": Phase(3_200, 1e-3, 100, start="box"),
}  # fmt: skip
ENLARGER = Phase(2_000, 5e-4, 1)


def pack(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the center squares of all photos, uint8 (N, 3, PACKED, PACKED), and the name of each one's source."""

    def _square(path):
        try:
            rgb = read_rgb(path)
        except OSError as error:
            return print(f"skipped: {error}")
        return center_square(rgb, PACKED, cv2.INTER_AREA if min(rgb.shape[:2]) > PACKED else cv2.INTER_LINEAR)

    paths = list_photos(folder)
    squares = list(tqdm(workspace.in_parallel(_square, paths), total=len(paths), desc="packing"))
    found = [(path, square) for path, square in zip(paths, squares, strict=True) if square is not None]
    sources = [path.relative_to(folder).parts[0] for path, _ in found]
    return np.ascontiguousarray(np.stack([square for _, square in found]).transpose(0, 3, 1, 2)), np.array(sources)


def divide(sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the validation photos and those of the training photos."""
    random = np.random.RandomState(1)
    large = [name for name in sorted(set(sources)) if name != "landscapes" and (sources == name).sum() > 60]
    validation = np.concatenate([random.permutation(np.flatnonzero(sources == name))[:VALIDATION] for name in large])
    return validation, np.setdiff1d(np.arange(len(sources)), validation)


def chances(sources: np.ndarray, phase: Phase) -> np.ndarray:
    """Return the chance to draw each photo.

    It is 1 / sqrt(size of its source): large sources count more than small ones, but not in proportion.
    """
    names, place, sizes = np.unique(sources, return_inverse=True, return_counts=True)
    weights = np.array([phase.weights.get(name, phase.others) for name in names]) * sizes**-0.5
    return weights[place] / weights[place].sum()


def squares_of(photos: np.ndarray) -> Tensor:
    """Return packed photos reduced to SIZE, uint8 (N, 3, SIZE, SIZE)."""
    small = [cv2.resize(photo.transpose(1, 2, 0), (SIZE, SIZE), interpolation=cv2.INTER_AREA) for photo in photos]
    return torch.from_numpy(np.stack(small).transpose(0, 3, 1, 2).copy())


def held_out(folder: Path) -> tuple[Tensor, np.ndarray]:
    """Return the validation photos of a folder, uint8 (N, 3, SIZE, SIZE), and the name of each one's source."""
    photos, sources = pack(folder)
    numbers = divide(sources)[0]
    return squares_of(photos[numbers]), sources[numbers]


def strange(photos: Tensor) -> Tensor:
    """Return half as many images, (N / 2, 3, SIZE, SIZE), of photos in [0, 1]: small crops, most of two photos mixed.

    On them a student learns what its teachers do far from their photos (Beyer et al. 2022, arXiv 2106.05237).
    """
    crop = K.RandomResizedCrop((SIZE, SIZE), scale=(0.15, 1.0), ratio=(0.75, 1.33), p=1.0)
    one, other = crop(photos).chunk(2)
    return one.lerp(other, 0.5 * torch.rand(len(one), 1, 1, 1) * (torch.rand(len(one), 1, 1, 1) < 0.7))


@torch.no_grad()
def mean_of(networks: dict[str, nn.Module], teachers: tuple, L: Tensor) -> Tensor:
    """Return the mean ab (N, 2, SIZE, SIZE) that a phase's teachers predict from L (N, 1, SIZE, SIZE)."""
    resize, total = F.interpolate, 0.0
    for name, weight, size, mirrored in teachers:
        seen = resize(L, (size, size), mode="bicubic").clamp(-1, 1) if size != SIZE else L
        ab = networks[name](seen.flip(-1)).flip(-1) if mirrored else networks[name](seen)
        total = total + weight * resize(ab.float(), (SIZE, SIZE), mode="area")
    return total / sum(weight for _, weight, *_ in teachers)


def beyond(here: nn.Module, there: nn.Module) -> nn.Module:
    """Return the network whose weights lie on the line from one network to another, behind it (at BEYOND).

    It is better far from the training photos than either, and worse on them (Ilharco et al. 2023, arXiv 2212.04089).
    """
    network, start = copy.deepcopy(there), here.state_dict()
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(start[key].lerp(value, BEYOND))
            if key.endswith("running_var"):
                value.clamp_(min=1e-5)
    return network


def fit(name: str, phase: Phase, network: nn.Module, loss_of_batch: Callable[[], Tensor]) -> nn.Module:
    """Train for the steps of a phase and return the EMA weights; continues at the phase's last checkpoint."""
    file = workspace.folder("box") / f"{name}.pt"
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, phase.rate, betas=(0.5, 0.999), weight_decay=0.01, fused=True)

    def _share(step):
        return min(1, (step + 1) / phase.rise) * (0.5 + 0.5 * math.cos(math.pi * min(1, step / phase.steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _share)
    ema = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    parts, first = {"network": network, "optimizer": optimizer, "schedule": schedule, "ema": ema}, 0
    if file.exists():
        state = torch.load(file, weights_only=True)
        first = state.pop("step")
        for key, part in parts.items():
            part.load_state_dict(state[key])
    for step in tqdm(range(first, phase.steps), name, phase.steps, initial=first):
        optimizer.zero_grad()
        loss_of_batch().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        ema.update_parameters(network)
        if (step + 1) % 500 == 0 or step + 1 == phase.steps:
            torch.save({key: part.state_dict() for key, part in parts.items()} | {"step": step + 1}, file)
    return ema.module


def train(name: str, networks: dict[str, nn.Module], generator: nn.Module, draw: Callable) -> nn.Module:
    """Train a phase, taught by the networks of earlier ones, and return its network.

    draw(count): returns that many training photos, uint8 (N, 3, PACKED, PACKED).
    """
    phase, autocast = PHASES[name], workspace.make_accelerator().autocast
    usual = BATCH // 2 if phase.strange else BATCH
    crop = K.RandomResizedCrop((SIZE, SIZE), scale=(phase.crop, 1.0), ratio=(1.0, 1.0), p=1.0)
    changes = [K.RandomHorizontalFlip(p=0.5), crop, *[paste] * (4 if name == "hints" else 0)]
    generator = generator.to(memory_format=torch.channels_last).train()

    def _loss():
        rgb = torch.from_numpy(draw(usual)).float() / 255
        for change in changes:
            rgb = change(rgb)
        if phase.strange:
            rgb = torch.cat([rgb, strange(torch.from_numpy(draw(BATCH)).float() / 255)])
        L, ab = rgb_to_L_ab(rgb.clamp(0, 1))
        hints = [hints_of(ab, [draw_squares(SIZE, SIZE) for _ in ab])] if name == "hints" else []
        with autocast():
            ours = generator(L, *hints).float()
            taught = mean_of(networks, phase.teachers, L[:usual]) if phase.teachers else ab
            if phase.strange:  # on these images nothing else is right
                ab[usual:] = mean_of(networks, phase.strange, L[usual:])
                taught = torch.cat([taught, ab[usual:]])
        return ab_distance(ours, ab).lerp(ab_distance(ours, taught), phase.taught if phase.teachers else 0.0)

    return fit(name, phase, generator, _loss)


@torch.no_grad()
def settle(generator: nn.Module, draw: Callable) -> nn.Module:
    """Recompute the batch statistics of EMA weights on 384 photos; those of a frozen encoder stay as they are."""
    for norm in generator.train().modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.training:
            norm.reset_running_stats()
            norm.momentum = None
    with workspace.make_accelerator().autocast():
        for _ in range(12):
            generator(rgb_to_L_ab(squares_of(draw(32)).float() / 255)[0])
    return generator.eval()


def train_enlarger(folder: Path) -> None:
    """Train with L1 on pairs of small and large lightness, half of the batches small JPEG files, and fill the box."""
    read = (rgb_to_L_ab(to_tensor(read_rgb(path)))[0][0].half() for path in list_photos(folder))  # each (1, H, W)
    photos = [L for L in read if min(L.shape[1:]) >= SMALLEST]
    patch = transforms.Compose([transforms.RandomCrop(PATCH), transforms.RandomHorizontalFlip()])
    network = SRResNet(8).to(memory_format=torch.channels_last)
    autocast = workspace.make_accelerator().autocast

    def _loss():
        L = torch.stack([patch(photos[i]) for i in torch.randint(len(photos), (BATCH,))]).float()
        small = bicubic((L + 1) / 2, 1 / SRResNet.scale).clamp(0, 1)
        small = compress(small, 50) if torch.rand(()) < 0.5 else small
        with autocast():
            output = network(small * 2 - 1)
        return F.l1_loss(output.float(), L)

    network = fit("enlarger", ENLARGER, network, _loss)
    save_network(BOX / "superres.safetensors", network, Config(profile="laptop", run="in the box"), half=True)


def train_box(folder: Path) -> None:
    """Train all phases of the colorizer and fill the box."""
    photos, sources = pack(folder)
    numbers, training = divide(sources)
    validation, networks = squares_of(photos[numbers]), {}
    cfg = Config(
        profile="laptop", run="in the box", size=SIZE, color_loss="ab distance", batch_size=BATCH,
        data_source="folder", n_photos=len(training),
        encoder="tf_efficientnet_lite0", freeze_encoder=True, bottleneck="identity",
    )  # fmt: skip
    for name, phase in PHASES.items():
        chance = chances(sources[training], phase)

        def _draw(count, chance=chance):
            return photos[np.random.choice(training, count, p=chance)]

        generator = copy.deepcopy(networks[phase.start]) if phase.start else Generator(**cfg.generator())
        if name == "hints":
            generator = with_hints(generator, squares_of(photos[training[::8]]))
        trained = train(name, networks, generator, _draw)
        networks[name] = trained if name == "hints" else settle(trained, _draw)
        curve = frontier(networks[name].eval(), validation)
        over, share = curve["PSNR"][1.0] - curve["PSNR"][0.0], curve["of truth"][1.0]
        print(f"validation: {over:+.2f} dB over gray at {share:.0%} of the truth's colors")
        if name == "general":
            networks["beyond"] = beyond(networks["colors"], networks["general"])
    BOX.mkdir(exist_ok=True)
    save_network(BOX / "warmup.safetensors", networks["hints"], cfg, half=True)
    (BOX / "warmup.json").write_text(json.dumps({**asdict(cfg), "start": "box"}, indent=1))


if __name__ == "__main__":
    *flags, folder = sys.argv[1:]
    torch.manual_seed(0)
    np.random.seed(0)
    (train_enlarger if "--enlarger" in flags else train_box)(Path(folder))
