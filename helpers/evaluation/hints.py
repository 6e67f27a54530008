"""What hints bring: photos colored with them, by a network and by a baseline that knows none."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from helpers.color import rgb_to_L_ab
from helpers.data.batches import Batches
from helpers.data.hints import fixed_hints, fixed_squares
from helpers.evaluation import metrics


@torch.no_grad()
def colorize_with(
    generator: nn.Module, photos: Tensor, hints: Tensor, device: torch.device | str = "cpu", batch_size: int = 16
) -> Tensor:
    """Colorize uint8 photos (N, 3, H, W) from their lightness and hints (N, 3, H, W); the same shape and type."""
    pairs = zip(Batches(photos, batch_size, device), hints.split(batch_size), strict=True)
    return torch.cat([metrics.as_photos(b.L, generator(b.L, part.to(device)).float()) for b, part in pairs])


def spread_colors(photos: Tensor, hints: Tensor, near: float = 0.2, alike: float = 10.0) -> Tensor:
    """Colorize photos from hints without a network: each pixel takes the mean of the hints' colors, weighted.

    photos: uint8 (N, 3, H, W), returned in color; hints: (N, 3, H, W). A hint weighs the more, the nearer it is
    (`near`: a standard deviation, of the side) and the more alike its lightness (`alike`: another, in CIE units).
    """
    L = rgb_to_L_ab(photos.float() / 255)[0]
    rows, columns = (torch.arange(length) / min(L.shape[-2:]) for length in L.shape[-2:])
    colored = []
    for lightness, hint in zip(L, hints, strict=True):
        top, left = hint[2].nonzero()[::9].T  # one pixel in nine says all that a square has to say
        distance = (rows[:, None] - rows[top, None, None]).square() + (columns - columns[left, None, None]).square()
        differ = (50 * (lightness - lightness[0, top, left][:, None, None])).square()
        weight = torch.exp(-distance / (2 * near**2) - differ / (2 * alike**2)) + 1e-6
        colored.append(torch.einsum("khw,ck->chw", weight / weight.sum(0), hint[:2, top, left]))
    return metrics.as_photos(L, torch.stack(colored))


def hint_curve(
    generator: nn.Module, photos: Tensor, counts: Sequence[int], device: torch.device | str = "cpu"
) -> pd.DataFrame:
    """Return the mean PSNR in dB on uint8 photos (N, 3, H, W) with each number of hints, true colors at fixed places.

    Columns: "network", its "gain" over no hint, and "no network", see `spread_colors`.
    """
    table, truth = fixed_squares(len(photos), photos.shape[-2:], max(counts)), photos.float() / 255

    def _psnr(colored):
        return metrics.psnr(colored.float() / 255, truth).mean().item()

    rows = {}
    for count in counts:
        hints = fixed_hints(photos, table, count)
        rows[count] = {"network": _psnr(colorize_with(generator, photos, hints, device))}
        rows[count]["no network"] = _psnr(spread_colors(photos, hints))
    curve = pd.DataFrame(rows).T.rename_axis("hints")
    curve.insert(1, "gain", curve["network"] - curve["network"].iloc[0])
    return curve
