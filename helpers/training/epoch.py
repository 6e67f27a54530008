"""An epoch of training: its steps, what is logged of them, and the checkpoints within it."""

import time

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from helpers.runs.checkpoint import state_of
from helpers.training.monitoring import refuse_bad_numbers
from helpers.training.step import TrainingStep

AGREE = 20  # steps after which several processes ask each other whether to write a checkpoint, or stop


class TrainingEpoch(TrainingStep):
    """What every phase does with the photos of an epoch: the part of `trainer.Trainer` that counts and keeps."""

    def train_epoch(self, epoch: int) -> pd.DataFrame:
        """Go once through the training photos, or through what is left of them; return the values of its steps."""
        for network in filter(None, (self.generator, self.discriminator)):
            network.train()
        title, quiet = f"{self.phase} epoch {epoch}/{self.epochs}", not self.accelerator.is_main_process
        groups = zip(*[iter(self.batches)] * self.n_critic, strict=False)  # n_critic batches for each step
        for batches in tqdm(groups, title, self.epoch_steps, leave=False, disable=quiet, initial=len(self.logs)):
            log = self._step_that_fits(batches)
            self.columns = list(log)
            self.logs.append(torch.stack([value.detach().float() for value in log.values()]))
            self._after_step()
        table = self._logged(self.accelerator.reduce(torch.stack(self.logs), "mean"))  # over the processes
        table.insert(0, "epoch", epoch)
        self.logs = []
        return table

    def _logged(self, values: Tensor) -> pd.DataFrame:
        """Return logged values (steps, columns) as a table; raises FloatingPointError for a loss that is no number.

        To be called seldom: reading values makes a GPU wait.
        """
        table = pd.DataFrame(values.cpu().double().numpy(), columns=self.columns)
        refuse_bad_numbers(table, len(self.steps), self.checkpoints.folder)
        return table

    def _step_that_fits(self, batches: tuple) -> dict[str, Tensor]:
        """Take a training step; raises RuntimeError with a batch size to try when memory does not suffice."""
        try:
            return self.training_step(*batches)
        except torch.OutOfMemoryError as error:
            size = self.cfg.batch_size
            raise RuntimeError(
                f"The GPU's memory does not hold batch_size={size} at {self.cfg.size} px. Restart the kernel, to free "
                f"the memory, and try batch_size={max(1, size // 2)} or a smaller size. ({error})"
            ) from error

    def _after_step(self) -> None:
        """Write a checkpoint when it is time for one; stop in good order when that was asked for."""
        several = self.accelerator.num_processes > 1
        if self.request is None or (several and len(self.logs) % AGREE):
            return
        self.heartbeat()
        asked, due = self._any(self.request.asked, self._is_due())
        if asked or due:
            self.checkpoint()
        if asked:
            where = f"epoch {self.epoch} of {self.epochs}, after step {len(self.logs)} of {self.epoch_steps}"
            self.accelerator.print(f"stopped in {where}; all of it is kept. To go on, run this again.")
            raise KeyboardInterrupt

    def _is_due(self) -> bool:
        """Say whether the last checkpoint is as old as the configuration allows."""
        return time.monotonic() - self.saved > 60 * self.cfg.checkpoint_minutes

    def _any(self, *answers: bool) -> tuple | list:
        """Return for each answer whether any of the processes gave it: all of them have to do the same."""
        if self.accelerator.num_processes == 1:
            return answers
        votes = torch.tensor(answers, dtype=torch.float32, device=self.accelerator.device)
        return self.accelerator.reduce(votes, "sum").bool().tolist()

    def checkpoint(self, finished: bool = False) -> None:
        """Write all that is needed to go on from here, if it is sound; every process has to call this."""
        if self.logs:
            values = self.accelerator.reduce(torch.stack(self.logs), "mean")  # over the processes
            self._logged(values)
            self.logs = [*values]
            self.seconds = time.perf_counter() - self.started
        state = state_of(self, finished)
        if self.accelerator.is_main_process:
            self.checkpoints.save(state)
        self.saved = time.monotonic()
