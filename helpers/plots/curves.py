"""Curves of training: a figure that updates while it runs, runs side by side, frontiers."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from IPython import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from helpers.plots import images

ACCURACY = ["D accuracy (real)", "D accuracy (fake)"]
NORMS = ["G gradient", "D gradient"]
LIVE = ("L1", "colorfulness")  # validation metrics of a live figure
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


def draw_steps(axis: Axes, steps: pd.DataFrame, columns: list[str], title: str) -> None:
    """Draw columns of a table of steps, smoothed, over their raw values in pale; the x axis counts epochs."""
    epochs = steps.groupby("epoch")["epoch"]
    values = steps[columns].set_index(steps["epoch"] - 1 + epochs.cumcount() / epochs.transform("size"))
    values.rolling(max(1, len(values) // 50), min_periods=1).mean().plot(ax=axis)
    values.plot(ax=axis, color=[line.get_color() for line in axis.lines], alpha=0.15, lw=0.5, legend=False)
    if title in LOG_PANELS:
        axis.set_yscale("log" if (values.min() > 0).all() else "symlog")
    axis.set_title(title, fontsize=10)
    axis.legend(axis.lines[: len(columns)], columns, fontsize=8)
    axis.set_xlabel("epoch", fontsize=8)


def draw_validation(axis: Axes, history: pd.DataFrame, metric: str) -> None:
    """Draw a validation metric of a history, for the EMA weights and the raw weights if there are both."""
    saved = "EMA" if any(column.endswith(" raw") for column in history) else "raw"
    for column, label, style in ((f"val {metric}", saved, "o-"), (f"val {metric} raw", "raw", "x--")):
        if column in history:
            axis.plot(history["epoch"], history[column], style, label=f"{label} weights", ms=4)
    if metric == "colorfulness" and "val truth" in history:
        axis.axhline(history["val truth"].iloc[-1], color="0.5", ls=":", label="truth")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))  # an epoch is whole
    axis.set_title(f"validation {with_unit(metric)}", fontsize=10)
    axis.legend(fontsize=8)
    axis.set_xlabel("epoch", fontsize=8)


def draw_all(
    figure: Figure | SubFigure, steps: pd.DataFrame, history: pd.DataFrame, metrics: Sequence[str], columns: int
) -> list[Axes]:
    """Draw every panel of the steps and some metrics of the validation into a figure; return their axes."""
    panels = panels_of(steps)
    count = len(panels) + len(metrics)
    columns = min(columns, count)
    axes = list(figure.subplots(-(-count // columns), columns, squeeze=False).flat)
    for axis, (title, names) in zip(axes, panels.items(), strict=False):
        draw_steps(axis, steps, names, title)
    for axis, metric in zip(axes[len(panels) :], metrics, strict=False):
        draw_validation(axis, history, metric)
    for axis in axes[count:]:
        axis.set_visible(False)
    return axes


class LiveFigure:
    """A figure that updates after each epoch: losses, validation metrics, and the same photos in their present colors.

    truth: validation photos, uint8 (N, 3, H, W); the first eight are shown. metrics: validation metrics to draw.
    first: rows of photos (N, 3, H, W) above, by title; gray ones if None.
    """

    def __init__(
        self, truth: Tensor, name: str | None = None, metrics: Sequence[str] = LIVE, first: dict | None = None
    ):
        self.truth, self.name, self.metrics = truth[:8], name, metrics
        self.first = first or {"gray": images.grayed(self.truth)}
        self.film, self.handle = [], None

    def update(self, steps: pd.DataFrame, history: pd.DataFrame, colorized: Tensor) -> None:
        """Redraw after an epoch: tables of steps and epochs, and photos (N, 3, H, W) in their present colors."""
        self.film.append((len(history), colorized[: len(self.truth)].clone()))
        height = 2.6 * (1 if len(panels_of(steps)) + len(self.metrics) <= 4 else 2)
        shown = {**self.first, f"epoch {len(history)}": self.film[-1][1], "truth": self.truth}
        below = 1.6 * len(shown)
        figure = plt.figure(figsize=(13, height + below), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=[height, below])
        draw_all(upper, steps, history, self.metrics, columns=4 if height < 3 else 3)
        rows = [list(photos[: len(self.truth)]) for photos in shown.values()]
        images.fill_grid(lower, rows, labels=list(shown))
        picture = images.finish(figure, self.name)
        if self.handle is None:
            self.handle = display.display(picture, display_id=True)
        else:
            self.handle.update(picture)

    def progress(self, name: str | None = None) -> display.Image:
        """Show the photos epoch by epoch, a row each, and the truth below."""
        step = -(-len(self.film) // 8)
        chosen = [*self.film[step - 1 :: step], ("truth", self.truth)]
        labels = [f"epoch {epoch}" if epoch != "truth" else epoch for epoch, _ in chosen]
        return images.finish(images.grid([list(photos) for _, photos in chosen], labels=labels, width=1.5), name)


def compare(histories: dict[str, pd.DataFrame], name: str | None = None) -> display.Image:
    """Show validation metrics of several runs on common axes. histories: a dict of name -> table of epochs."""
    metrics = ("L1", "PSNR", "colorfulness")
    figure, axes = plt.subplots(1, len(metrics), figsize=(4.6 * len(metrics) + 2, 3.4), layout="constrained")
    for axis, metric in zip(axes, metrics, strict=True):
        for label, history in histories.items():
            if f"val {metric}" in history:
                axis.plot(history["epoch"], history[f"val {metric}"], "o-", ms=3, label=label)
        axis.set(title=f"validation {with_unit(metric)}", xlabel="epoch of its phase")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return images.finish(figure, name)


def frontiers(named: dict[str, pd.DataFrame], name: str | None = None) -> display.Image:
    """Show colorizers as curves of quality against colorfulness, for saturations from 0 to 2.

    named: a dict of name -> `frontier`'s table; the dot is the model's own saturation 1.
    """
    metrics = [metric for metric in ("PSNR", "L1", "LPIPS") if all(metric in table for table in named.values())]
    size = 5.2 * len(metrics) + 2, 3.8
    figure, axes = plt.subplots(1, len(metrics), figsize=size, squeeze=False, layout="constrained")
    for axis, metric in zip(axes[0], metrics, strict=True):
        for label, table in named.items():
            line = axis.plot(table["of truth"], table[metric], label=label)[0]
            axis.plot(table["of truth"][1.0], table[metric][1.0], "o", color=line.get_color())
        axis.set(title=with_unit(metric), xlabel="colorfulness, as a share of the truth's")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return images.finish(figure, name)
