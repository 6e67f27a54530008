"""The trainer of every phase: epochs, validation, moving average, best model, early stopping, going on."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from helpers.config import Config
from helpers.data.batches import Batches
from helpers.data.dataset import PhotoSet
from helpers.models.blocks import freeze_norms
from helpers.runs.checkpoint import Checkpoints, refuse_another, restore
from helpers.runs.files import locked
from helpers.runs.fingerprint import fingerprint
from helpers.runs.run import Run
from helpers.runs.weights import refuse_what_cannot_return
from helpers.training.epoch import TrainingEpoch
from helpers.training.losses import LossTerm, discriminator_terms
from helpers.training.monitoring import EarlyStopping, StopRequest, epoch_means, report
from helpers.training.step import Colorization, adam


class Trainer(TrainingEpoch):
    """Train a generator; with a discriminator, against it.

    The phase is "warmup" without a discriminator, "adversarial" with one. `terms` is the generator's loss and
    `d_terms` the discriminator's (the report's if None), lists of `LossTerm`; `photos` a prepared `PhotoSet`;
    `augment` a list of transforms of rgb (N, 3, H, W) in [0, 1]; `perceptual` the `Perceptual` that validation measures
    LPIPS with. `start` names the run whose warmup this goes on from. `optimizer(parameters, lr)` makes both optimizers;
    `task` says what goes in and what comes out. After every epoch `history` and `steps` are on disk; the generator that
    is saved has the EMA weights if `cfg.ema_decay` is set. Warmup keeps the last epoch; see `cfg.keep`.

    Raises TypeError for a generator that a file of weights could not bring back, before anything is trained.
    """

    def __init__(
        self,
        cfg: Config,
        accelerator: Accelerator,
        generator: nn.Module,
        terms: list[LossTerm],
        photos: PhotoSet,
        augment: list[Callable],
        perceptual: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        *,
        start: str | None = None,
        d_terms: list[LossTerm] | None = None,
        optimizer: Callable | None = None,
        task: Colorization | None = None,
    ):
        refuse_what_cannot_return(generator)
        accelerator.free_memory()  # what an earlier trainer of this session left on the device
        self.cfg, self.accelerator, self.terms, self.perceptual = cfg, accelerator, terms, perceptual
        self.discriminator_terms = d_terms or (discriminator_terms() if discriminator else [])
        self.make_optimizer, self.task = optimizer or adam(cfg), task or Colorization()
        self.phase = getattr(self.task, "phase", "") or ("adversarial" if discriminator else "warmup")
        self.run, self.photos, self.start = Run(cfg.run), photos, start
        self._load_photos(augment or [])
        self.epochs = getattr(cfg, f"{self.phase}_epochs")
        self._prepare_networks(generator, discriminator)
        self.stopper, self.history, self.steps = EarlyStopping(cfg.patience), pd.DataFrame(), pd.DataFrame()
        self.epoch, self.logs, self.columns, self.seconds = 1, [], [], 0.0  # where it stands
        self.checkpoints, self.request = Checkpoints(self.run, self.phase), None
        self.fingerprint = fingerprint(self)

    def _prepare_networks(self, generator: nn.Module, discriminator: nn.Module | None) -> None:
        """Put the networks on the device, each with its optimizer and schedule; EMA weights follow the generator's."""
        cfg, accelerator = self.cfg, self.accelerator
        if cfg.freeze_norms:
            freeze_norms(generator)
        self.ema = None
        if cfg.ema_decay is not None:
            generator = generator.to(accelerator.device, memory_format=torch.channels_last)
            self.ema = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(cfg.ema_decay))
        steps, rate = self.epochs * self.epoch_steps, getattr(cfg, f"{self.phase}_lr")
        self.generator, self.g_optimizer, self.g_schedule = self._prepare(generator, rate, steps)
        self.raw_generator = accelerator.unwrap_model(self.generator)  # without what several processes wrap around it
        self.discriminator = self.raw_discriminator = None
        if discriminator:
            prepared = self._prepare(discriminator, cfg.discriminator_lr or rate, steps * self.n_critic)
            self.discriminator, self.d_optimizer, self.d_schedule = prepared
            self.raw_discriminator = accelerator.unwrap_model(self.discriminator)

    def _load_photos(self, augment: list[Callable]) -> None:
        """Open the photos that this process trains on, validates on, and measures batch statistics with."""
        cfg, rank, world_size = self.cfg, self.accelerator.process_index, self.accelerator.num_processes
        train, device = self.photos.open("train", cfg.memory_gb), self.accelerator.device
        options = {"rank": rank, "world_size": world_size, "seed": cfg.seed, "make": self.task.batch}
        self.batches = Batches(train, cfg.batch_size, device, augment, **options)
        self.validation = self.photos.load("validation", cfg.val_photos)[rank::world_size]
        self.settling = Batches(self.photos.load("train", 256), 32, device, make=self.task.batch)
        self.n_critic = cfg.n_critic if self.phase == "adversarial" else 1
        self.epoch_steps = len(self.batches) // self.n_critic
        if not self.epoch_steps:
            raise ValueError(f"n_critic={cfg.n_critic} wants more batches than an epoch has: {len(self.batches)}.")

    def final_generator(self) -> nn.Module:
        """Return the generator that the user will get: with EMA weights if `cfg.ema_decay` is set; evaluation mode."""
        return (self.ema.module if self.ema else self.raw_generator).eval()

    def colorize(self, generator: nn.Module, photos: Tensor) -> Tensor:
        """Colorize uint8 photos (N, 3, H, W) with a generator in the accelerator's precision; same shape and type."""
        with self.accelerator.autocast():
            return self.task.outputs(generator.eval(), photos, self.accelerator.device)

    def validate(self) -> dict[str, float]:
        """Return the validation metrics of the weights that will be saved, and with EMA weights of the raw ones too."""
        if self.request:
            self.heartbeat()
        self.validated = self.colorize(self.final_generator(), self.validation)
        row = {f"val {name}": value for name, value in self._means(self.validated, self.perceptual).items()}
        if self.ema:
            means = self._means(self.colorize(self.raw_generator, self.validation)).drop("truth", errors="ignore")
            row |= {f"val {name} raw": value for name, value in means.items()}
        return row

    def _means(self, outputs: Tensor, perceptual: nn.Module | None = None) -> pd.Series:
        """Return the mean metrics of the validation photos, each process having measured its own."""
        table = self.task.measure(outputs, self.validation, perceptual, self.accelerator.device)
        return pd.concat(gather_object([table])).mean()

    def fit(self, show: Callable[["Trainer"], Any] | None = None, restart: bool = False) -> pd.DataFrame:
        """Train all epochs, or until early stopping; `show(trainer)` is called after each. Returns the history.

        An earlier call of the same run is resumed or, if it was finished, shown; `restart` archives it and starts over.
        Raises ValueError when the run was begun with other settings, BlockingIOError when another program trains it,
        OSError when the disk is full, FloatingPointError when a loss is no number any more.
        """
        lock = locked(self.run.path) if self.accelerator.is_main_process else nullcontext(lambda: None)
        with lock as self.heartbeat, StopRequest() as self.request:
            if self._begin(restart):
                name = self.run.name
                print(f"run {name!r} has finished its {self.phase}: shown as it was. To start over: restart=True.")
                self.validated = self.colorize(self.final_generator(), self.validation)
                if show:
                    show(self)
            else:
                self._train(show)
        self.request = None
        return self.history

    def _begin(self, restart: bool) -> bool:
        """Start a run, or put the trainer where it stopped; return whether it was finished."""
        state = None if restart else self.checkpoints.latest()
        self.saved = time.monotonic()
        if state is None:
            if self.accelerator.is_main_process:
                self.run.begin(self.phase, self.cfg, self.photos, self.start)
            self.accelerator.wait_for_everyone()
            return False
        refuse_another(self.run.name, state, self.fingerprint)
        restore(self, state)
        if not state["finished"]:
            where = f"{self.phase} epoch {self.epoch}/{self.epochs}, after step {len(self.logs)}"
            self.accelerator.print(f"resumed: going on with {where}")
        return state["finished"]

    def _train(self, show: Callable[["Trainer"], Any] | None) -> None:
        """Train the epochs that are left; after each, keep what is worth keeping."""
        while not self._is_over():
            row, is_best = self._epoch(self.epoch)
            if self.accelerator.is_main_process:
                if is_best or not self.discriminator or self.cfg.keep == "last":
                    self.run.save(self.phase, self.final_generator(), self.cfg)
                self.run.log(self.phase, self.history, self.steps)
                report(self.phase, self.epochs, row)
                if show:
                    show(self)
            (due,) = self._any(self._is_due())
            if due or self._is_over() or (is_best and self.discriminator):  # with the best model, the state it is from
                self.checkpoint(finished=self._is_over())
        if self.epoch <= self.epochs:
            self.accelerator.print(f"stopped early: no better validation L1 for {self.cfg.patience} epochs")
        self.accelerator.wait_for_everyone()

    def _is_over(self) -> bool:
        """Say whether all epochs are done, or early stopping has ended the adversarial phase."""
        return self.epoch > self.epochs or bool(self.discriminator and self.stopper.should_stop)

    def _epoch(self, epoch: int) -> tuple[dict[str, float], bool]:
        """Train for an epoch and validate; return its row of the history, and whether it is the best so far."""
        self.started = time.perf_counter() - self.seconds
        steps = self.train_epoch(epoch)
        if self.ema:
            self.settle(self.ema.module)
        row = {"epoch": epoch, **epoch_means(steps), **self.validate()}
        row["seconds"] = time.perf_counter() - self.started
        self.history = pd.concat([self.history, pd.DataFrame([row])], ignore_index=True)
        self.steps = pd.concat([self.steps, steps], ignore_index=True)
        self.epoch, self.seconds = epoch + 1, 0.0
        return row, self.stopper.update(epoch, row[f"val {self.task.monitor}"])
