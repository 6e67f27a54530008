"""Curves of training: one figure that updates while it runs, the dynamics of both phases, runs side by side."""

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display

from helpers import plots

PANELS = {
    "generator's terms": ("G total", "GAN", "L1"),
    "discriminator's losses": ("D real", "D fake"),
    "discriminator's accuracy": ("D right on real", "D right on fake"),
    "gradient norms before clipping": ("G gradient", "D gradient"),
}
LOG_PANELS = ("generator's terms", "gradient norms before clipping")


def panels_of(steps):
    """Return which columns of a table of steps go into which panel; unforeseen terms join the generator's."""
    known = {column for columns in PANELS.values() for column in columns} | {"epoch"}
    panels = {title: [c for c in columns if c in steps] for title, columns in PANELS.items()}
    panels["generator's terms"] += [column for column in steps if column not in known]
    return {title: columns for title, columns in panels.items() if columns}


def draw_steps(axis, steps, columns, title):
    """Draw columns of a table of steps, smoothed, over their raw values in pale; the x axis counts epochs."""
    epochs = steps.groupby("epoch")["epoch"]
    x = steps["epoch"] - 1 + epochs.cumcount() / epochs.transform("size")
    for column in columns:
        values = steps[column]
        smooth = values.rolling(max(1, len(values) // 50), min_periods=1).mean()
        line = axis.plot(x, smooth, label=column)[0]
        axis.plot(x, values, color=line.get_color(), alpha=0.15, lw=0.5)
    if title in LOG_PANELS:
        axis.set_yscale("log" if (steps[columns].min() > 0).all() else "symlog")
    axis.set_title(title, fontsize=10)
    axis.legend(fontsize=7)
    axis.set_xlabel("epoch", fontsize=8)


def draw_validation(axis, history, metric="L1"):
    """Draw a validation metric of a history, the raw weights' and the averaged ones' where there are both."""
    for column, label, style in (
        (f"val {metric}", "weights for use", "o-"),
        (f"val {metric} raw", "raw weights", "x--"),
    ):
        if column in history:
            axis.plot(history["epoch"], history[column], style, label=label, ms=4)
    axis.set_title(f"validation {metric}", fontsize=10)
    axis.legend(fontsize=7)
    axis.set_xlabel("epoch", fontsize=8)


class LiveFigure:
    """One figure that is drawn anew after each epoch: losses, validation, and the same photos as they are coloured now.

    truth: the validation photos, uint8 (N, 3, H, W), of which the first `count` are shown.
    """

    def __init__(self, truth, count=8, name=None):
        self.truth, self.count, self.name = truth[:count], count, name
        self.film, self.handle = [], None

    def update(self, steps, history, colorized):
        """Draw what is known after an epoch: tables of steps and epochs, photos (N, 3, H, W) as coloured now."""
        self.film.append((len(history), colorized[: self.count].clone()))
        panels = panels_of(steps)
        count = len(panels) + 2
        columns = count if count <= 4 else 3
        rows = -(-count // columns)
        figure = plt.figure(figsize=(13, 2.6 * rows + 4.8), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=[2.6 * rows, 4.8])
        axes = list(upper.subplots(rows, columns, squeeze=False).flat)
        for axis, (title, names) in zip(axes, panels.items(), strict=False):
            draw_steps(axis, steps, names, title)
        draw_validation(axes[count - 2], history, "L1")
        draw_validation(axes[count - 1], history, "colourfulness")
        axes[count - 1].axhline(history["val truth"].iloc[-1], color="0.5", ls=":")
        for axis in axes[count:]:
            axis.set_visible(False)
        shown = {"grey": plots.greyed(self.truth), f"epoch {len(history)}": self.film[-1][1], "truth": self.truth}
        plots.fill_grid(lower, [list(tensor) for tensor in shown.values()], labels=list(shown))
        self._show(plots.finish(figure, self.name))

    def _show(self, figure):
        """Put the figure in the place of the one before."""
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)

    def progress(self, name=None):
        """Show the photos epoch by epoch, a row each, and the truth below."""
        step = -(-len(self.film) // 8)
        chosen = self.film[step - 1 :: step]
        rows = [list(photos) for _, photos in chosen] + [list(self.truth)]
        labels = [f"epoch {epoch}" for epoch, _ in chosen] + ["truth"]
        return plots.finish(plots.grid(rows, labels=labels, width=1.5), name)


def dynamics(warmup, adversarial, name=None):
    """Show both phases on one axis, their border marked. Each phase is a pair of tables: steps and history."""
    border = len(warmup[1])
    later = [table.assign(epoch=table["epoch"] + border) for table in adversarial if len(table)]
    steps, history = (pd.concat(parts) for parts in zip(warmup, later or [pd.DataFrame()] * 2, strict=True))
    figure, axes = plt.subplots(2, 4, figsize=(17, 6.5))
    for axis, metric in zip(axes[0], ("L1", "PSNR", "LPIPS", "colourfulness"), strict=True):
        draw_validation(axis, history, metric)
    panels = {"training L1": ("L1",), "who is winning": ("D real", "D fake", "GAN")}
    panels |= {title: PANELS[title] for title in list(PANELS)[2:]}
    for axis, (title, columns) in zip(axes[1], panels.items(), strict=True):
        present = [column for column in columns if column in steps]
        draw_steps(axis, steps, present, title) if present else axis.set_visible(False)
    for axis in axes.flat:
        axis.axvline(border, color="crimson", lw=1)
    return plots.finish(figure, name)


def compare(histories, metrics=("L1", "PSNR", "colourfulness"), name=None):
    """Show validation metrics of several runs on common axes. histories: a dict of name -> table of epochs."""
    figure, axes = plt.subplots(1, len(metrics), figsize=(4.6 * len(metrics), 3.4), squeeze=False)
    for axis, metric in zip(axes[0], metrics, strict=True):
        for label, history in histories.items():
            if f"val {metric}" in history:
                axis.plot(history["epoch"], history[f"val {metric}"], "o-", ms=3, label=label)
        axis.set(title=f"validation {metric}", xlabel="epoch of its phase")
        axis.legend(fontsize=7)
    return plots.finish(figure, name)
