"""What one of several processes does and sees while it trains; test_processes.py starts it and reads its JSON file."""

import hashlib
import json
import sys
from pathlib import Path

import torch

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))
torch.set_num_threads(1)

from helpers import workspace  # noqa: E402
from helpers.config import Config  # noqa: E402
from helpers.data import dataset  # noqa: E402
from helpers.models.discriminator import Discriminator  # noqa: E402
from helpers.models.generator import Generator  # noqa: E402
from helpers.runs import Run  # noqa: E402
from helpers.training import losses  # noqa: E402
from helpers.training.trainer import Trainer  # noqa: E402


def fingerprint(*networks):
    """A hash of all weights."""
    bits = b"".join(p.detach().numpy().tobytes() for network in networks for p in network.parameters())
    return hashlib.sha256(bits).hexdigest()


def main(out):
    """Train both phases of the smoke profile on numbered photos, and write down what happened."""
    opened = []
    sys.addaudithook(lambda event, args: opened.append(args) if event == "open" else None)
    cfg = Config.from_profile(precision="fp32", batch_size=4)
    accelerator = workspace.make_accelerator(cfg.precision)
    with accelerator.local_main_process_first():
        photos, perceptual = dataset.prepare(cfg), losses.Perceptual(None)
    opened.clear()
    saved, save = [], Run.save
    Run.save = lambda self, *args: (saved.append(args[0]), save(self, *args))
    workspace.seed_everything(cfg.seed + accelerator.process_index)
    result = {"phases": []}
    generator = Generator(**cfg.generator())
    for discriminator in (None, Discriminator()):
        terms = losses.generator_terms(cfg, perceptual)[0 if discriminator else 1 :]
        trainer = Trainer(cfg, accelerator, generator, terms, photos, [], perceptual, discriminator)
        numbers = {photo.numpy().tobytes(): i for i, photo in enumerate(photos.load("train"))}
        steps, step = [], trainer.training_step

        def watched(batch, step=step, steps=steps, trainer=trainer, numbers=numbers):
            log = step(batch)
            nets = [network for network in (trainer.raw_generator, trainer.raw_discriminator) if network]
            seen = [numbers[photo.numpy().tobytes()] for photo in (batch.rgb * 255).round().byte()]
            steps.append({"photos": seen, "weights": fingerprint(*nets)})
            return log

        trainer.training_step = watched
        history = trainer.fit()
        result["phases"].append({"steps": steps, "history": history.drop(columns="seconds").to_dict("list")})
    root = str(workspace.root())
    written = [str(path) for path, mode, flags in opened if str(path).startswith(root) and flags & 3]
    result |= {"written": written, "saved": saved}
    (Path(out) / f"process{accelerator.process_index}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
