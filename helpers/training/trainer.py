"""The trainer of every phase: it calls a step, a function of a notebook's cell, and looks after the rest."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import extract_model_from_parallel, gather_object
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm.auto import tqdm

from helpers.config import Config
from helpers.data.batches import Batches
from helpers.data.dataset import PhotoSet
from helpers.files import locked
from helpers.runs import Run
from helpers.training import checkpoint
from helpers.training.monitoring import epoch_means, refuse_bad_numbers, report, stop_button

AGREE = 20  # steps after which several processes ask each other whether to write a checkpoint, or stop
STATE = ("fingerprint", "epoch", "best", "finished", "logs", "columns")


def descend(loss: Tensor, network: nn.Module, optimizer: Optimizer, clip_norm: float = 1.0) -> Tensor:
    """Take one step down the gradient of a loss, clipped to a norm; return its norm before clipping.

    network, optimizer: as `accelerator.prepare` returns them.
    """
    scaler = optimizer.scaler or torch.amp.GradScaler(enabled=False)  # in fp16, small gradients would become 0
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer.optimizer)
    norm = nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
    optimizer.step()
    return norm


@contextmanager
def frozen(network: nn.Module) -> Iterator[nn.Module]:
    """Freeze a network for a `with` block: gradients flow through it, and it collects none.

    Yields it without the wrapper that shares gradients among several processes. What was frozen before stays frozen.
    """
    learning = nn.ParameterList(p for p in network.parameters() if p.requires_grad).requires_grad_(False)
    try:
        yield extract_model_from_parallel(network)
    finally:
        learning.requires_grad_(True)


@dataclass(eq=False, repr=False)
class Trainer:
    """Call a step for every batch of every epoch, with learning rates, EMA, validation, tables and checkpoints.

    `fit` saves the weights of the last epoch, or with keep="best" those of the epoch with the lowest validation L1.
    Raises ValueError if an epoch has too few batches for one step.
    """

    phase: str  # names the run's files: a key of `runs.MADE_BY`
    cfg: Config
    accelerator: Accelerator
    photos: PhotoSet  # a prepared set; its list of photos is saved with the run
    batches: Batches  # of the training photos
    step: Callable[..., dict[str, Tensor | float]]  # learns from a batch; returns values to log and plot
    validate: Callable[[nn.Module], tuple[Tensor, pd.DataFrame]]  # photos to show, and metrics: a row per photo
    networks: dict[str, tuple[nn.Module, Optimizer]]  # prepared; the first network is validated and saved
    _: KW_ONLY
    epochs: int
    lr_warmup_steps: int = 0  # steps over which all learning rates rise at first
    batches_per_step: int = 1  # the step is called with so many batches
    keep: str = "last"  # the epoch whose weights are saved: "last", or "best"
    patience: int | None = None  # epochs without a better validation L1 before it stops early
    burn_in: int = 0  # epochs at the beginning that count neither as the best one nor for patience
    start: str = ""  # name of the run whose network is trained on

    def __post_init__(self):
        self.accelerator.free_memory()  # it remembers all networks that it has prepared, those of earlier cells too
        self.run = Run(self.cfg.run)
        self.file = self.run.file(self.phase, "_checkpoint")
        self.optimizers = [optimizer for _, optimizer in self.networks.values()]
        self.unwrapped = {name: extract_model_from_parallel(network) for name, (network, _) in self.networks.items()}
        self.generator = next(iter(self.unwrapped.values()))
        self.ema = deepcopy(self.generator) if self.cfg.ema_decay else None
        for network in self.unwrapped.values() if self.cfg.compile else ():
            network.compile()
        self.epoch_steps = len(self.batches) // self.batches_per_step
        if not self.epoch_steps:
            raise ValueError(f"batches_per_step={self.batches_per_step}, but an epoch has only {len(self.batches)}.")
        self.epoch, self.best, self.finished, self.logs, self.columns = 1, 0, False, [], []
        self.history, self.steps, self.pending = pd.DataFrame(), pd.DataFrame(), None

    def fit(self, show: Callable[["Trainer"], Any] = lambda trainer: None, restart: bool = False) -> pd.DataFrame:
        """Train all epochs, or until early stopping; `show(trainer)` is called after each. Returns the history.

        An interrupted run is resumed, a finished one is shown; restart=True archives it and starts over. Raises
        ValueError if the run was begun with other settings, RuntimeError if the networks have already been trained,
        BlockingIOError if another program trains the run, OSError if the disk is full, FloatingPointError if a loss
        is NaN or infinite.
        """
        main = self.accelerator.is_main_process
        show = show if main else (lambda trainer: None)
        with locked(self.run.path) if main else nullcontext(), stop_button() as self.stop:
            self._begin(restart)
            self.saved, shown = time.monotonic(), not self.finished
            while not self.finished:
                self._run_epoch()
                show(self)
            self.run.load(self.phase, into=self.final_generator())  # the best epoch is not always the last one
            if not shown:
                self.accelerator.print(f"{self.phase} of {self.run.name!r} is finished; fit(restart=True) starts over")
                self._measure()
                show(self)
        return self.history

    def _begin(self, restart: bool) -> None:
        """Load the checkpoint if there is one; else begin, and archive an earlier training."""
        self.fingerprint = gather_object([checkpoint.fingerprint(self)])[0]  # now: a file may change while it trains
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        state = None if restart else checkpoint.load(self.file, self.fingerprint, self.run.name)
        self.accelerator.wait_for_everyone()  # until all have read it
        if state:
            self.load_state_dict(state)
        elif any("initial_lr" in group for group in groups):  # set below, by an earlier `fit`
            raise RuntimeError("These networks have been trained: run the cells that make them and the Trainer again.")
        else:
            self.batches.random.manual_seed(self.batches.random.initial_seed())  # of batches that were used before
            self.batches.skip = 0
            if self.accelerator.is_main_process:
                self.run.begin(self.phase, self.cfg, self.photos, self.start)
        for group in groups:
            group.setdefault("initial_lr", group["lr"])
        if state and not self.finished:
            where = f"{self.phase} epoch {self.epoch}/{self.epochs}, after step {len(self.logs)}"
            self.accelerator.print(f"resumed: continuing with {where}")

    def _run_epoch(self) -> None:
        """Train for an epoch, validate, log, and remember the weights to save."""
        begun, steps = time.perf_counter(), self.train_epoch()
        if self.ema is not None:
            self.update_batch_norms()
        row = {"epoch": self.epoch, **epoch_means(steps), **self._measure()}
        row["seconds"] = time.perf_counter() - begun
        self.history = pd.concat([self.history, pd.DataFrame([row])], ignore_index=True)
        self.steps = pd.concat([self.steps, steps], ignore_index=True)
        judged = self.history["val L1"].iloc[min(self.burn_in, self.epoch - 1) :]
        self.best = int(judged.idxmin()) + 1
        if self.keep == "last" or self.best == self.epoch:
            self.pending = deepcopy(self.final_generator()).cpu()  # written with the next checkpoint
        stopped = self.epoch - self.best >= (self.patience or math.inf)
        self.epoch, self.finished = self.epoch + 1, stopped or self.epoch == self.epochs
        if self.accelerator.is_main_process:
            self.run.log(self.phase, self.history, self.steps)
            report(self.phase, self.epochs, row)
            if stopped:
                print(f"stopped early: no better validation L1 for {self.patience} epochs")
        if self.finished:
            self.save()

    def train_epoch(self) -> pd.DataFrame:
        """Train on all photos, or on those left of a resumed epoch; return the logged values, a row per step."""
        for network, _ in self.networks.values():
            network.train()
        groups = zip(*[iter(self.batches)] * self.batches_per_step, strict=False)
        title, quiet = f"{self.phase} epoch {self.epoch}/{self.epochs}", not self.accelerator.is_main_process
        for batches in tqdm(groups, title, self.epoch_steps, leave=False, disable=quiet, initial=len(self.logs)):
            done = (self.epoch - 1) * self.epoch_steps + len(self.logs)
            self._set_rates(done)
            try:
                log = self.step(*batches)
            except torch.OutOfMemoryError as error:
                less = max(1, self.batches.batch_size // 2)
                raise RuntimeError(f"The GPU's memory is full. Restart the kernel, try batch_size={less}.") from error
            if not isinstance(log, dict):
                raise TypeError(f"The step must return a dict of the values to log and plot, and not {log!r}.")
            if self.ema is not None:  # the first step's weights are copied
                average = get_ema_multi_avg_fn(self.cfg.ema_decay if done else 0.0)
                average([*self.ema.parameters()], [*self.generator.parameters()], None)
            self.columns = list(log)
            values = [torch.as_tensor(x, dtype=torch.float32, device=self.accelerator.device) for x in log.values()]
            self.logs.append(torch.stack(values).detach())
            self._save_or_stop()
        table, self.logs = self._table(), []
        return table.assign(epoch=self.epoch)

    def _set_rates(self, done: int) -> None:
        """Set the learning rates of the step after `done` steps: they rise at first, and with "cosine" fall to zero."""
        share = min(1, (done + 1) / (self.lr_warmup_steps + 1))
        if self.cfg.schedule == "cosine":
            share *= 0.5 + 0.5 * math.cos(math.pi * done / (self.epochs * self.epoch_steps))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * share

    def _save_or_stop(self) -> None:
        """Write a checkpoint when it is due; stop if asked to. Several processes decide together."""
        if self.accelerator.num_processes > 1 and len(self.logs) % AGREE:
            return
        due = time.monotonic() - self.saved > 60 * self.cfg.checkpoint_minutes
        stop, due = map(any, zip(*gather_object([(self.stop.is_set(), due)]), strict=True))
        if stop or due:
            self.save()
        if stop:
            where = f"epoch {self.epoch} of {self.epochs}, after step {len(self.logs)} of {self.epoch_steps}"
            self.accelerator.print(f"stopped in {where}; everything is saved. To continue, run this again.")
            raise KeyboardInterrupt

    def _table(self) -> pd.DataFrame:
        """Return the epoch's logged values so far, means over the processes; raises as `refuse_bad_numbers`."""
        self.logs = [*self.accelerator.reduce(torch.stack(self.logs), "mean")]
        table = pd.DataFrame(torch.stack(self.logs).cpu().double().numpy(), columns=self.columns)
        refuse_bad_numbers(table, len(self.steps))
        return table

    @torch.no_grad()
    def update_batch_norms(self) -> None:
        """Recompute the batch statistics of the EMA weights: weights can be averaged, statistics cannot.

        On photos without augmentation, in large batches, because small ones underestimate variance (Izmailov et al.
        2018, arXiv 1803.05407).
        """
        for ours, theirs in zip(self.ema.buffers(), self.generator.buffers(), strict=True):
            ours.copy_(theirs)
        norms = [norm for norm in self.ema.train().modules() if isinstance(norm, nn.BatchNorm2d) and norm.training]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over all batches
        for batch in Batches(self.photos.load("train", 256), 32, self.accelerator.device) if norms else ():
            self.ema(batch.L)

    def final_generator(self) -> nn.Module:
        """Return the network that is saved, in evaluation mode: the EMA weights if `cfg.ema_decay` is set.

        Before `fit` has ended these are the weights of the last epoch.
        """
        return (self.generator if self.ema is None else self.ema).eval()

    @torch.no_grad()
    def _measure(self) -> dict[str, float]:
        """Return the validation metrics of the weights that will be saved, and of the raw ones beside EMA weights."""
        self.validated, table = self.validate(self.final_generator())
        tables = {"": table} | ({" raw": self.validate(self.generator.eval())[1]} if self.ema is not None else {})
        row = {}
        for ending, table in tables.items():
            means = pd.concat(gather_object([table])).mean()  # each process measured its own photos
            row |= {f"val {name}{ending}": value for name, value in means.items()}
        return row

    def save(self) -> None:
        """Write the weights to use and a checkpoint to resume from; every process must call this."""
        if self.logs:
            self._table()  # refuses to save a state that is not sound
        if self.pending is not None and self.accelerator.is_main_process:
            self.run.save(self.phase, self.pending, self.cfg)
        self.pending, state = None, self.state_dict()
        if self.accelerator.is_main_process:
            checkpoint.write(self.file, state)
        self.accelerator.wait_for_everyone()
        self.saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs to continue; every process must call this."""
        state = {name: getattr(self, name) for name in STATE}
        state |= {name: getattr(self, name).to_dict("list") for name in ("history", "steps")}
        state["order"] = self.batches.order_of_epoch if self.logs else self.batches.random.get_state()
        state["random"] = gather_object([checkpoint.random_states()])
        return state | {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        vars(self).update({name: state[name] for name in STATE})
        vars(self).update({name: pd.DataFrame(state[name]) for name in ("history", "steps")})
        self.logs = [log.to(self.accelerator.device) for log in self.logs]
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.batches.random.set_state(state["order"])
        self.batches.skip = len(self.logs) * self.batches_per_step
        checkpoint.set_random_states(state["random"][self.accelerator.process_index])

    def _parts(self) -> dict[str, Any]:
        """Return all that has weights or moments; a finished training needs no moments, two thirds of the file."""
        parts = {**self.unwrapped, "EMA": self.ema, "scaler": self.accelerator.scaler}
        if not self.finished:
            parts |= {f"{name}'s optimizer": optimizer for name, (_, optimizer) in self.networks.items()}
        return {name: part for name, part in parts.items() if part is not None}
