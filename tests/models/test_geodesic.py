"""Ways along a photo: around walls, through gaps, and none longer where nothing is in the way."""

import numpy as np
import pytest
import torch

from helpers.models.geodesic import GAMMA, NODES, SOURCES, detours, grid_of, sources_of


def detour(L, place, pixel):
    """The detour from one place to a pixel, both in rows and columns of L."""
    longer, source, own = detours(L, torch.tensor([place]) / min(L.shape))
    row, column = (at * count // length for at, count, length in zip(pixel, longer.shape[1:], L.shape, strict=True))
    return (longer[source[0], row, column] - own[0]).item()


@pytest.mark.parametrize("size", [(64, 64), (96, 128), (40, 160), (5, 4), (1, 20)])
def test_nothing_in_the_way_makes_no_way_longer(size):
    longer, *_ = detours(torch.full(size, 0.3), torch.tensor([[0.4, 0.6]]))
    assert longer.shape == (1, *grid_of(size, NODES)) and longer.abs().max() < 1e-5


@pytest.mark.parametrize("height", [0.2, 0.7])
def test_a_step_of_lightness_costs_its_height(height):
    L = torch.zeros(96, 96)
    L[:, 48:] = height
    assert abs(detour(L, (50.0, 10.0), (50, 90)) - GAMMA * height) < 0.02
    assert abs(detour(L, (50.0, 10.0), (20, 25))) < 0.02  # on the same side


def test_a_gap_in_a_wall_is_a_way_around():
    wall = torch.zeros(96, 96)
    wall[:, 46:52] = 1.0
    gap = wall.clone()
    gap[70:] = 0
    closed, around = (detour(L, (20.0, 20.0), (20, 80)) for L in (wall, gap))
    assert closed > 1.5 * GAMMA  # up and down again
    # by straight and diagonal steps from (20, 20) to the wall's end at (70, 49), and up to (20, 80); smoothing of the
    # wall makes it a little longer
    shortest = (50 + (2**0.5 - 1) * 29 + 50 + (2**0.5 - 1) * 31 - 60) / 96
    assert shortest - 0.02 < around < shortest + 0.2


def test_many_places_share_sources_that_lie_far_apart():
    places = np.random.default_rng(0).random((500, 2))
    sources, nearest = sources_of(places)
    assert len(sources) == SOURCES
    distance = np.linalg.norm(places[:, None] - places[sources], axis=2)
    np.testing.assert_allclose(distance.min(1), distance[np.arange(500), nearest])
    assert distance.min(1).max() < 0.25
    assert len(sources_of(np.array([[0.5, 0.5], [0.51, 0.5], [0.1, 0.9]]))[0]) == 2  # a point's cells share one


@pytest.mark.parametrize(("size", "cells"), [((64, 64), 256), ((60, 90), 256), ((300, 20), 256), ((2, 3), 256)])
def test_a_grid_has_about_square_cells(size, cells):
    rows, columns = grid_of(size, cells)
    assert rows <= size[0] and columns <= size[1]
    if min(size) > 16:
        assert 0.7 < (size[0] / rows) / (size[1] / columns) < 1.4 and 0.8 * cells < rows * columns < 1.25 * cells
