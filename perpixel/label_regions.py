"""Connected regions of equal labels, found run by run without torch.

Shapes: H W label map, N runs, R regions. A run is a longest stretch of one label within a row.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from perpixel.errors import InvalidValue

__all__ = ["LabelRegions", "label_regions"]


class LabelRegions(NamedTuple):
    """The regions of a label map, in no stated order, and the runs that they are made of."""

    labels: NDArray[np.int64]
    """(R,) the label of each region."""
    sizes: NDArray[np.int64]
    """(R,) pixels of each region."""
    starts: NDArray[np.intp]
    """(N,) the first pixel of each run, counted row by row through the map."""
    region: NDArray[np.intp]
    """(N,) the region of each run."""


def label_regions(labels: NDArray[Any], *, connectivity: Literal[4, 8] = 8) -> LabelRegions:
    """Finds the connected regions of equal labels; ignored pixels are a label like others.

    Rows are cut into runs of one label; runs that touch are joined. Two runs of one label that overlap do so from where
    one of them begins, and two that meet at a corner only, one ends where the other begins.

    Args:
        labels: Whole numbers (H, W).
        connectivity: 8 joins pixels that touch at a corner, 4 only those that share an edge.

    Raises:
        InvalidValue: the map is not (H, W) or the connectivity another.
    """
    if labels.ndim != 2:
        raise InvalidValue(f"labels are (H, W), got {labels.shape}")
    if connectivity not in (4, 8):
        raise InvalidValue(f"connectivity is 4 or 8, got {connectivity}")
    first = np.ones(labels.shape, dtype=bool)
    first[:, 1:] = labels[:, 1:] != labels[:, :-1]
    starts = np.flatnonzero(first)
    if not starts.size:
        empty = np.zeros(0, dtype=np.int64)
        return LabelRegions(empty, empty, starts, starts)
    edges = _touching_runs(labels, first, connectivity)
    graph = coo_array((np.ones(edges.shape[1], dtype=bool), (edges[0], edges[1])), shape=(starts.size, starts.size))
    number, region = connected_components(graph, directed=False)
    found = np.zeros(number, dtype=np.int64)
    found[region] = labels.reshape(-1)[starts]
    lengths = np.diff(starts, append=labels.size)
    # bincount sums weights in float64: exact, as an image has fewer than 2**53 pixels.
    sizes = np.bincount(region, weights=lengths, minlength=number).astype(np.int64)
    return LabelRegions(found, sizes, starts, region.astype(np.intp))


def _touching_runs(labels: NDArray[Any], first: NDArray[np.bool_], connectivity: int) -> NDArray[np.int64]:
    """Returns pairs (2, E) of runs in neighbouring rows that are one region."""
    run = (np.cumsum(first) - 1).reshape(labels.shape)
    touching = [(slice(None), slice(None), first[1:] | first[:-1])]
    if connectivity == 8:
        both = first[1:, 1:] & first[:-1, 1:]
        left, shifted = slice(None, -1), slice(1, None)
        touching += [(left, shifted, both), (shifted, left, both)]
    pairs = []
    for above, below, where in touching:
        chosen = where & (labels[:-1, above] == labels[1:, below])
        pairs.append(np.stack([run[:-1, above][chosen], run[1:, below][chosen]]))
    joined: NDArray[np.int64] = np.concatenate(pairs, axis=1)
    return joined
