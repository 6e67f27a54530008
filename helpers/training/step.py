"""What is trained, and its step: one of the discriminator, one of the generator, from one forward pass."""

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from helpers.data.batches import Batch, lab_batch
from helpers.evaluation import metrics
from helpers.training.losses import Prediction, total_loss


class Colorization:
    """What the trainer has to know of its task: what goes in, what comes out, how it is validated.

    To train something else with the same trainer, hand over an object with these methods (`Trainer(task=...)`).
    """

    phase = ""  # its name where it is a phase of its own; else "warmup" or, with a discriminator, "adversarial"
    monitor = "L1"  # the validation metric whose lowest value is the best

    def batch(self, rgb: Tensor) -> Batch:
        """Return a batch of photos, rgb (N, 3, H, W) in [0, 1], which the augmentation has been through."""
        return lab_batch(rgb)

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return what the generator gets of a batch."""
        return (batch.L,)

    def predict(self, generator: nn.Module, batch: Batch, **more: Any) -> Prediction:
        """Return what the loss terms may look at; more: the discriminator and the context of a term's own networks."""
        return Prediction(batch.L, batch.ab, batch.rgb, generator(*self.inputs(batch)), **more)

    def outputs(self, generator: nn.Module, photos: Tensor, device: torch.device) -> Tensor:
        """Return what a generator makes of validation photos, uint8 (N, 3, H, W), as the user gets it: same shape."""
        return metrics.colorize_all(generator, photos, device)

    def measure(self, outputs: Tensor, photos: Tensor, perceptual: nn.Module | None, device: Any) -> pd.DataFrame:
        """Return the validation metrics of outputs, a row a photo."""
        return metrics.measure_all(outputs, photos, perceptual, device, with_ssim=False)


class Unpacking(nn.Module):
    """A network that takes its inputs as one tuple, the way `update_bn` hands them over."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Return what the network makes of its inputs."""
        return self.network(*inputs)


class TrainingStep:
    """What every phase does with a batch: the part of `trainer.Trainer` that learns."""

    def _prepare(self, network: nn.Module, lr: float, steps: int) -> tuple:
        """Return a network ready for this device and precision, with its optimizer and learning-rate schedule."""
        network = network.to(self.accelerator.device, memory_format=torch.channels_last)
        optimizer = self.make_optimizer(network.parameters(), lr)
        rise, falls = self.cfg.warmup_rise if self.phase == "warmup" else 0, self.cfg.schedule == "cosine"

        def _share(step):
            return min(1, (step + 1) / (rise + 1)) * (0.5 + 0.5 * math.cos(math.pi * step / steps) if falls else 1)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _share)
        network, optimizer = self.accelerator.prepare(network, optimizer)
        if self.cfg.compile:
            self.accelerator.unwrap_model(network).compile()
        return network, optimizer, schedule

    def training_step(self, *batches: Batch) -> dict[str, Tensor]:
        """Learn from a batch: the discriminator first, then the generator, both from one forward pass of it.

        Of several batches (`cfg.n_critic`) all but the last are for the discriminator alone.
        """
        for batch in batches[:-1]:
            with torch.no_grad():
                prediction = self.task.predict(self.generator, batch)
            self.discriminator_step(prediction)
        more = {"discriminator": self.raw_discriminator, "autocast": self.accelerator.autocast}
        prediction = self.task.predict(self.generator, batches[-1], **more)
        log = self.discriminator_step(prediction) if self.discriminator else {}
        log |= self.generator_step(prediction)
        if self.ema:
            self.ema.update_parameters(self.raw_generator)
        return log

    def discriminator_step(self, prediction: Prediction) -> dict[str, Tensor]:
        """Take one step down the discriminator's loss on true and predicted colors; return the values to log."""
        prediction = prediction.detached(self.discriminator)
        loss, values = total_loss(self.discriminator_terms, prediction)
        norm = self._descend(loss, self.discriminator, self.d_optimizer, self.d_schedule)
        real, fake = prediction.real_logits, prediction.fake_logits
        accuracy = {"D accuracy (real)": (real > 0).float().mean(), "D accuracy (fake)": (fake < 0).float().mean()}
        return {**values, **accuracy, "D gradient": norm}

    def generator_step(self, prediction: Prediction) -> dict[str, Tensor]:
        """Take one step down the generator's loss; return the values to log."""
        if self.discriminator:
            self.discriminator.requires_grad_(False)  # the gradient passes through it, but is not for it
        loss, values = total_loss(self.terms, prediction)
        norm = self._descend(loss, self.generator, self.g_optimizer, self.g_schedule)
        if self.discriminator:
            self.discriminator.requires_grad_(True)
        return {"G total": loss, **values, "G gradient": norm}

    def settle(self, network: nn.Module) -> None:
        """Measure the batch statistics of EMA weights anew: weights can be averaged, statistics cannot.

        On photos as they are, in large batches, for small ones underestimate variance (Izmailov et al. 2018). Where
        weights are frozen, their statistics hold.
        """
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        with self.accelerator.autocast():
            if all(norm.weight.requires_grad for norm in norms):
                update_bn(([self.task.inputs(batch)] for batch in self.settling), Unpacking(network))

    def _descend(self, loss: Tensor, network: nn.Module, optimizer: Any, schedule: Any) -> Tensor:
        """Step along the gradient of `loss`, clipped to `cfg.clip_norm`; return its norm before clipping."""
        optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.unscale_gradients(optimizer)  # of this network alone; accelerate's own clipping takes all
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), self.cfg.clip_norm)
        optimizer.step()
        schedule.step()
        return norm


def adam(cfg: Any) -> Callable:
    """Return the report's optimizer as a function of parameters and learning rate; notebook 03 shows it."""

    def _make(parameters, lr):
        return torch.optim.Adam(parameters, lr, betas=(cfg.beta1, cfg.beta2), fused=True)

    return _make
