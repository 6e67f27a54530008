"""The trainer of every phase, top to bottom: step, epoch, validation, fit, checkpoint."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from hashlib import sha256
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
from helpers.training.monitoring import StopRequest, epoch_means, out_of_memory, refuse_bad_numbers, report
from helpers.training.tasks import Colorization

MATTERS = ("seed", "precision", "batch_size", "schedule", "clip_norm", "ema_decay", "freeze_norms", "keep")
MATTERS += ("encoder_weights", "val_photos", "beta1", "beta2")
AGREE = 20  # steps after which several processes ask each other whether to write a checkpoint, or stop


def adam(cfg: Config) -> Callable:
    """Return the report's optimizer as a function of parameters and learning rate; notebook 03 writes it out."""
    return lambda parameters, lr: torch.optim.Adam(parameters, lr, betas=(cfg.beta1, cfg.beta2), fused=True)


class Trainer:
    """Train a generator; with a discriminator, against it.

    terms, d_terms: the losses of both networks as lists of `LossTerm` (d_terms=None: the report's). photos: a prepared
    `PhotoSet`. augment: transforms of rgb (N, 3, H, W) in [0, 1]. perceptual: the `Perceptual` for validation. lr,
    d_lr: learning rates (d_lr=None: lr); rise: steps over which they rise at first. n_critic: batches per step of which
    all but the last train the discriminator alone. patience: epochs without improvement before it stops early.
    optimizer: a function of parameters and learning rate. task: see `Colorization`. start: name of the run whose
    network is trained on. `fit` saves the last epoch, or with `cfg.keep` "best" and a discriminator the best one.
    """

    def __init__(
        self,
        cfg: Config,
        accelerator: Accelerator,
        generator: nn.Module,
        terms: list[LossTerm],
        photos: PhotoSet,
        augment: list[Callable] | None = None,
        perceptual: nn.Module | None = None,
        discriminator: nn.Module | None = None,
        *,
        epochs: int,
        lr: float,
        d_lr: float | None = None,
        rise: int = 0,
        n_critic: int = 1,
        patience: int | None = None,
        d_terms: list[LossTerm] | None = None,
        optimizer: Callable | None = None,
        task: Colorization | None = None,
        start: str = "",
    ):
        accelerator.free_memory()  # of an earlier trainer in this session
        accelerator._custom_objects.clear()
        self.cfg, self.accelerator, self.terms, self.perceptual = cfg, accelerator, terms, perceptual
        self.d_terms = d_terms or (discriminator_terms() if discriminator else [])
        self.task, self.make_optimizer = task or Colorization(), optimizer or adam(cfg)
        self.phase = self.task.phase or ("adversarial" if discriminator else "warmup")
        self.run, self.photos, self.start, self.epochs, self.n_critic = Run(cfg.run), photos, start, epochs, n_critic
        self.rates = {"lr": lr, "d_lr": d_lr or lr, "rise": rise}
        self.patience = patience or math.inf
        self.folder = self.run.file(self.phase, "_checkpoint")
        self._load_photos(augment or [])
        self._prepare_networks(generator, discriminator)
        self.epoch, self.best, self.finished, self.logs, self.columns, self.seconds = 1, 0, False, [], [], 0.0
        self.history, self.steps, self.pending = pd.DataFrame(), pd.DataFrame(), None
        accelerator.register_for_checkpointing(self)

    def _load_photos(self, augment: list[Callable]) -> None:
        """Load this process's photos for training and validation, and those for the statistics of EMA weights."""
        cfg, device = self.cfg, self.accelerator.device
        rank, world_size = self.accelerator.process_index, self.accelerator.num_processes
        share = {"rank": rank, "world_size": world_size, "seed": cfg.seed, "make": self.task.batch}
        self.batches = Batches(self.photos.load("train", None), cfg.batch_size, device, augment, **share)
        self.validation = self.photos.load("validation", cfg.val_photos)[rank::world_size]
        self.settling = Batches(self.photos.load("train", 256), 32, device, make=self.task.batch)
        self.epoch_steps = len(self.batches) // self.n_critic
        if not self.epoch_steps:
            raise ValueError(f"n_critic={self.n_critic} needs more batches than an epoch has: {len(self.batches)}.")

    def _prepare_networks(self, generator: nn.Module, discriminator: nn.Module | None) -> None:
        """Put the networks on the device, each with its optimizer and schedule, and make the EMA copy."""
        if self.cfg.freeze_norms:
            freeze_norms(generator)
        generator.to(self.accelerator.device, memory_format=torch.channels_last)
        decay = self.cfg.ema_decay
        self.ema = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
        self.raw_generator, self.raw_discriminator, self.discriminator = generator, discriminator, None
        self.generator, self.g_optimizer, self.g_schedule = self._prepare(generator, self.rates["lr"], 1)
        registered = [self.g_schedule, self.ema]
        if discriminator:
            prepared = self._prepare(discriminator, self.rates["d_lr"], self.n_critic)
            self.discriminator, self.d_optimizer, self.d_schedule = prepared
            registered.append(self.d_schedule)
        self.accelerator.register_for_checkpointing(*filter(None, registered))

    def _prepare(self, network: nn.Module, lr: float, updates: int) -> tuple:
        """Return a network on this device, its optimizer and its schedule, with some updates per step."""
        network.to(self.accelerator.device, memory_format=torch.channels_last)
        optimizer, total = self.make_optimizer(network.parameters(), lr), self.epochs * self.epoch_steps * updates
        rise, falls = self.rates["rise"], self.cfg.schedule == "cosine"

        def _share(step):
            return min(1, (step + 1) / (rise + 1)) * (0.5 + 0.5 * math.cos(math.pi * step / total) if falls else 1)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _share)
        for each in (network, self.perceptual) if self.cfg.compile else ():
            if each is not None:
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
        self.started = time.perf_counter() - self.seconds
        groups = zip(*[iter(self.batches)] * self.n_critic, strict=False)
        title, quiet = f"{self.phase} epoch {self.epoch}/{self.epochs}", not self.accelerator.is_main_process
        for batches in tqdm(groups, title, self.epoch_steps, leave=False, disable=quiet, initial=len(self.logs)):
            try:
                log = self.training_step(*batches)
            except torch.OutOfMemoryError as error:
                raise out_of_memory(self.cfg) from error
            self.columns = list(log)
            self.logs.append(torch.stack([value.detach().float() for value in log.values()]))
            self._save_or_stop()
        table, self.logs, self.seconds = self._table(), [], 0.0
        return table.assign(epoch=self.epoch)

    def _save_or_stop(self) -> None:
        """Write a checkpoint when it is due; stop if asked to. Several processes decide together."""
        votes = self.request.asked, time.monotonic() - self.saved > 60 * self.cfg.checkpoint_minutes
        if self.accelerator.num_processes > 1:
            if len(self.logs) % AGREE:
                return
            votes = self.accelerator.reduce(torch.tensor(votes, device=self.accelerator.device).float(), "sum").tolist()
        stop, due = map(bool, votes)
        if stop or due:
            self.seconds = time.perf_counter() - self.started
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

    def colorize(self, generator: nn.Module, photos: Tensor) -> Tensor:
        """Colorize uint8 photos (N, 3, H, W) in the accelerator's precision; same shape and type."""
        with self.accelerator.autocast():
            return self.task.outputs(generator.eval(), photos, self.accelerator.device)

    def validate(self) -> dict[str, float]:
        """Return the validation metrics of the weights that will be saved, and of the raw ones beside EMA weights."""
        self.validated = self.colorize(self.final_generator(), self.validation)
        candidates = [("", self.validated, self.perceptual)]
        if self.ema:
            candidates.append((" raw", self.colorize(self.raw_generator, self.validation), None))
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
        with locked(self.run.path) if main else nullcontext(), StopRequest() as self.request:
            self._resume(restart)
            self.saved = time.monotonic()
            if self.finished:
                print(f"run {self.run.name!r} has finished its {self.phase}. To start over: fit(restart=True).")
                self.validated = self.colorize(self.final_generator(), self.validation)
                show(self)
            while not self.finished:
                self._end_epoch(self.train_epoch())
                if main:
                    show(self)
        return self.history

    def _end_epoch(self, steps: pd.DataFrame) -> None:
        """Validate, log, remember the weights to save, and save them after the last epoch."""
        if self.ema:
            self.settle()
        row = {"epoch": self.epoch, **epoch_means(steps), **self.validate()}
        row["seconds"] = time.perf_counter() - self.started
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
            self.save()

    def settings(self) -> dict[str, str]:
        """Return everything that must match before a run may resume, as text."""
        found = {name: getattr(self.cfg, name) for name in MATTERS} | self.rates
        found |= {"epochs": self.epochs, "n_critic": self.n_critic, "patience": self.patience, "start": self.start}
        for role, terms in (("", self.terms), ("discriminator's ", self.d_terms)):
            found |= {f"weight of {role}{term.name}": float(term.weight) for term in terms}
            found |= {f"function of {role}{term.name}": checkpoint.described(term.function) for term in terms}
        found["augmentation"] = [checkpoint.described(transform) for transform in self.batches.augment]
        found |= {"optimizer": checkpoint.described(self.make_optimizer), "task": checkpoint.described(self.task)}
        for role, network in (("generator", self.raw_generator), ("discriminator", self.raw_discriminator)):
            found[role] = str(network) + checkpoint.described(type(network))
        found["learned weights"] = sum(p.numel() for p in self.raw_generator.parameters() if p.requires_grad)
        found["photo size"] = tuple(self.validation.shape[2:])
        found["photos"] = sha256(self.photos.manifest.to_csv().encode(errors="backslashreplace")).hexdigest()
        return {name: str(value) for name, value in (found | {"processes": self.accelerator.num_processes}).items()}

    def _resume(self, restart: bool) -> None:
        """Load the checkpoint if there is one; else begin, and archive an earlier training."""
        if self not in self.accelerator._custom_objects:
            raise RuntimeError("A later Trainer has taken over this accelerator: build this Trainer again.")
        path = None if restart else checkpoint.latest(self.folder)
        if path:
            checkpoint.load(path, self.accelerator, self.settings(), self.run.name)
        elif self.accelerator.is_main_process:
            self.run.begin(self.phase, self.cfg, self.photos, self.start)
        self.accelerator.wait_for_everyone()
        if path and not self.finished:
            where = f"{self.phase} epoch {self.epoch}/{self.epochs}, after step {len(self.logs)}"
            self.accelerator.print(f"resumed: continuing with {where}")

    def save(self) -> None:
        """Write the weights to use and a checkpoint to resume from; every process must call this."""
        if self.logs:
            self._table()  # refuses to save a state that is not sound
        if self.pending is not None and self.accelerator.is_main_process:
            self.run.save(self.phase, self.pending, self.cfg)
        self.pending = None
        checkpoint.write(self.folder, self.accelerator, self.settings())
        self.saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return the trainer's own state, for `accelerator.save_state`."""
        names = ("epoch", "best", "finished", "logs", "columns", "seconds")
        state = {name: getattr(self, name) for name in names}
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
