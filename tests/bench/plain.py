"""The report's way of training, written plainly: what the series' own way is measured against.

Each photo is decoded, augmented and converted to Lab by scikit-image in a DataLoader of two workers; fp32, the default
memory layout, unfused Adam, and every loss is read with `.item()` at every step. Networks and losses are the series'.
"""

from collections.abc import Sequence
from pathlib import Path

import lpips
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.color import rgb2lab
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from helpers.color import L_ab_to_rgb
from helpers.config import Config
from helpers.models.discriminator import Discriminator


class PlainPhotos(Dataset):
    """Photo files as L (1, H, W) and ab (2, H, W), both in [-1, 1]."""

    def __init__(self, paths: Sequence[Path], cfg: Config):
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(cfg.flip),
                transforms.RandomRotation(cfg.rotation),
                transforms.RandomResizedCrop(cfg.size, scale=(cfg.crop, 1.0), ratio=(1.0, 1.0)),
                transforms.ColorJitter(cfg.jitter, cfg.jitter, cfg.jitter),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        lab = rgb2lab(np.asarray(self.transform(Image.open(self.paths[i]).convert("RGB")))).astype(np.float32)
        lab = torch.from_numpy(lab).permute(2, 0, 1)
        return lab[:1] / 50 - 1, lab[1:] / 128


class PlainTraining:
    """One phase: `step(L, ab)` learns from a batch; with `adversarial` from L1, GAN and LPIPS, else from L1 alone."""

    def __init__(self, cfg: Config, generator: nn.Module, adversarial: bool, device: torch.device | str):
        self.cfg, self.adversarial, self.device = cfg, adversarial, device
        self.generator = generator.to(device).train()
        rate, betas = cfg.adversarial_lr if adversarial else cfg.warmup_lr, (cfg.beta1, cfg.beta2)
        self.g_optimizer = torch.optim.Adam(self.generator.parameters(), lr=rate, betas=betas)
        if adversarial:
            self.discriminator = Discriminator().to(device)
            self.d_optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=rate, betas=betas)
            self.lpips = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).to(device)

    def loader(self, paths: Sequence[Path]) -> DataLoader:
        """Return the batches of an epoch."""
        return DataLoader(
            PlainPhotos(paths, self.cfg), self.cfg.batch_size, shuffle=True, num_workers=2, drop_last=True
        )

    def descend(self, loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer) -> float:
        """Take a step along the gradient, clipped; return the loss."""
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.cfg.clip_norm)
        optimizer.step()
        return loss.item()

    def step(self, L: Tensor, ab: Tensor) -> float:
        """Learn from one batch; return the generator's loss."""
        L, ab = L.to(self.device), ab.to(self.device)
        if not self.adversarial:
            return self.descend(F.l1_loss(self.generator(L), ab), self.generator, self.g_optimizer)
        bce, one, zero = F.binary_cross_entropy_with_logits, torch.ones_like, torch.zeros_like
        ab_pred = self.generator(L)
        real, fake = self.discriminator(L, ab), self.discriminator(L, ab_pred.detach())
        self.descend((bce(real, one(real)) + bce(fake, zero(fake))) / 2, self.discriminator, self.d_optimizer)
        fake = self.discriminator(L, ab_pred)
        perceptual = self.lpips(L_ab_to_rgb(L, ab_pred) * 2 - 1, L_ab_to_rgb(L, ab) * 2 - 1).mean()
        loss = bce(fake, one(fake)) + self.cfg.lambda_l1 * F.l1_loss(ab_pred, ab) + self.cfg.lambda_perc * perceptual
        return self.descend(loss, self.generator, self.g_optimizer)
