"""The trainer of both phases: steps, epochs, validation, moving average, best model, early stopping."""

import time

import pandas as pd
import torch
from accelerate.utils import gather_object
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from tqdm.auto import tqdm

from helpers import metrics
from helpers.batches import Batches
from helpers.checkpoints import Run
from helpers.losses import Prediction, discriminator_losses, total_loss
from helpers.monitoring import EarlyStopping, collapse_warnings, epoch_means


class Trainer:
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

    def _prepare(self, network):
        """Return a network ready for this device and precision, with its optimiser and learning-rate schedule."""
        cfg, total = self.cfg, self.epochs * len(self.batches)
        rate = getattr(cfg, f"{self.phase}_lr")
        optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=(cfg.beta1, cfg.beta2), fused=True)
        if cfg.schedule == "cosine":
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
        else:
            schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        network, optimizer = self.accelerator.prepare(network, optimizer)
        if cfg.compile:
            self.accelerator.unwrap_model(network).compile()
        return network, optimizer, schedule

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
        prediction = Prediction(*parts, self.raw_discriminator, self.accelerator.autocast)
        log = self.discriminator_step(batch, ab_pred.detach()) if self.discriminator else {}
        log |= self.generator_step(prediction)
        if self.average:
            self.average.update_parameters(self.raw_generator)
        return log

    def train_epoch(self, epoch):
        """Go once through the training photos; return the values of its steps as a table."""
        self.generator.train()
        logs = []
        title, quiet = f"{self.phase} epoch {epoch}/{self.epochs}", not self.accelerator.is_main_process
        for batch in tqdm(self.batches, desc=title, leave=False, disable=quiet):
            log = self.training_step(batch)
            logs.append(torch.stack([value.detach().float() for value in log.values()]))
        values = self.accelerator.reduce(torch.stack(logs), "mean")  # over the processes
        table = pd.DataFrame(values.cpu().numpy(), columns=list(log))  # read once an epoch: reading makes a GPU wait
        table.insert(0, "epoch", epoch)
        return table

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

    def fit(self, show=None):
        """Train all epochs, or until early stopping; `show(trainer)` is called after each. Returns the history."""
        main = self.accelerator.is_main_process  # of several processes, one writes and reports
        if main:
            self.run.begin(self.phase, self.cfg, self.photos, self.start)
        for epoch in range(1, self.epochs + 1):
            row, is_best = self._epoch(epoch)
            if main:
                if is_best or not self.discriminator:
                    self.run.save(self.phase, self.final_generator(), self.cfg)
                self.run.log(self.phase, self.history, self.steps)
                self._report(row)
                if show:
                    show(self)
            if self.discriminator and self.stopper.should_stop:
                self.accelerator.print(f"stopped early: no better validation L1 for {self.cfg.patience} epochs")
                break
        self.accelerator.wait_for_everyone()
        return self.history

    def _epoch(self, epoch):
        """Train for an epoch and validate; return its row of the history, and whether it is the best so far."""
        started = time.perf_counter()
        steps = self.train_epoch(epoch)
        if self.average:
            self.settle_average()
        row = {"epoch": epoch, **epoch_means(steps), **self.validate()}
        row["seconds"] = time.perf_counter() - started
        self.history = pd.concat([self.history, pd.DataFrame([row])], ignore_index=True)
        self.steps = pd.concat([self.steps, steps], ignore_index=True)
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
