"""The report's way of training, written plainly: what the series' own way is measured against.

Each photo is decoded, augmented and turned into Lab by scikit-image in a DataLoader of two workers; fp32, the default
layout, unfused Adam, and every loss is read with `.item()` at every step. Networks and losses are the series' own.
"""

import hashlib

import lpips
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import img_as_ubyte, io
from skimage.color import rgb2lab
from skimage.transform import resize
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from helpers.color import L_ab_to_rgb
from helpers.models.discriminator import Discriminator
from helpers.models.generator import Generator


class PlainPhotos(Dataset):
    """Photo files as L (1, H, W) and ab (2, H, W), both in [-1, 1]."""

    def __init__(self, paths, cfg, augment=True):
        self.paths, jitter = paths, cfg.jitter
        steps = [
            transforms.RandomHorizontalFlip(cfg.flip),
            transforms.RandomRotation(cfg.rotation),
            transforms.RandomResizedCrop(cfg.size, scale=(cfg.crop, 1.0), ratio=(1.0, 1.0)),
            transforms.ColorJitter(jitter, jitter, jitter),
        ]
        self.transform = transforms.Compose(steps if augment else [])

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        lab = rgb2lab(np.asarray(self.transform(Image.open(self.paths[i]).convert("RGB")))).astype(np.float32)
        lab = torch.from_numpy(lab).permute(2, 0, 1)
        return lab[:1] / 50 - 1, lab[1:] / 128


class PlainTraining:
    """One phase: `step(L, ab)` learns from a batch; with `adversarial`, from L1, GAN and LPIPS, else from L1 alone."""

    def __init__(self, cfg, adversarial, device, generator=None):
        self.cfg, self.adversarial, self.device = cfg, adversarial, device
        self.generator = (generator or Generator(**cfg.replace(encoder_weights=None).generator())).to(device).train()
        rate, betas = cfg.adversarial_lr if adversarial else cfg.warmup_lr, (cfg.beta1, cfg.beta2)
        self.g_optimizer = torch.optim.Adam(self.generator.parameters(), lr=rate, betas=betas)
        if adversarial:
            self.discriminator = Discriminator().to(device)
            self.d_optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=rate, betas=betas)
            self.lpips = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).to(device)
        self.log = []

    def loader(self, paths, augment=True, shuffle=True):
        """Return the batches of an epoch."""
        photos = PlainPhotos(paths, self.cfg, augment)
        return DataLoader(photos, self.cfg.batch_size, shuffle=shuffle, num_workers=2, drop_last=True)

    def descend(self, loss, network, optimizer):
        """Step down a loss, its gradient clipped."""
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.cfg.clip_norm)
        optimizer.step()
        self.log.append(loss.item())

    def step(self, L, ab):
        """Learn from one batch."""
        L, ab = L.to(self.device), ab.to(self.device)
        if not self.adversarial:
            return self.descend(F.l1_loss(self.generator(L), ab), self.generator, self.g_optimizer)
        bce, one, zero = F.binary_cross_entropy_with_logits, torch.ones_like, torch.zeros_like
        ab_pred = self.generator(L)
        real, fake = self.discriminator(L, ab), self.discriminator(L, ab_pred.detach())
        d_loss = (bce(real, one(real)) + bce(fake, zero(fake))) / 2
        self.descend(d_loss, self.discriminator, self.d_optimizer)
        fake = self.discriminator(L, ab_pred)
        perceptual = self.lpips(L_ab_to_rgb(L, ab_pred) * 2 - 1, L_ab_to_rgb(L, ab) * 2 - 1).mean()
        g_loss = bce(fake, one(fake)) + self.cfg.lambda_l1 * F.l1_loss(ab_pred, ab) + self.cfg.lambda_perc * perceptual
        return self.descend(g_loss, self.generator, self.g_optimizer)


def prepare(paths, folder, size):
    """Read, measure, crop, resize and write photos one after the other with scikit-image."""
    folder.mkdir()
    for path in paths:
        rgb = io.imread(path)
        red, green, blue = rgb.reshape(-1, 3).astype(float).T
        opponents = np.stack([red - green, (red + green) / 2 - blue])
        colorful = np.hypot(*opponents.std(1)) + 0.3 * np.hypot(*opponents.mean(1))
        if min(rgb.shape[:2]) < size or colorful < 6:
            continue
        hashlib.sha256(path.read_bytes()).hexdigest()
        side = min(rgb.shape[:2])
        top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
        square = resize(rgb[top : top + side, left : left + side], (size, size), order=1, anti_aliasing=False)
        io.imsave(folder / f"{path.stem}.png", img_as_ubyte(square), check_contrast=False)
