"""The trainer of both phases: steps, epochs, validation, moving average, best model, early stopping."""

import time
from contextlib import nullcontext

import pandas as pd
import torch
from accelerate.utils import gather_object
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from tqdm.auto import tqdm

from helpers import metrics, storage
from helpers.batches import Batches
from helpers.checkpoints import Run
from helpers.monitoring import EarlyStopping, collapse_warnings, epoch_means, refuse_bad_numbers
from helpers.resume import Checkpoints, StopRequest, refuse_another, restore, state_of
from helpers.steps import TrainingSteps

AGREE = 20  # steps after which several processes ask each other whether to write a checkpoint, or stop


class Trainer(TrainingSteps):
    """Train a generator; with a discriminator, against it.

    The phase is "warmup" without a discriminator and "adversarial" with one. `terms` is the generator's loss, a list of
    `LossTerm`; `photos` a prepared `PhotoSet`; `augment` a list of transforms of rgb (N, 3, H, W) in [0, 1];
    `perceptual` the `Perceptual` that validation measures LPIPS with. `start` names the run whose warmup this goes on
    from. After every epoch `history` and `steps` are on disk; the generator that is saved is the averaged one if
    `cfg.ema_decay` is set. Warmup keeps the last epoch, the adversarial phase the one of lowest validation L1.
    """

    def __init__(self, cfg, accelerator, generator, terms, photos, augment, perceptual, discriminator=None, start=None):
        accelerator.free_memory()  # what an earlier trainer of this session left on the device
        self.cfg, self.accelerator, self.terms, self.perceptual = cfg, accelerator, terms, perceptual
        self._is_main = accelerator.is_main_process  # of several processes, one writes and reports
        self.phase = "adversarial" if discriminator else "warmup"
        self.epochs = getattr(cfg, f"{self.phase}_epochs")
        self.run, self.photos, self.start = Run(cfg.run), photos, start
        device = accelerator.device
        share = accelerator.process_index, accelerator.num_processes
        train = photos.open("train", cfg.memory_gb)
        self.batches = Batches(train, cfg.batch_size, device, augment or [], share, cfg.seed)
        self.validation = photos.load("validation", cfg.val_photos)[share[0] :: share[1]]
        generator = generator.to(device, memory_format=torch.channels_last)
        self.average = None
        if cfg.ema_decay is not None:
            self.average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(cfg.ema_decay))
            self.settling = Batches(photos.load("train", 256), 32, device)
        self.generator, self.g_optimizer, self.g_schedule = self._prepare(generator)
        self.raw_generator = accelerator.unwrap_model(self.generator)  # without what several processes wrap around it
        self.discriminator = self.raw_discriminator = None
        if discriminator:
            discriminator = discriminator.to(device, memory_format=torch.channels_last)
            self.discriminator, self.d_optimizer, self.d_schedule = self._prepare(discriminator)
            self.raw_discriminator = accelerator.unwrap_model(self.discriminator)
        self.stopper = EarlyStopping(cfg.patience)
        self.history, self.steps = pd.DataFrame(), pd.DataFrame()
        self.epoch, self.logs, self.columns, self.seconds = 1, [], [], 0.0  # where it stands
        self.checkpoints, self.request = Checkpoints(self.run, self.phase), None

    def train_epoch(self, epoch):
        """Go once through the training photos, or through what is left of them; return the values of its steps."""
        for network in filter(None, (self.generator, self.discriminator)):
            network.train()
        title, quiet, done = f"{self.phase} epoch {epoch}/{self.epochs}", not self._is_main, len(self.logs)
        bar = tqdm(self.batches, title, len(self.batches), leave=False, disable=quiet, initial=done)
        for batch in bar:
            log = self._step_that_fits(batch)
            self.columns = list(log)
            self.logs.append(torch.stack([value.detach().float() for value in log.values()]))
            self._after_step()
        table = self._logged(self.accelerator.reduce(torch.stack(self.logs), "mean"))  # over the processes
        table.insert(0, "epoch", epoch)
        self.logs = []
        return table

    def _logged(self, values):
        """Return logged values (steps, columns) as a table; raises FloatingPointError for a loss that is no number.

        To be called seldom: reading values makes a GPU wait.
        """
        table = pd.DataFrame(values.cpu().double().numpy(), columns=self.columns)
        refuse_bad_numbers(table, len(self.steps), self.checkpoints.folder)
        return table

    def _step_that_fits(self, batch):
        """Take a training step; raises RuntimeError with a batch size to try when memory does not suffice."""
        try:
            return self.training_step(batch)
        except torch.OutOfMemoryError as error:
            size = self.cfg.batch_size
            raise RuntimeError(
                f"The GPU's memory does not hold batch_size={size} at {self.cfg.size} px. Restart the kernel, to free "
                f"the memory, and try batch_size={max(1, size // 2)} or a smaller size. ({error})"
            ) from error

    def _after_step(self):
        """Write a checkpoint when it is time for one; stop in good order when that was asked for."""
        several = self.accelerator.num_processes > 1
        if self.request is None or (several and len(self.logs) % AGREE):
            return
        self.alive()
        asked, due = self._any(self.request.asked, self._is_due())
        if asked or due:
            self.checkpoint()
        if asked:
            where = f"epoch {self.epoch} of {self.epochs}, after step {len(self.logs)} of {len(self.batches)}"
            self.accelerator.print(f"stopped in {where}; all of it is kept. To go on, run this again.")
            raise KeyboardInterrupt

    def _is_due(self):
        """Say whether the last checkpoint is as old as the configuration allows."""
        return time.monotonic() - self.saved > 60 * self.cfg.checkpoint_minutes

    def _any(self, *answers):
        """Return for each answer whether any of the processes gave it: all of them have to do the same."""
        if self.accelerator.num_processes == 1:
            return answers
        votes = torch.tensor(answers, dtype=torch.float32, device=self.accelerator.device)
        return self.accelerator.reduce(votes, "sum").bool().tolist()

    def checkpoint(self, finished=False):
        """Write all that is needed to go on from here, if it is sound; every process has to call this."""
        if self.logs:
            values = self.accelerator.reduce(torch.stack(self.logs), "mean")  # over the processes
            self._logged(values)
            self.logs = [*values]
            self.seconds = time.perf_counter() - self.started
        state = state_of(self, finished)
        if self._is_main:
            self.checkpoints.save(state)
        self.saved = time.monotonic()

    def settle_average(self):
        """Measure the batch statistics of the averaged generator anew: no training step ever saw its own.

        Weights can be averaged, their statistics cannot (Izmailov et al. 2018). They are taken from training photos as
        they are, without augmentation, as photos for use will be; large batches, for small ones underestimate variance.
        """
        with self.accelerator.autocast():
            update_bn((batch.L for batch in self.settling), self.average.module)

    def final_generator(self):
        """Return the generator that the user will get: averaged if `cfg.ema_decay` is set, in evaluation mode."""
        return (self.average.module if self.average else self.raw_generator).eval()

    def colorize(self, generator, photos):
        """Colorize uint8 photos (N, 3, H, W) with a generator in the accelerator's precision; same shape and type."""
        with self.accelerator.autocast():
            return metrics.colorize_all(generator.eval(), photos, self.accelerator.device)

    def validate(self):
        """Return validation L1, PSNR, LPIPS and colourfulness of the weights for use, and of the raw ones too."""
        if self.request:
            self.alive()
        self.validated = self.colorize(self.final_generator(), self.validation)
        row = {f"val {name}": value for name, value in self._means(self.validated, self.perceptual).items()}
        if self.average:
            means = self._means(self.colorize(self.raw_generator, self.validation)).drop("truth")
            row |= {f"val {name} raw": value for name, value in means.items()}
        return row

    def _means(self, colorized, perceptual=None):
        """Return the mean metrics of the validation photos, each process having measured its share of them."""
        table = metrics.measure_all(colorized, self.validation, perceptual, self.accelerator.device, with_ssim=False)
        return pd.concat(gather_object([table])).mean()

    def fit(self, show=None, restart=False):
        """Train all epochs, or until early stopping; `show(trainer)` is called after each. Returns the history.

        What an earlier call of the same run left is gone on with, or, if it was finished, shown; `restart` keeps it
        aside and starts over. Raises ValueError when the run was begun with other settings, BlockingIOError when
        another program trains it, OSError when the disk is full, FloatingPointError when a loss is no number any more.
        """
        holding = storage.in_use(self.run.path) if self._is_main else nullcontext(lambda: None)
        with holding as self.alive, StopRequest() as self.request:
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

    def _begin(self, restart):
        """Start a run, or put the trainer where it stopped; return whether it was finished."""
        state = None if restart else self.checkpoints.latest()
        self.saved = time.monotonic()
        if state is None:
            if self._is_main:
                self.run.begin(self.phase, self.cfg, self.photos, self.start)
            self.accelerator.wait_for_everyone()
            return False
        refuse_another(self, state)
        restore(self, state)
        if self._is_main and not state["finished"]:
            print(f"going on with {self.phase} epoch {self.epoch}/{self.epochs}, after step {len(self.logs)}")
        return state["finished"]

    def _train(self, show):
        """Train the epochs that are left; after each, keep what is worth keeping."""
        while not self._is_over():
            row, is_best = self._epoch(self.epoch)
            if self._is_main:
                if is_best or not self.discriminator:
                    self.run.save(self.phase, self.final_generator(), self.cfg)
                self.run.log(self.phase, self.history, self.steps)
                self._report(row)
                if show:
                    show(self)
            (due,) = self._any(self._is_due())
            if due or self._is_over() or (is_best and self.discriminator):  # with the best model, the state it is from
                self.checkpoint(finished=self._is_over())
        if self.epoch <= self.epochs:
            self.accelerator.print(f"stopped early: no better validation L1 for {self.cfg.patience} epochs")
        self.accelerator.wait_for_everyone()

    def _is_over(self):
        """Say whether all epochs are done, or early stopping has ended the adversarial phase."""
        return self.epoch > self.epochs or bool(self.discriminator and self.stopper.should_stop)

    def _epoch(self, epoch):
        """Train for an epoch and validate; return its row of the history, and whether it is the best so far."""
        self.started = time.perf_counter() - self.seconds
        steps = self.train_epoch(epoch)
        if self.average:
            self.settle_average()
        row = {"epoch": epoch, **epoch_means(steps), **self.validate()}
        row["seconds"] = time.perf_counter() - self.started
        self.history = pd.concat([self.history, pd.DataFrame([row])], ignore_index=True)
        self.steps = pd.concat([self.steps, steps], ignore_index=True)
        self.epoch, self.seconds = epoch + 1, 0.0
        return row, self.stopper.update(epoch, row["val L1"])

    def _report(self, row):
        """Print an epoch in a line, and what went wrong in it in another."""
        print(
            f"{self.phase} {row['epoch']}/{self.epochs}: L1 {row['val L1']:.4f}, PSNR {row['val PSNR']:.2f} dB, "
            f"colourfulness {row['val colourfulness'] / row['val truth']:.0%} of truth, {row['seconds']:.0f} s",
            flush=True,
        )
        for warning in collapse_warnings(row):
            print("  warning:", warning)
