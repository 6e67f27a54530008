"""The two phases of training on one loop: epochs, validation, moving average, best model, early stopping."""

import math
import time
from itertools import islice

import pandas as pd
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from tqdm.auto import tqdm

from helpers import metrics
from helpers.batches import Batches
from helpers.checkpoints import Run
from helpers.losses import Prediction, discriminator_losses, total_loss


class EarlyStopping:
    """Remember the lowest value of an epoch, and say when `patience` epochs have passed without a lower one."""

    def __init__(self, patience):
        self.patience, self.best, self.best_epoch, self.should_stop = patience, float("inf"), 0, False

    def update(self, epoch, value):
        """Take an epoch's value; return whether it is the lowest so far."""
        if value < self.best:
            self.best, self.best_epoch = value, epoch
        self.should_stop = epoch - self.best_epoch >= self.patience
        return self.best_epoch == epoch


class Trainer:
    """Train a generator; with a discriminator, against it.

    The phase is "warmup" without a discriminator and "adversarial" with one. `terms` is the generator's loss, a list of
    `LossTerm`; `photos` a prepared `PhotoSet`; `augment` a list of transforms of rgb (N, 3, H, W) in [0, 1];
    `perceptual` the `Perceptual` that validation measures LPIPS with. `start` names the run whose warmup this goes on
    from. After every epoch `history` and `steps` are on disk; the generator that is saved is the averaged one if
    `cfg.ema_decay` is set. Warmup keeps the last epoch, the adversarial phase the one of lowest validation L1.
    """

    def __init__(self, cfg, accelerator, generator, terms, photos, augment, perceptual, discriminator=None, start=None):
        self.cfg, self.accelerator, self.terms, self.perceptual = cfg, accelerator, terms, perceptual
        self.phase = "adversarial" if discriminator else "warmup"
        self.epochs = getattr(cfg, f"{self.phase}_epochs")
        self.run, self.photos, self.start = Run(cfg.run), photos, start
        device = accelerator.device
        self.batches = Batches(photos.load("train"), cfg.batch_size, device, augment or [])
        self.validation = photos.load("validation", cfg.val_photos)
        generator = generator.to(device, memory_format=torch.channels_last)
        self.average = None
        if cfg.ema_decay is not None:
            self.average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(cfg.ema_decay))
        self.generator, self.g_optimizer, self.g_schedule = self._prepare(generator)
        self.discriminator = None
        if discriminator:
            discriminator = discriminator.to(device, memory_format=torch.channels_last)
            self.discriminator, self.d_optimizer, self.d_schedule = self._prepare(discriminator)
        self.stopper = EarlyStopping(cfg.patience)
        self.history, self.steps = pd.DataFrame(), pd.DataFrame()

    def _prepare(self, network):
        """Return a network ready for this device and precision, with its optimiser and learning-rate schedule."""
        cfg, total = self.cfg, self.epochs * len(self.batches)
        rate = getattr(cfg, f"{self.phase}_lr")
        optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=(cfg.beta1, cfg.beta2), fused=True)
        if cfg.schedule == "cosine":
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
        else:
            schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        return *self.accelerator.prepare(network, optimizer), schedule

    def generator_step(self, prediction):
        """Take one step down the generator's loss; return the values to log."""
        if self.discriminator:
            self.discriminator.requires_grad_(False)  # the gradient passes through it, but is not for it
        loss, values = total_loss(self.terms, prediction)
        norm = self._descend(loss, self.generator, self.g_optimizer, self.g_schedule)
        if self.discriminator:
            self.discriminator.requires_grad_(True)
        return {"G total": loss, **values, "G gradient": norm}

    def discriminator_step(self, batch, ab_fake):
        """Take one step down the discriminator's loss on real and fake colours; return the values to log."""
        real, fake = self.discriminator(batch.L, batch.ab), self.discriminator(batch.L, ab_fake)
        loss_real, loss_fake = discriminator_losses(real, fake)
        loss = (loss_real + loss_fake) / 2
        norm = self._descend(loss, self.discriminator, self.d_optimizer, self.d_schedule)
        accuracy = {"D right on real": (real > 0).float().mean(), "D right on fake": (fake < 0).float().mean()}
        return {"D real": loss_real, "D fake": loss_fake, **accuracy, "D gradient": norm}

    def _descend(self, loss, network, optimizer, schedule):
        """Step along the gradient of `loss`, clipped to `cfg.clip_norm`; return its norm before clipping."""
        optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.unscale_gradients(optimizer)  # of this network alone; accelerate's own clipping takes all
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), self.cfg.clip_norm)
        optimizer.step()
        schedule.step()
        return norm

    def training_step(self, batch):
        """Learn from one batch: the discriminator first, then the generator, both from one forward pass of it."""
        ab_pred = self.generator(batch.L)
        parts = (batch.L, batch.ab, batch.rgb, ab_pred)
        prediction = Prediction(*parts, self.discriminator, self.accelerator.autocast)
        log = self.discriminator_step(batch, ab_pred.detach()) if self.discriminator else {}
        log |= self.generator_step(prediction)
        if self.average:
            self.average.update_parameters(self.accelerator.unwrap_model(self.generator))
        return log

    def train_epoch(self, epoch):
        """Go once through the training photos; return the values of its steps as a table."""
        self.generator.train()
        logs = []
        for batch in tqdm(self.batches, desc=f"{self.phase} epoch {epoch}/{self.epochs}", leave=False):
            log = self.training_step(batch)
            logs.append(torch.stack([value.detach().float() for value in log.values()]))
        table = pd.DataFrame(torch.stack(logs).cpu().numpy(), columns=list(log))  # read once: reading makes a GPU wait
        table.insert(0, "epoch", epoch)
        return table

    def settle_average(self, batches=50):
        """Measure the batch statistics of the averaged generator anew: no training step ever saw its own.

        Weights can be averaged, their statistics cannot (Izmailov et al. 2018).
        """
        lightness = [batch.L for batch in islice(self.batches, batches)]
        with self.accelerator.autocast():
            update_bn(lightness, self.average.module)

    def final_generator(self):
        """Return the generator that the user will get: averaged if `cfg.ema_decay` is set, in evaluation mode."""
        return (self.average.module if self.average else self.accelerator.unwrap_model(self.generator)).eval()

    def colorize(self, generator, photos):
        """Colorize uint8 photos (N, 3, H, W) with a generator in the accelerator's precision; same shape and type."""
        with self.accelerator.autocast():
            return metrics.colorize_all(generator.eval(), photos, self.accelerator.device)

    def validate(self):
        """Return validation L1, PSNR, LPIPS and colourfulness of the weights for use, and of the raw ones too."""
        device = self.accelerator.device
        self.validated = self.colorize(self.final_generator(), self.validation)
        table = metrics.measure_all(self.validated, self.validation, self.perceptual, device, with_ssim=False)
        row = {f"val {name}": value for name, value in table.mean().items()}
        if self.average:
            raw = self.colorize(self.generator, self.validation)
            table = metrics.measure_all(raw, self.validation, None, device, with_ssim=False)
            row |= {f"val {name} raw": value for name, value in table.drop(columns="truth").mean().items()}
        return row

    def fit(self, show=None):
        """Train all epochs, or until early stopping; `show(trainer)` is called after each. Returns the history."""
        self.run.begin(self.phase, self.cfg, self.photos, self.start)
        for epoch in range(1, self.epochs + 1):
            started = time.perf_counter()
            steps = self.train_epoch(epoch)
            if self.average:
                self.settle_average()
            row = {"epoch": epoch, **epoch_means(steps), **self.validate()}
            row["seconds"] = time.perf_counter() - started
            self.history = pd.concat([self.history, pd.DataFrame([row])], ignore_index=True)
            self.steps = pd.concat([self.steps, steps], ignore_index=True)
            if self.stopper.update(epoch, row["val L1"]) or not self.discriminator:
                self.run.save(self.phase, self.final_generator(), self.cfg)
            self.run.log(self.phase, self.history, self.steps)
            self._report(row)
            if show:
                show(self)
            if self.discriminator and self.stopper.should_stop:
                print(f"stopped early: no better validation L1 for {self.cfg.patience} epochs")
                break
        return self.history

    def _report(self, row):
        """Print an epoch in a line, and what went wrong in it in another."""
        print(
            f"{self.phase} {row['epoch']}/{self.epochs}: L1 {row['val L1']:.4f}, PSNR {row['val PSNR']:.2f} dB, "
            f"colourfulness {row['val colourfulness'] / row['val truth']:.0%} of truth, {row['seconds']:.0f} s",
            flush=True,
        )
        for warning in collapse_warnings(row):
            print("  warning:", warning)


def epoch_means(steps):
    """Return the means of a table of steps; a gradient may overflow now and then (fp16 scales its loss by trial)."""
    norms = [name for name in steps if name.endswith("gradient")]
    finite = steps[norms].where(steps[norms].abs() < float("inf"))
    return {**steps.drop(columns=["epoch", *norms]).mean(skipna=False), **finite.mean()}


def collapse_warnings(row):
    """Name what has collapsed in an epoch, if anything: a list of sentences.

    row: an epoch of the history. Looks at the discriminator's accuracy, at the colourfulness of the photos and for
    losses that are no numbers.
    """
    found = []
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad:
        found.append(f"not a number: {', '.join(bad)}. Lower the learning rate.")
    right = min(row.get("D right on real", 0), row.get("D right on fake", 0))
    if right > 0.99:
        found.append("the discriminator has won (over 99% right): the generator learns little from it.")
    if row.get("D right on real", 1) < 0.05 or row.get("D right on fake", 1) < 0.05:
        found.append("the discriminator has collapsed to one answer: it calls everything real, or everything fake.")
    if "D real" in row and row["val colourfulness"] < 0.1 * row["val truth"]:
        found.append("the photos are grey: under 10% of the truth's colourfulness.")
    return found
