"""Trains the model in the box: `make box PHOTOS=folder`. Run it again to continue.

PHOTOS holds a folder for each source of photos. Sources are balanced, and each has validation photos of its own.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import kornia.augmentation as K
import numpy as np
import torch
from tools.paste import paste
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from helpers import workspace
from helpers.config import Config
from helpers.data.photos import center_square, list_photos, read_rgb
from helpers.evaluation import metrics
from helpers.models.generator import Generator
from helpers.runs import BOX, save_network
from helpers.training.losses import ab_distance
from helpers.training.tasks import Colorization, HintedColorization, with_hints

SIZE, PACKED = 128, 144  # pixels on a side: of a crop, of a photo in memory
VALIDATION = 15  # photos of each source with more than 60
BATCH = 16
STEPS = {"colors": 9_000, "hints": 1_000}
RATES, RISE = {"colors": 4e-4, "hints": 1e-3}, {"colors": 300, "hints": 100}
DECAY = 0.998  # of the EMA weights
TWICE = "landscapes"  # the source whose photos are drawn twice as often


def pack(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the center squares of all photos, uint8 (N, 3, PACKED, PACKED), and the name of each one's source."""

    def _square(path):
        try:
            rgb = read_rgb(path)
        except OSError as error:
            print(f"skipped: {error}")
            return None
        return center_square(rgb, PACKED, cv2.INTER_AREA if min(rgb.shape[:2]) > PACKED else cv2.INTER_LINEAR)

    paths = list_photos(folder)
    squares = list(tqdm(workspace.in_parallel(_square, paths), total=len(paths), desc="packing"))
    found = [(path, square) for path, square in zip(paths, squares, strict=True) if square is not None]
    sources = [path.relative_to(folder).parts[0] for path, _ in found]
    return np.ascontiguousarray(np.stack([square for _, square in found]).transpose(0, 3, 1, 2)), np.array(sources)


def divide(sources: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers of the validation photos, those of the training photos, and the chance to draw each of these.

    A photo's chance is 1 / sqrt(size of its source): large sources count more than small ones, but not in proportion.
    """
    random = np.random.RandomState(1)
    large = [name for name in sorted(set(sources)) if name != TWICE and (sources == name).sum() > 60]
    validation = np.concatenate([random.permutation(np.flatnonzero(sources == name))[:VALIDATION] for name in large])
    training = np.setdiff1d(np.arange(len(sources)), validation)
    sizes = {name: (sources[training] == name).sum() for name in set(sources[training])}
    weights = np.array([(1 + (name == TWICE)) * sizes[name] ** -0.5 for name in sources[training]])
    return validation, training, weights / weights.sum()


def squares_of(photos: np.ndarray) -> Tensor:
    """Return packed photos reduced to SIZE, uint8 (N, 3, SIZE, SIZE)."""
    small = [cv2.resize(photo.transpose(1, 2, 0), (SIZE, SIZE), interpolation=cv2.INTER_AREA) for photo in photos]
    return torch.from_numpy(np.stack(small).transpose(0, 3, 1, 2).copy())


def train(phase: str, generator: nn.Module, task: Colorization, augment: list[Callable], draw: Callable) -> nn.Module:
    """Train a phase with AdamW along a cosine, and return the EMA weights; continues at its last checkpoint.

    draw(count): returns that many training photos, uint8 (N, 3, PACKED, PACKED).
    """
    steps, rise, file = STEPS[phase], RISE[phase], workspace.folder("box") / f"{phase}.pt"
    generator = generator.to(memory_format=torch.channels_last).train()
    parameters = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, RATES[phase], betas=(0.5, 0.999), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / rise) * (0.5 + 0.5 * math.cos(math.pi * min(1, step / steps)))
    )
    ema = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    parts, first = {"network": generator, "optimizer": optimizer, "schedule": schedule, "ema": ema}, 0
    if file.exists():
        state = torch.load(file, weights_only=True)
        first = state.pop("step")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    accelerator = workspace.make_accelerator()
    for step in tqdm(range(first, steps), phase, steps, initial=first):
        rgb = torch.from_numpy(draw(BATCH)).float() / 255
        for transform in augment:
            rgb = transform(rgb)
        batch = task.batch(rgb.clamp(0, 1))
        with accelerator.autocast():
            output = generator(*task.inputs(batch))
        loss = ab_distance(task.prediction(batch, output))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        ema.update_parameters(generator)
        if (step + 1) % 500 == 0 or step + 1 == steps:
            torch.save({name: part.state_dict() for name, part in parts.items()} | {"step": step + 1}, file)
    return ema.module


@torch.no_grad()
def settle(generator: nn.Module, draw: Callable) -> nn.Module:
    """Recompute the batch statistics of EMA weights on 384 photos; those of a frozen encoder stay as they are."""
    for norm in generator.train().modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.training:
            norm.reset_running_stats()
            norm.momentum = None
    with workspace.make_accelerator().autocast():
        for _ in range(12):
            generator(Colorization().batch(squares_of(draw(32)).float() / 255).L)
    return generator.eval()


def report(generator: nn.Module, photos: Tensor) -> None:
    """Print the gain over gray and the colorfulness on validation photos."""
    table = metrics.measure_all(metrics.colorize_all(generator, photos), photos, with_ssim=False)
    gray = metrics.measure_all(metrics.colorize_all(metrics.gray, photos), photos, with_ssim=False)
    share = table["colorfulness"].mean() / table["truth"].mean()
    print(f"validation: {(table['PSNR'] - gray['PSNR']).mean():+.2f} dB over gray at {share:.0%} of the truth's colors")


def main(folder: Path) -> None:
    """Train both phases and fill the box."""
    torch.manual_seed(0)
    np.random.seed(0)
    photos, sources = pack(folder)
    validation, training, chances = divide(sources)
    held_out = squares_of(photos[validation])

    def _draw(count):
        return photos[np.random.choice(training, count, p=chances)]

    network = {"encoder": "tf_efficientnet_lite0", "freeze_encoder": True, "bottleneck": "identity"}
    cfg = Config(
        profile="laptop", run="in the box", size=SIZE, color_loss="ab distance", batch_size=BATCH,
        data_source="folder", n_photos=len(training), **network,
    )  # fmt: skip
    crops = [
        K.RandomHorizontalFlip(p=0.5),
        K.RandomResizedCrop((SIZE, SIZE), scale=(0.7, 1.0), ratio=(1.0, 1.0), p=1.0),
    ]
    plain = train("colors", Generator(**cfg.generator()), Colorization(), crops, _draw)
    report(settle(plain, _draw), held_out)
    hinted = with_hints(plain, squares_of(photos[training[::8]]))
    hinted = train("hints", hinted, HintedColorization(), [*crops, *[paste] * 4], _draw).eval()
    report(hinted, held_out)
    BOX.mkdir(exist_ok=True)
    save_network(BOX / "warmup.safetensors", hinted, cfg, half=True)
    (BOX / "warmup.json").write_text(json.dumps({**asdict(cfg), "start": "box"}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the model in the box on a folder of photos.")
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="a folder for each source of varied color photos")
    main(parser.parse_args().photos)
