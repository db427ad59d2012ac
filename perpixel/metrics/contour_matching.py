"""SegNet's form of the BF score: contour pixels are matched one to one, so that each counts once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_flow

from perpixel.metrics.contours import ContourPixels

__all__ = ["one_to_one"]


def one_to_one(
    predicted: ContourPixels, true: ContourPixels, offsets: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which pixels of each contour the largest one-to-one matching of near pixels of one class pairs."""
    number = np.zeros(true.padded.size, dtype=np.int32)
    number[true.place] = np.arange(len(true.place), dtype=np.int32)
    labels = true.padded.reshape(-1)
    rows, columns = [], []
    for step in (offsets[:, 0] * true.padded.shape[1] + offsets[:, 1]).tolist():
        place = predicted.place + step
        row = np.flatnonzero(labels[place] == predicted.label)
        rows.append(row)
        columns.append(number[place[row]])
    count, source = len(predicted.place), len(predicted.place) + len(true.place)
    sink = source + 1
    # The largest flow of whole units is the largest matching. (SciPy's own bipartite matching, as of 1.17, takes
    # exponential time on chains of neighbours, which is what contours are.)
    starts = [*rows, np.full(count, source), np.arange(count, source)]
    ends = [*(column + count for column in columns), np.arange(count), np.full(source - count, sink)]
    edges = np.concatenate(starts).astype(np.int32), np.concatenate(ends).astype(np.int32)
    network = coo_array((np.ones(len(edges[0]), dtype=np.int32), edges), shape=(sink + 1, sink + 1)).tocsr()
    flow = maximum_flow(network, source, sink).flow.tocoo()
    # The flow of an edge stands with the other sign at the edge back.
    row, column = (index[flow.data > 0] for index in flow.coords)
    paired = np.zeros(sink + 1, dtype=np.bool_)
    paired[row] = paired[column] = True
    return paired[:count], paired[count:source]
