"""Ways along a photo: a step across an edge of lightness is a long one, so what lies behind the edge is far away."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from scipy.sparse.csgraph import dijkstra
from skimage.graph import pixel_graph
from torch import Tensor

NODES = 2304  # of the grid on which ways are measured
GAMMA = 8.0  # how much longer a step is by a change of L, in [-1, 1]
SMOOTH = 0.6  # steps of the grid, by which noise is smoothed
SOURCES = 32  # places from which ways are measured for one photo
NEAR = 0.06  # closer places share a source; in shares of the shorter side


def grid_of(size: tuple[int, int], cells: int) -> tuple[int, int]:
    """Return rows and columns of about `cells` square cells on a map of a size (H, W), at most one for a pixel."""
    rows = max(1, round((cells * size[0] / size[1]) ** 0.5))
    return min(rows, size[0]), min(max(1, round(cells / rows)), size[1])


def sources_of(places: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Return the numbers of at most SOURCES places (K, 2) that lie far apart, and which of them is nearest to each."""
    chosen, nearest = [0], np.zeros(len(places), int)
    distance = np.hypot(*(places - places[0]).T)
    while distance.max() > NEAR and len(chosen) < SOURCES:
        chosen.append(int(distance.argmax()))
        other = np.hypot(*(places - places[chosen[-1]]).T)
        nearest = np.where(other < distance, len(chosen) - 1, nearest)
        distance = np.minimum(distance, other)
    return chosen, nearest


def detours(L: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Measure how much longer edges make the ways along a photo from K places to all others, in shorter sides.

    L: (H, W) in [-1, 1]; places: (K, 2), rows and columns in shorter sides. Returns the detours from S sources, at most
    SOURCES of the places, to a coarse grid (S, rows, columns); the source nearest to each place, (K,); and the detour
    between both, (K,). From place k to p the detour is at least |detour(s, p) - detour(s, k)|, which serves where
    places are many. Shortest paths by Dijkstra, as Yatziv and Sapiro 2006 (doi 10.1109/TIP.2005.864231) spread colors.
    """
    size, side = L.shape, min(L.shape)
    grid = grid_of(size, NODES)
    small = F.interpolate(L.detach()[None, None].double(), grid, mode="area")[0, 0].cpu().numpy()
    step = [length / count / side for length, count in zip(size, grid, strict=True)]
    graph, _ = pixel_graph(
        gaussian_filter(small, SMOOTH),
        mask=np.ones(grid, bool),
        edge_function=lambda one, other, length: length + GAMMA * np.abs(one - other),
        connectivity=2,
        spacing=step,
    )
    spots = places.detach().cpu().numpy()
    sources, nearest = sources_of(spots)
    nodes = (spots / step).astype(int).clip(0, np.subtract(grid, 1))  # (K, 2)
    ways = dijkstra(graph, indices=np.ravel_multi_index(nodes[sources].T, grid)).reshape(-1, *grid)
    y, x = np.abs(np.indices(grid)[:, None] - nodes[sources].T[..., None, None])  # (S, rows, columns)
    across = np.minimum(y, x)  # diagonal steps of the same way without edges
    longer = ways - across * np.hypot(*step) - (y - across) * step[0] - (x - across) * step[1]
    found = longer.astype(np.float32), nearest, longer[nearest, *nodes.T].astype(np.float32)
    return tuple(torch.from_numpy(array).to(L.device) for array in found)
