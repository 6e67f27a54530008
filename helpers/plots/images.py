"""Figures of photos: grids, strips, ab histograms, maps, a before-and-after slider."""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython import display
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from helpers import workspace
from helpers.color import ab_of, gray_rgb, rgb_to_L_ab

Texts = list[str] | None
plt.style.use("petroff10")  # colors of lines that color-blind readers tell apart (Petroff 2021, arXiv 2107.02270)


def as_image(photo: Tensor | np.ndarray) -> np.ndarray:
    """Return a photo (3, H, W) or map (1, H, W), uint8 or in [0, 1], as an array (H, W, 3) or (H, W) for matplotlib."""
    if isinstance(photo, np.ndarray):
        return photo
    image = photo.detach().cpu()
    image = image.float() / 255 if image.dtype == torch.uint8 else image.float().clamp(0, 1)
    return image.permute(1, 2, 0).squeeze(-1).numpy()


def finish(figure: Figure, name: str | None = None) -> display.Image:
    """Draw a figure, save it as `figures/<name>.png` of the workspace if named, close it, and return its picture."""
    if figure.get_layout_engine() is None:
        figure.set_layout_engine("tight")
    figure.savefig(file := io.BytesIO(), format="png", dpi=110)
    plt.close(figure)  # or Jupyter shows it twice
    return _saved(file.getvalue(), name)


def png(pixels: np.ndarray, name: str | None = None) -> display.Image:
    """Return a picture, uint8 (H, W, 3), to display; save it as `figures/<name>.png` of the workspace if named."""
    Image.fromarray(pixels).save(file := io.BytesIO(), "PNG", compress_level=1)
    return _saved(file.getvalue(), name)


def _saved(png: bytes, name: str | None) -> display.Image:
    if name:
        (workspace.folder("figures") / f"{name}.png").write_bytes(png)
    return display.Image(png)  # Jupyter would draw a Figure a second time


def grid(rows: list[list], titles: Texts = None, labels: Texts = None, width: float = 1.7) -> Figure:
    """Draw rows of photos. rows: a list of lists of (3, H, W); titles: one per column; labels: one per row."""
    shown = [[as_image(photo) for photo in row] for row in rows]
    tallest = max(image.shape[0] / image.shape[1] for row in shown for image in row)
    columns, bare = max(map(len, shown)), {"xticks": [], "yticks": [], "frame_on": False}
    size = width * columns, width * tallest * len(rows) + (0.3 if titles else 0.0)  # room for a line of titles
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False, subplot_kw=bare)
    for line, row in zip(axes, shown, strict=True):
        for axis, image in zip(line, row, strict=False):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
    for axis, title in zip(axes[0], titles or [], strict=False):
        axis.set_title(title, fontsize=9)
    for axis, label in zip(axes[:, 0], labels or [], strict=False):
        axis.set_ylabel(label, fontsize=9)
    return figure


def montage(rows: list[Tensor], gap: int = 2) -> np.ndarray:
    """Return rows of photos (N, 3, H, W), uint8 or in [0, 1], as one picture (H, W, 3) in [0, 1]; a fast `grid`."""
    shown = torch.cat([(row.float() / 255 if row.dtype == torch.uint8 else row).cpu() for row in rows])
    return make_grid(shown, nrow=len(rows[0]), padding=gap, pad_value=1.0).clamp(0, 1).permute(1, 2, 0).numpy()


def photos(tensor: Tensor, titles: Texts = None, columns: int = 8, name: str | None = None) -> display.Image:
    """Show photos (N, 3, H, W) in a grid, in their order."""
    figure = grid([list(part) for part in tensor.split(columns)], width=1.6)
    for axis, title in zip(figure.axes, titles or [], strict=False):
        axis.set_title(title, fontsize=8)
    return finish(figure, name)


def strips(named: dict[str, Tensor], count: int = 8, name: str | None = None) -> display.Image:
    """Show named sets of the same photos one above the other. named: a dict of label -> photos (N, 3, H, W)."""
    rows = [list(tensor[:count]) for tensor in named.values()]
    return finish(grid(rows, labels=list(named)), name)


def grayed(photos: Tensor) -> Tensor:
    """Return photos (N, 3, H, W), uint8 or in [0, 1], as gray photos in [0, 1]."""
    return gray_rgb(rgb_to_L_ab(photos.float() / 255 if photos.dtype == torch.uint8 else photos)[0])


def ab_histograms(named: dict[str, Tensor], name: str | None = None) -> display.Image:
    """Show where in the ab plane the pixels of photo sets lie, on a logarithmic scale.

    named: a dict of title -> uint8 photos (N, 3, H, W). Each title gets the share of pixels with a chroma below 10.
    """
    figure, axes = plt.subplots(1, len(named), figsize=(4.3 * len(named), 4), squeeze=False, layout="constrained")
    for axis, (title, tensor) in zip(axes[0], named.items(), strict=True):
        a, b = ab_of(tensor).permute(1, 0, 2, 3).flatten(1).numpy()
        near_gray, shares, bins = (np.hypot(a, b) < 10).mean(), np.full(len(a), 1 / len(a)), [np.arange(-80, 81, 2)] * 2
        *_, picture = axis.hist2d(a, b, bins, weights=shares, norm=LogNorm(1e-6, 1e-1), cmap="magma")
        axis.axhline(0, color="white", lw=0.5)
        axis.axvline(0, color="white", lw=0.5)
        axis.set(title=f"{title}\n{near_gray:.0%} of pixels nearly gray", xlabel="a*", ylabel="b*", aspect="equal")
        axis.set_facecolor("black")
    figure.colorbar(picture, ax=axes[0, -1], label="share of pixels")
    return finish(figure, name)


def heat(maps: dict[str, Tensor | np.ndarray], name: str | None = None) -> display.Image:
    """Show maps (H, W) beside each other, each with a color bar, and photos (H, W, 3) as they are; by title."""
    return finish(heat_figure(maps), name)


def heat_figure(maps: dict[str, Tensor | np.ndarray], cmaps: tuple | None = None) -> Figure:
    """Draw the figure of `heat`, to add to it; cmaps: a color map for each map."""
    figure, axes = plt.subplots(1, len(maps), figsize=(4.0 * len(maps), 3.4), squeeze=False)
    for axis, (title, values), cmap in zip(axes[0], maps.items(), cmaps or ["viridis"] * len(maps), strict=True):
        picture = axis.imshow(values, cmap=cmap)
        axis.set_title(title, fontsize=9)
        axis.axis("off")
        if values.ndim == 2:
            figure.colorbar(picture, ax=axis, fraction=0.046)
    return figure


def slider(before: np.ndarray, after: np.ndarray, width: int = 640) -> display.HTML:
    """Show two photos (H, W, 3) uint8 of one size, the second over the first, with a slider between them.

    It also works in a saved notebook and in a static export.
    """
    sources, size = [], (min(width, before.shape[1]), round(min(1, width / before.shape[1]) * before.shape[0]))
    for photo in (before, after):
        Image.fromarray(photo).resize(size).save(file := io.BytesIO(), "JPEG", quality=90)
        sources.append("data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode())
    move = "this.previousElementSibling.lastElementChild.style.clipPath='inset(0 0 0 '+this.value+'%)'"
    return display.HTML(
        f'<div style="width:{size[0]}px"><div style="position:relative;height:{size[1]}px">'
        f'<img src="{sources[0]}" style="position:absolute;margin:0">'
        f'<img src="{sources[1]}" style="position:absolute;margin:0;clip-path:inset(0 0 0 50%)"></div>'
        f'<input type="range" min="0" max="100" value="50" style="width:100%;margin:0" oninput="{move}"></div>'
    )
