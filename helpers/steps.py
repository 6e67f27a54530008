"""The training step: one of the discriminator, one of the generator, from one forward pass."""

import torch

from helpers.losses import Prediction, discriminator_losses, total_loss


class TrainingSteps:
    """What both phases do with a batch: the part of `trainer.Trainer` that learns."""

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
