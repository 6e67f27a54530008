"""One of two processes that train a warmup with frequent checkpoints, and may disappear after some steps."""

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
torch.set_num_threads(1)

from helpers.config import Config  # noqa: E402
from helpers.training import epoch, phases, step  # noqa: E402


def main(last_step):
    """Train; after `last_step` steps, unless it is 0, die without a word."""
    epoch.AGREE = 2
    take, taken = step.TrainingStep.training_step, []

    def training_step(self, batch):
        if last_step and len(taken) == last_step:
            os._exit(1)
        taken.append(1)
        return take(self, batch)

    step.TrainingStep.training_step = training_step
    attention = {"bottleneck": "attention", "attention_at": 8}  # the command's run has them too
    changes = attention | {"precision": "fp32", "batch_size": 2, "warmup_epochs": 1, "checkpoint_minutes": 0.0}
    phases.train(Config.from_profile(**changes), ["warmup"])


if __name__ == "__main__":
    main(int(sys.argv[1]))
