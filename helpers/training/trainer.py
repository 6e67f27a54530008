"""The trainer of every phase, top to bottom: step, epoch, validation, fit, checkpoint."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from helpers.config import Config
from helpers.data.batches import Batch, Batches
from helpers.data.dataset import PhotoSet
from helpers.files import locked
from helpers.models.blocks import freeze_norms
from helpers.runs import Run
from helpers.training import checkpoint
from helpers.training.losses import LossTerm, Prediction, discriminator_terms, total_loss
from helpers.training.monitoring import epoch_means, refuse_bad_numbers, report, stop_button
from helpers.training.tasks import Colorization

AGREE = 20  # steps after which several processes ask each other whether to write a checkpoint, or stop


def adam(cfg: Config) -> Callable:
    """Return the report's optimizer as a function of parameters and learning rate; notebook 03 writes it out."""
    return lambda parameters, lr: torch.optim.Adam(parameters, lr, betas=(cfg.beta1, cfg.beta2), fused=True)


@dataclass(eq=False, repr=False)
class Trainer:
    """Train a generator; with a discriminator, against it.

    `fit` trains and saves the weights of the last epoch, or with a discriminator and `cfg.keep` "best" of the best one.
    """

    cfg: Config
    accelerator: Accelerator
    generator: nn.Module
    terms: list[LossTerm]  # the generator's loss
    photos: PhotoSet  # a prepared set
    augment: list[Callable] | None = None  # transforms of rgb (N, 3, H, W) in [0, 1]
    perceptual: nn.Module | None = None  # the `Perceptual` for validation
    discriminator: nn.Module | None = None
    _: KW_ONLY
    epochs: int
    lr: float
    d_lr: float | None = None  # None: lr
    rise: int = 0  # steps over which both rates rise at first
    n_critic: int = 1  # batches per step, of which all but the last train the discriminator alone
    patience: int | None = None  # epochs without improvement before it stops early
    d_terms: list[LossTerm] | None = None  # the discriminator's loss; None: the report's
    optimizer: Callable | None = None  # a function of parameters and learning rate; None: `adam`
    task: Colorization | None = None  # None: to colorize
    start: str = ""  # name of the run whose network is trained on

    def __post_init__(self):
        self.accelerator.free_memory()  # of an earlier trainer in this session
        self.accelerator._custom_objects.clear()
        self.optimizer, self.task = self.optimizer or adam(self.cfg), self.task or Colorization()
        self.d_terms = self.d_terms or (discriminator_terms() if self.discriminator else [])
        self.d_lr, self.patience = self.d_lr or self.lr, self.patience or math.inf
        self.phase = self.task.phase or ("adversarial" if self.discriminator else "warmup")
        self.run = Run(self.cfg.run)
        self.folder = self.run.file(self.phase, "_checkpoint")
        self._load_photos()
        self._prepare_networks()
        self.epoch, self.best, self.finished, self.logs, self.columns = 1, 0, False, [], []
        self.history, self.steps, self.pending = pd.DataFrame(), pd.DataFrame(), None

    def _load_photos(self) -> None:
        """Load this process's photos for training and validation, and those for the statistics of EMA weights."""
        cfg, device = self.cfg, self.accelerator.device
        rank, world_size = self.accelerator.process_index, self.accelerator.num_processes
        share = {"rank": rank, "world_size": world_size, "seed": cfg.seed, "make": self.task.batch}
        self.batches = Batches(self.photos.load("train", None), cfg.batch_size, device, self.augment or [], **share)
        self.validation = self.photos.load("validation", cfg.val_photos)[rank::world_size]
        self.settling = Batches(self.photos.load("train", 256), 32, device, make=self.task.batch)
        self.epoch_steps = len(self.batches) // self.n_critic
        if not self.epoch_steps:
            raise ValueError(f"n_critic={self.n_critic} needs more batches than an epoch has: {len(self.batches)}.")

    def _prepare_networks(self) -> None:
        """Put the networks on the device, each with its optimizer and schedule, and make the EMA copy."""
        cfg, device = self.cfg, self.accelerator.device
        self.raw_generator, self.raw_discriminator = self.generator, self.discriminator  # without accelerate's wrapper
        if cfg.freeze_norms:
            freeze_norms(self.generator)
        for network in filter(None, (self.generator, self.discriminator)):
            network.to(device, memory_format=torch.channels_last)
        average = get_ema_multi_avg_fn(cfg.ema_decay or 0)
        self.ema = AveragedModel(self.generator, multi_avg_fn=average) if cfg.ema_decay else None
        self.generator, self.g_optimizer, self.g_schedule = self._prepare(self.generator, self.lr, 1)
        self.d_schedule = None
        if self.discriminator:
            prepared = self._prepare(self.discriminator, self.d_lr, self.n_critic)
            self.discriminator, self.d_optimizer, self.d_schedule = prepared
        remembered = (self.g_schedule, self.ema, self.d_schedule, self)
        self.accelerator.register_for_checkpointing(*filter(None, remembered))

    def _prepare(self, network: nn.Module, lr: float, updates: int) -> tuple:
        """Return a network for this device, its optimizer and its schedule, with some updates per step."""
        optimizer, total = self.optimizer(network.parameters(), lr), self.epochs * self.epoch_steps * updates

        def _share(step):
            rise = min(1, (step + 1) / (self.rise + 1))
            return rise * (0.5 + 0.5 * math.cos(math.pi * step / total) if self.cfg.schedule == "cosine" else 1)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _share)
        for each in filter(None, (network, self.perceptual)) if self.cfg.compile else ():
            each.compile()
        return *self.accelerator.prepare(network, optimizer), schedule

    def training_step(self, *batches: Batch) -> dict[str, Tensor]:
        """Train the discriminator, then the generator, on one forward pass of a batch; return the values to log."""
        for batch in batches[:-1]:  # with n_critic > 1
            with torch.no_grad():
                output = self.generator(*self.task.inputs(batch))
            self.discriminator_step(self.task.prediction(batch, output))
        output = self.generator(*self.task.inputs(batches[-1]))  # ab (N, 2, H, W)
        networks = {"discriminator": self.raw_discriminator, "autocast": self.accelerator.autocast}
        prediction = self.task.prediction(batches[-1], output, **networks)
        log = self.discriminator_step(prediction) if self.discriminator else {}
        log |= self.generator_step(prediction)
        if self.ema:
            self.ema.update_parameters(self.raw_generator)
        return log

    def discriminator_step(self, prediction: Prediction) -> dict[str, Tensor]:
        """Update the discriminator on true and predicted colors; return the values to log."""
        prediction = prediction.detached(self.discriminator)
        loss, values = total_loss(self.d_terms, prediction)
        norm = self._descend(loss, self.discriminator, self.d_optimizer, self.d_schedule)
        real, fake = prediction.real_logits, prediction.fake_logits  # (N, 1, h, w): above 0 means "real"
        accuracy = {"D accuracy (real)": (real > 0).float().mean(), "D accuracy (fake)": (fake < 0).float().mean()}
        return {**values, **accuracy, "D gradient": norm}

    def generator_step(self, prediction: Prediction) -> dict[str, Tensor]:
        """Update the generator; return the values to log."""
        if self.discriminator:
            self.discriminator.requires_grad_(False)  # gradients flow through it, it does not collect any
        loss, values = total_loss(self.terms, prediction)
        norm = self._descend(loss, self.generator, self.g_optimizer, self.g_schedule)
        if self.discriminator:
            self.discriminator.requires_grad_(True)
        return {"G total": loss, **values, "G gradient": norm}

    def _descend(self, loss: Tensor, network: nn.Module, optimizer: Any, schedule: Any) -> Tensor:
        """Take a step along the gradient, clipped to `cfg.clip_norm`; return its norm before clipping."""
        optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.unscale_gradients(optimizer)  # only this network's; accelerate's own clipping unscales all
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), self.cfg.clip_norm)
        optimizer.step()
        schedule.step()
        return norm

    def train_epoch(self) -> pd.DataFrame:
        """Train on all photos, or on those left of a resumed epoch; return the logged values, a row per step."""
        for network in filter(None, (self.generator, self.discriminator)):
            network.train()
        groups = zip(*[iter(self.batches)] * self.n_critic, strict=False)
        title, quiet = f"{self.phase} epoch {self.epoch}/{self.epochs}", not self.accelerator.is_main_process
        for batches in tqdm(groups, title, self.epoch_steps, leave=False, disable=quiet, initial=len(self.logs)):
            try:
                log = self.training_step(*batches)
            except torch.OutOfMemoryError as error:
                less = max(1, self.cfg.batch_size // 2)
                raise RuntimeError(f"The GPU's memory is full. Restart the kernel, try batch_size={less}.") from error
            self.columns = list(log)
            self.logs.append(torch.stack([value.detach().float() for value in log.values()]))
            self._save_or_stop()
        table, self.logs = self._table(), []
        return table.assign(epoch=self.epoch)

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
    def settle(self) -> None:
        """Recompute the batch statistics of the EMA weights: weights can be averaged, statistics cannot.

        On photos without augmentation, in large batches, because small ones underestimate variance (Izmailov et al.
        2018, arXiv 1803.05407).
        """
        network = self.ema.module.train()
        norms = [norm for norm in network.modules() if isinstance(norm, nn.BatchNorm2d) and norm.training]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over all batches
        with self.accelerator.autocast():
            for batch in self.settling:
                network(*self.task.inputs(batch))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def final_generator(self) -> nn.Module:
        """Return the generator that will be saved, in evaluation mode: the EMA weights if `cfg.ema_decay` is set."""
        return (self.ema.module if self.ema else self.raw_generator).eval()

    def colorize(self, generator: nn.Module) -> Tensor:
        """Return the validation photos as a generator colorizes them, uint8 (N, 3, H, W)."""
        with self.accelerator.autocast():
            return self.task.outputs(generator.eval(), self.validation, self.accelerator.device)

    def validate(self) -> dict[str, float]:
        """Return the validation metrics of the weights that will be saved, and of the raw ones beside EMA weights."""
        self.validated = self.colorize(self.final_generator())
        candidates = [("", self.validated, self.perceptual)]
        if self.ema:
            candidates.append((" raw", self.colorize(self.raw_generator), None))
        row = {}
        for ending, outputs, perceptual in candidates:
            table = self.task.measure(outputs, self.validation, perceptual, self.accelerator.device)
            means = pd.concat(gather_object([table])).mean()  # each process measured its own photos
            row |= {f"val {name}{ending}": value for name, value in means.items() if name + ending != "truth raw"}
        return row

    def fit(self, show: Callable[["Trainer"], Any] = lambda trainer: None, restart: bool = False) -> pd.DataFrame:
        """Train all epochs, or until early stopping; `show(trainer)` is called after each. Returns the history.

        An interrupted run is resumed, a finished one is shown; restart=True archives it and starts over. Raises
        ValueError if the run was begun with other settings, BlockingIOError if another program trains it, OSError if
        the disk is full, FloatingPointError if a loss is NaN or infinite.
        """
        main = self.accelerator.is_main_process
        show = show if main else (lambda trainer: None)
        with locked(self.run.path) if main else nullcontext(), stop_button() as self.stop:
            self._resume(restart)
            self.saved = time.monotonic()
            if self.finished:
                self.accelerator.print(f"{self.phase} of {self.run.name!r} is finished; fit(restart=True) starts over")
                self.validated = self.colorize(self.final_generator())
                show(self)
            while not self.finished:
                self._run_epoch()
                show(self)
        return self.history

    def _run_epoch(self) -> None:
        """Train for an epoch, validate, log, and remember the weights to save."""
        begun, steps = time.perf_counter(), self.train_epoch()
        if self.ema:
            self.settle()
        row = {"epoch": self.epoch, **epoch_means(steps), **self.validate()}
        row["seconds"] = time.perf_counter() - begun
        self.history = pd.concat([self.history, pd.DataFrame([row])], ignore_index=True)
        self.steps = pd.concat([self.steps, steps], ignore_index=True)
        self.best = int(self.history[f"val {self.task.monitor}"].idxmin()) + 1
        if not self.discriminator or self.cfg.keep == "last" or self.best == self.epoch:
            self.pending = deepcopy(self.final_generator()).cpu()  # written with the next checkpoint
        stopped = self.epoch - self.best >= self.patience
        self.epoch, self.finished = self.epoch + 1, stopped or self.epoch == self.epochs
        if self.accelerator.is_main_process:
            self.run.log(self.phase, self.history, self.steps)
            report(self.phase, self.epochs, row)
            if stopped:
                print(f"stopped early: no better validation {self.task.monitor} for {self.patience} epochs")
        if self.finished:
            for optimizer in self.accelerator._optimizers:  # two thirds of a checkpoint, and Drive is small
                optimizer.state.clear()
            self.save()

    def _resume(self, restart: bool) -> None:
        """Load the checkpoint if there is one; else begin, and archive an earlier training."""
        if self not in self.accelerator._custom_objects:
            raise RuntimeError("A later Trainer has taken over this accelerator: build this Trainer again.")
        self.settings = checkpoint.settings_of(self)  # once: a source file may change during the training
        if self.accelerator.is_main_process:
            checkpoint.recover(self.folder)
        self.accelerator.wait_for_everyone()
        resumed = self.folder.exists() and not restart
        if resumed:
            checkpoint.load(self.folder, self.accelerator, self.settings, self.run.name)
        elif self.accelerator.is_main_process:
            self.run.begin(self.phase, self.cfg, self.photos, self.start)
        self.accelerator.wait_for_everyone()
        if resumed and not self.finished:
            where = f"{self.phase} epoch {self.epoch}/{self.epochs}, after step {len(self.logs)}"
            self.accelerator.print(f"resumed: continuing with {where}")

    def save(self) -> None:
        """Write the weights to use and a checkpoint to resume from; every process must call this."""
        if self.logs:
            self._table()  # refuses to save a state that is not sound
        if self.pending is not None and self.accelerator.is_main_process:
            self.run.save(self.phase, self.pending, self.cfg)
        self.pending = None
        checkpoint.write(self.folder, self.accelerator, self.settings)
        self.saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return the trainer's own state, for `accelerator.save_state`."""
        state = {name: getattr(self, name) for name in ("epoch", "best", "finished", "logs", "columns")}
        state |= {name: getattr(self, name).to_dict("list") for name in ("history", "steps")}
        state["random"] = torch.get_rng_state()
        return state | {"order": self.batches.order_of_epoch if self.logs else self.batches.random.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the trainer's own state, for `accelerator.load_state`."""
        vars(self).update({name: pd.DataFrame(state.pop(name)) for name in ("history", "steps")})
        order, random = state.pop("order"), state.pop("random")
        if self.accelerator.is_main_process and not torch.equal(random, torch.get_rng_state()):
            raise ValueError("its random states are missing or damaged")  # accelerate would only log it
        self.logs = [log.to(self.accelerator.device) for log in state.pop("logs")]
        vars(self).update(state)
        self.batches.random.set_state(order)
        self.batches.skip = len(self.logs) * self.n_critic
