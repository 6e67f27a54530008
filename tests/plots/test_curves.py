"""Curves of training: which columns are drawn where, one figure that updates, runs and frontiers side by side."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from helpers.plots import curves, images


@pytest.fixture(autouse=True)
def figures(monkeypatch):
    """The figures in the order in which they were finished; none is left open."""
    finished = []
    finish = images.finish
    monkeypatch.setattr(images, "finish", lambda figure, name=None: finished.append(figure) or finish(figure, name))
    yield finished
    assert not plt.get_fignums()


@pytest.fixture
def axis():
    figure, axis = plt.subplots()
    yield axis
    plt.close(figure)


def steps(*names, epochs=2, count=10):
    table = pd.DataFrame({name: np.random.rand(epochs * count) + 0.1 for name in names})
    return table.assign(epoch=np.repeat(np.arange(1, epochs + 1), count))


def history(epochs=2, **more):
    values = np.arange(1.0, epochs + 1)
    named = {f"val {name}": values for name in ("L1", "PSNR", "colorfulness", "truth")}
    return pd.DataFrame({"epoch": values.astype(int), **named, **more})


def test_each_column_of_steps_is_in_one_panel_and_empty_panels_are_left_out():
    names = ["L1", "my own term", "D loss", "D accuracy (real)", "D accuracy (fake)", "G gradient", "D gradient"]
    panels = curves.panels_of(steps(*names))
    assert sorted(sum(panels.values(), [])) == sorted(names) and len(panels) == 4
    assert panels["generator's terms"] == ["L1", "my own term"] and panels["discriminator's terms"] == ["D loss"]
    assert list(curves.panels_of(steps("L1"))) == ["generator's terms"]


def test_steps_are_drawn_over_epochs_on_a_scale_that_shows_negative_values_too(axis):
    table = steps("GAN", epochs=3)
    for columns, scale in ((["GAN"], "log"), (["minus"], "symlog"), (["GAN", "minus"], "symlog")):
        curves.draw_steps(axis, table.assign(minus=-table["GAN"]), columns, "generator's terms")
        x = axis.lines[0].get_xdata()
        assert x[0] == 0 and 2.8 < x[-1] < 3 and axis.get_yscale() == scale
        axis.clear()


def test_validation_shows_ema_and_raw_weights_and_the_truths_colorfulness(axis):
    shown = {"PSNR": ["EMA weights", "raw weights"], "L1": ["raw weights"], "colorfulness": ["raw weights", "truth"]}
    for metric, lines in shown.items():
        curves.draw_validation(axis, history(**{"val PSNR raw": [1.0, 2.0]} if metric == "PSNR" else {}), metric)
        assert [text.get_text() for text in axis.get_legend().get_texts()] == lines
        axis.clear()


def test_a_live_figure_updates_in_its_place_at_most_every_two_seconds_and_shows_the_progress(monkeypatch, figures):
    shown, clock, truth = [], [0.0], torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    calls = {name: lambda _, name=name: shown.append((name, len(live.film))) for name in ("display", "update")}
    monkeypatch.setattr(curves.display, "DisplayHandle", lambda: SimpleNamespace(**calls))
    monkeypatch.setattr(curves.time, "monotonic", lambda: clock[0])
    live = curves.LiveFigure(truth)
    for epoch in range(1, 20):
        table, finished = steps("L1", epochs=epoch, count=1), epoch == 19
        live.update(SimpleNamespace(steps=table, history=history(epoch), validated=truth, finished=finished))
        clock[0] += 0.3
    assert shown == [("display", 1), ("update", 8), ("update", 15), ("update", 19)]  # the last epoch always
    labels = {line.get_label(): len(line.get_xdata()) for axis in live.figure.axes for line in axis.lines}
    assert labels["L1"] == labels["raw weights"] == 19  # the lines have moved
    live.progress("19")
    columns = [axis.get_title() for axis in figures[-1].axes if axis.get_title()]
    assert columns == ["gray", *(f"epoch {i}" for i in (1, 2, 4, 8, 16, 19)), "truth"]
    assert len(figures[-1].axes) == 3 * len(columns)  # a row for each photo


def test_runs_are_compared_even_where_one_lacks_a_metric_and_a_frontier_has_its_dot_at_saturation_1(figures):
    curves.compare({"long": history(5), "short": history().drop(columns="val PSNR")}, "two")
    assert [len(axis.lines) for axis in figures.pop().axes] == [2, 1, 2]  # L1, PSNR, colorfulness
    table = pd.DataFrame({"of truth": [0, 0.4, 0.8], "PSNR": [20, 22, 21], "L1": [0.1, 0.08, 0.09]}, index=[0.0, 1, 2])
    curves.frontiers({"a": table, "b": table.assign(LPIPS=0.1)})
    psnr, L1 = figures[0].axes  # LPIPS only where all have it
    assert [tuple(line.get_xydata()[0]) for line in psnr.lines[1::2]] == [(0.4, 22), (0.4, 22)]
    assert len(L1.lines) == 4 and [text.get_text() for text in figures[0].legends[0].get_texts()] == ["a", "b"]
