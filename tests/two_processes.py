"""What one of two processes does and sees while it trains; test_processes.py starts it and reads its JSON file."""

import hashlib
import json
import os
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
torch.set_num_threads(1)

from tiny import tiny_trainer  # noqa: E402

from helpers import workspace  # noqa: E402
from helpers.config import Config  # noqa: E402
from helpers.training import trainer  # noqa: E402


def digest(networks):
    """Return a hash of all weights."""
    bits = b"".join(p.detach().numpy().tobytes() for network in networks for p in network.parameters())
    return hashlib.sha256(bits).hexdigest()


def train(run, accelerator, last_step=0, adversarial=False):
    """Train 4 steps in 2 epochs, die after `last_step` steps unless it is 0; return what was seen, and the history."""
    cfg = Config.from_profile(precision="fp32", batch_size=4, run=run, checkpoint_minutes=0.0)
    ours, steps = tiny_trainer(cfg, accelerator, adversarial, augment=False), []
    ours.batches.augment = []  # photos in a new order, as they are
    numbers = {photo.numpy().tobytes(): i for i, photo in enumerate(ours.photos.load("train"))}
    step = ours.step

    def _step(batch):
        if last_step and len(steps) == last_step:
            os._exit(1)
        log = step(batch)
        seen = [numbers[photo.numpy().tobytes()] for photo in (batch.rgb * 255).round().byte()]
        steps.append({"photos": seen, "weights": digest(ours.unwrapped.values())})
        return log

    _step.__module__ = "a library"  # so that what it watches is no setting of the run
    ours.step = _step
    history = ours.fit()
    return {"steps": steps, "history": history.drop(columns="seconds").to_dict("list")}


def main(out, last_step):
    """Train a warmup that dies, or goes on, and two that nobody stops; write down what happened."""
    opened, trainer.AGREE = [], 1  # they decide together after each step whether to write a checkpoint
    accelerator, root = workspace.make_accelerator("fp32"), str(workspace.root())
    sys.addaudithook(lambda event, args: opened.append(args) if event == "open" else None)
    result = {"resumed": train("broken", accelerator, last_step)}
    opened.clear()
    result |= {"warmup": train("whole", accelerator), "adversarial": train("whole", accelerator, adversarial=True)}
    written = [str(path) for path, mode, flags in opened if str(path).startswith(root) and flags & 3]
    (Path(out) / f"process{accelerator.process_index}.json").write_text(json.dumps(result | {"written": written}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
