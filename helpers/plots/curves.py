"""Curves of training: a figure that updates while it runs, runs side by side, frontiers."""

import math
import time
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython import display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from helpers.plots import images

ACCURACY = ["D accuracy (real)", "D accuracy (fake)"]
NORMS = ["G gradient", "D gradient"]
LIVE = ("L1", "colorfulness")  # validation metrics of a live figure
AXES = {"epoch": "epoch of its phase", "of truth": "colorfulness, as a share of the truth's"}
LAPSE = 2.0  # seconds between two drawings of a live figure
LOG_PANELS = ("generator's terms", "gradient norms before clipping")


def with_unit(metric: str) -> str:
    """Return a metric's name, with its unit if it has one."""
    return f"{metric}, dB" if metric.startswith("PSNR") else metric


def panels_of(steps: pd.DataFrame) -> dict[str, list[str]]:
    """Return the columns of a table of steps for each panel, whatever terms the losses have."""
    terms = [column for column in steps if column not in ("epoch", *ACCURACY, *NORMS)]
    panels = {
        "generator's terms": [name for name in terms if not name.startswith("D ")],
        "discriminator's terms": [name for name in terms if name.startswith("D ")],
        "discriminator's accuracy": [name for name in ACCURACY if name in steps],
        "gradient norms before clipping": [name for name in NORMS if name in steps],
    }
    return {title: columns for title, columns in panels.items() if columns}


def curve(axis: Axes, label: str, x: Sequence, y: Sequence, style: str = "-", **looks: Any) -> None:
    """Draw a line, or move the one that has this label already."""
    drawn = {line.get_label(): line for line in axis.lines}
    if label in drawn:
        drawn[label].set_data(x, y)
    else:
        axis.plot(x, y, style, label=label, **looks)


def fit_axis(axis: Axes, title: str, scale: str = "linear") -> None:
    """Fit the limits of an axis to its lines; at the first time, give it a title, a legend and few ticks."""
    if axis.get_yscale() != scale:
        axis.set_yscale(scale)
        axis.minorticks_off()
    axis.relim()
    axis.autoscale_view()
    if axis.get_legend() is None:
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))  # an epoch is whole
        axis.legend(fontsize=8)
    y = np.asarray(axis.lines[0].get_ydata())
    axis.get_legend().set_loc("lower right" if y[-1] > y[0] else "upper right")  # where the curve is not


def draw_steps(axis: Axes, steps: pd.DataFrame, columns: list[str], title: str) -> None:
    """Draw columns of a table of steps, smoothed, over their raw values in pale; the x axis counts epochs."""
    epochs = steps.groupby("epoch")["epoch"]
    x = steps["epoch"] - 1 + epochs.cumcount() / epochs.transform("size")
    smooth = steps[columns].rolling(max(1, len(steps) // 50), min_periods=1).mean()
    for i, name in enumerate(columns):
        curve(axis, name, x, smooth[name], color=f"C{i}")
        curve(axis, f"_{name}", x, steps[name], color=f"C{i}", alpha=0.15, lw=0.5)
    positive = (steps[columns].min() > 0).all()
    fit_axis(axis, title, "linear" if title not in LOG_PANELS else "log" if positive else "symlog")


def draw_validation(axis: Axes, history: pd.DataFrame, metric: str) -> None:
    """Draw a validation metric of a history, for the EMA weights and the raw weights if there are both."""
    saved = "EMA" if any(column.endswith(" raw") for column in history) else "raw"
    for column, label, style in ((f"val {metric}", saved, "o-"), (f"val {metric} raw", "raw", "x--")):
        if column in history:
            curve(axis, f"{label} weights", history["epoch"], history[column], style, ms=4)
    if metric == "colorfulness" and "val truth" in history:
        curve(axis, "truth", history["epoch"].iloc[[0, -1]], [history["val truth"].iloc[-1]] * 2, ":", color="0.5")
    fit_axis(axis, f"validation {with_unit(metric)}")


def draw_all(axes: Sequence[Axes], steps: pd.DataFrame, history: pd.DataFrame, metrics: Sequence[str]) -> None:
    """Draw every panel of the steps, and some metrics of the validation, into axes; hide the axes that are left."""
    panels = panels_of(steps)
    for axis in axes[len(panels) + len(metrics) :]:
        axis.set_visible(False)
    for axis, (title, names) in zip(axes, panels.items(), strict=False):
        draw_steps(axis, steps, names, title)
    for axis, metric in zip(axes[len(panels) :], metrics, strict=False):
        draw_validation(axis, history, metric)


class LiveFigure:
    """A figure that updates after each epoch: losses, validation metrics, and the same photos in their present colors.

    truth: photos to watch, uint8 (N, 3, H, W); the first eight are shown. metrics: validation metrics to draw. first:
    rows of photos (N, 3, H, W) above, by title; gray ones if None.
    """

    def __init__(self, truth: Tensor, name: str | None = None, metrics: Sequence[str] = LIVE, first: Any = None):
        self.truth, self.name, self.metrics = truth[:8], name, metrics
        self.first = first or {"gray": images.grayed(self.truth)}
        self.film, self.figure, self.drawn = [], None, -math.inf

    def update(self, trainer: Any) -> None:
        """Redraw after an epoch of a `Trainer`, but not within 2 s of the last time; pass it to `fit` as `show`."""
        self.film.append((len(trainer.history), trainer.validated[: len(self.truth)].clone()))
        if time.monotonic() - self.drawn < LAPSE and not trainer.finished:
            return
        rows = {**self.first, f"epoch {len(trainer.history)}": self.film[-1][1], "truth": self.truth}
        picture, first = images.montage([*rows.values()]), self.figure is None
        if first:
            self._make(len(panels_of(trainer.steps)) + len(self.metrics), picture)
        draw_all(self.panels, trainer.steps, trainer.history, self.metrics)
        self.photos.set_data(picture)
        middles = (np.arange(len(rows)) + 0.5) * picture.shape[0] / len(rows)
        self.photos.axes.set_yticks(middles, [*rows], rotation=90, va="center")
        if first:  # the layout is found once, because that takes longest
            self.figure.draw_without_rendering()
            self.figure.set_layout_engine("none")
        self.figure.canvas.draw()  # `savefig` would draw everything twice
        drawn = images.png(np.asarray(self.figure.canvas.buffer_rgba())[..., :3], self.name)
        (self.handle.display if first else self.handle.update)(drawn)
        self.drawn = time.monotonic()

    def _make(self, panels: int, picture: np.ndarray) -> None:
        """Make the figure: axes for panels in one or two rows, and a picture below."""
        rows = 1 if panels <= 4 else 2
        heights = 2.6 * rows, 13 * picture.shape[0] / picture.shape[1]
        self.figure = Figure((13, sum(heights)), dpi=80, layout="constrained")
        FigureCanvasAgg(self.figure)
        upper, lower = self.figure.subfigures(2, 1, height_ratios=heights)
        self.panels = [*upper.subplots(rows, -(-panels // rows), squeeze=False).flat]
        self.photos = lower.subplots(subplot_kw={"xticks": [], "frame_on": False}).imshow(picture)
        self.photos.axes.tick_params(length=0)
        self.handle = display.DisplayHandle()

    def progress(self, name: str | None = None) -> display.Image:
        """Show the photos epoch by epoch (1, 2, 4, 8 ... and the last), a row each, from gray to the truth."""
        last = len(self.film) - 1
        chosen = [pair for i, pair in enumerate(self.film) if (i + 1) & i == 0 or i == last]
        stages = {**self.first, **{f"epoch {epoch}": photos for epoch, photos in chosen}, "truth": self.truth}
        return images.finish(images.grid([*zip(*stages.values(), strict=True)], [*stages]), name)


def _side_by_side(
    tables: dict[str, pd.DataFrame], metrics: Sequence[str], x: str, y: str, name: str | None, mark: float | None = None
) -> display.Image:
    """Draw a metric of several tables on common axes, for each metric; x: a column, y: what its columns begin with."""
    size = 4.9 * len(metrics) + 2, 3.6
    figure, axes = plt.subplots(1, len(metrics), figsize=size, squeeze=False, layout="constrained")
    for axis, metric in zip(axes[0], metrics, strict=True):
        for label, table in tables.items():
            if y + metric in table:
                line = axis.plot(table[x], table[y + metric], ".-", label=label)[0]
                if mark is not None:
                    axis.plot(table[x][mark], table[y + metric][mark], "o", color=line.get_color())
        axis.set(title=y.replace("val", "validation") + with_unit(metric), xlabel=AXES[x])
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return images.finish(figure, name)


def compare(histories: dict[str, pd.DataFrame], name: str | None = None) -> display.Image:
    """Show validation metrics of several runs on common axes. histories: a dict of name -> table of epochs."""
    return _side_by_side(histories, ("L1", "PSNR", "colorfulness"), "epoch", "val ", name)


def frontiers(named: dict[str, pd.DataFrame], name: str | None = None) -> display.Image:
    """Show colorizers as curves of quality against colorfulness, for saturations from 0 to 2.

    named: a dict of name -> `frontier`'s table; the dot is the model's own saturation 1.
    """
    metrics = [metric for metric in ("PSNR", "L1", "LPIPS") if all(metric in table for table in named.values())]
    return _side_by_side(named, metrics, "of truth", "", name, mark=1.0)
