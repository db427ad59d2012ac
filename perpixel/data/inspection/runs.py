"""A mask as runs of equal ids: its regions, which of them a coarse grid misses, and how noisy it is.

Shapes: H W mask, N runs. A run is a longest stretch of one id within a row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perpixel.label_regions import label_regions

__all__ = ["MaskRuns", "count_regions", "mask_runs", "sampled"]

_SHORT = 3
"""Runs of up to so many pixels are what smoothing leaves between two ids."""


class MaskRuns(NamedTuple):
    """The runs of a mask, row by row."""

    starts: NDArray[np.intp]
    """(N,) first pixel of each run, counted through the mask."""
    lengths: NDArray[np.intp]
    ids: NDArray[np.int64]
    first: NDArray[np.bool_]
    """(H, W) whether a run begins here."""

    def noise(self) -> tuple[int, int, int]:
        """Returns (runs inside rows, those of one pixel, short ones whose id lies between those of both sides).

        Clean masks have few of the second and third kind; JPEG makes single pixels, smoothing makes ids in between.
        """
        width = self.first.shape[1]
        column = self.starts % width
        inner = (column > 0) & (column + self.lengths < width)
        inside = np.flatnonzero(inner)
        before, own, after = self.ids[inside - 1], self.ids[inside], self.ids[inside + 1]
        short = self.lengths[inside] <= _SHORT
        between = short & (np.minimum(before, after) < own) & (own < np.maximum(before, after))
        return int(inside.size), int((self.lengths[inside] == 1).sum()), int(between.sum())


def mask_runs(ids: NDArray[Any]) -> MaskRuns:
    """Cuts a mask (H, W) into runs."""
    first = np.ones(ids.shape, dtype=bool)
    np.not_equal(ids[:, 1:], ids[:, :-1], out=first[:, 1:])
    starts = np.flatnonzero(first)
    lengths = np.diff(starts, append=ids.size)
    return MaskRuns(starts, lengths, ids.reshape(-1)[starts].astype(np.int64), first)


def sampled(size: int, points: int) -> NDArray[np.bool_]:
    """Returns which of ``size`` pixels the centres of ``points`` equal cells fall on."""
    chosen = np.zeros(size, dtype=bool)
    chosen[np.minimum(((np.arange(points) + 0.5) * size / points).astype(np.intp), size - 1)] = True
    return chosen


def count_regions(
    ids: NDArray[Any], runs: MaskRuns, rows: NDArray[np.bool_], columns: NDArray[np.bool_]
) -> dict[int, tuple[int, int]]:
    """Counts the regions of each id (pixels that touch at a side), and those of them that the grid does not meet.

    Args:
        ids: The mask (H, W).
        runs: Its runs.
        rows: (H,) rows of the grid.
        columns: (W,) columns of the grid.

    Returns:
        id -> (regions, regions without a point of the grid).
    """
    found = label_regions(ids, connectivity=4)
    row, column = np.divmod(runs.starts, ids.shape[1])
    seen = np.concatenate([[0], np.cumsum(columns)])
    met_run = rows[row] & (seen[column + runs.lengths] > seen[column])
    met = np.zeros(found.labels.size, dtype=bool)
    met[found.region[met_run]] = True
    present = np.unique(found.labels)
    place = np.searchsorted(present, found.labels)
    total = np.bincount(place, minlength=present.size)
    missed = np.bincount(place[~met], minlength=present.size)
    return {int(i): (int(t), int(m)) for i, t, m in zip(present, total, missed, strict=True)}
