"""The steps of notebooks 03 and 04, for trainings without a notebook; 04 proves that they are its cells'."""

from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from helpers.color import L_ab_to_rgb
from helpers.config import Config
from helpers.data.batches import Batch
from helpers.models.blocks import freeze_norms
from helpers.training.losses import COLOR_LOSSES, Perceptual, bce
from helpers.training.trainer import descend, frozen

Learner = tuple[nn.Module, Optimizer]
Step = Callable[..., dict[str, Tensor]]


def learner(cfg: Config, accelerator: Accelerator, network: nn.Module, lr: float) -> Learner:
    """Return a network and the report's Adam for it, prepared for a device."""
    if cfg.freeze_norms:
        freeze_norms(network)
    network = network.to(memory_format=torch.channels_last)
    return accelerator.prepare(network, torch.optim.Adam(network.parameters(), lr, betas=(0.5, 0.999), fused=True))


def make_warmup_step(cfg: Config, generator: nn.Module, optimizer: Optimizer) -> Step:
    """Return the step of notebook 03."""
    color_loss = COLOR_LOSSES[cfg.color_loss]

    def warmup_step(batch: Batch) -> dict[str, Tensor]:
        """Learn from a batch; return the values to log."""
        ab = generator(batch.L)  # (N, 2, H, W)
        loss = color_loss(ab, batch.ab)
        norm = descend(loss, generator, optimizer, cfg.clip_norm)
        return {cfg.color_loss: loss, "G gradient": norm}

    return warmup_step


def make_adversarial_step(cfg: Config, g: Learner, d: Learner, perceptual: Perceptual, autocast: Callable) -> Step:
    """Return the step of notebook 04, which takes `cfg.n_critic` batches; autocast: the accelerator's, for LPIPS."""
    (generator, g_optimizer), (discriminator, d_optimizer), color_loss = g, d, COLOR_LOSSES[cfg.color_loss]

    def adversarial_step(*batches: Batch) -> dict[str, Tensor]:
        """Learn from some batches, the generator from the last; return the values to log."""
        for batch in batches:
            ab = generator(batch.L)
            real, fake = discriminator(batch.L, batch.ab), discriminator(batch.L, ab.detach())
            d_real, d_fake = bce(real, 1.0), bce(fake, 0.0)
            d_norm = descend((d_real + d_fake) / 2, discriminator, d_optimizer, cfg.clip_norm)
        log = {"D real": d_real, "D fake": d_fake, "D gradient": d_norm}
        log |= {"D accuracy (real)": (real > 0).float().mean(), "D accuracy (fake)": (fake < 0).float().mean()}
        with frozen(discriminator) as judge:
            gan, color = bce(judge(batch.L, ab), 1.0), color_loss(ab, batch.ab)
            lpips = perceptual(L_ab_to_rgb(batch.L, ab), batch.rgb, autocast).mean() if cfg.lambda_perc else 0.0
            loss = gan + cfg.lambda_l1 * color + cfg.lambda_perc * lpips
            norm = descend(loss, generator, g_optimizer, cfg.clip_norm)
        log |= {"G total": loss, "GAN": gan, cfg.color_loss: color, "G gradient": norm}
        return log | ({perceptual.name: lpips} if cfg.lambda_perc else {})

    return adversarial_step
