"""How often each pair of byte values meets in two label maps: what every confusion matrix of the host is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BYTE_VALUES", "pair_counts"]

BYTE_VALUES = 256
_CHUNK = 1 << 17
"""Pixels counted at a time: what is made of them stays in the second-level cache."""
_CACHED = 1 << 15
_RUNS_PAY_FROM = 3
"""Mean run length, in pixels, from which counting runs is faster than counting pixels."""


def pair_counts(prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[np.int64] | None:
    """Counts the pixels of each pair of values in 0..255.

    Args:
        prediction: Integers of any type and shape.
        target: Integers of the same number of elements.

    Returns:
        (256, 256) int64, rows target and columns prediction; None when a value is outside 0..255.
    """
    flat_prediction, flat_target = prediction.reshape(-1), target.reshape(-1)
    table = np.zeros(BYTE_VALUES * BYTE_VALUES, dtype=np.int64)
    for start in range(0, flat_target.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        high, low = _bytes(flat_target[part]), _bytes(flat_prediction[part])
        if high is None or low is None:
            return None
        # Void is 255 nearly everywhere: rows start there, so that a few classes need a few rows of the table.
        cells = (high + np.uint8(1)).astype(np.uint16)
        cells <<= 8
        cells |= low
        counts = _count(cells)
        table[: counts.size] += counts
    return np.roll(table.reshape(BYTE_VALUES, BYTE_VALUES), -1, axis=0)


def _bytes(labels: NDArray[Any]) -> NDArray[np.uint8] | None:
    if labels.dtype == np.uint8:
        return labels
    narrow = np.empty(labels.shape, dtype=np.uint8)
    for start in range(0, labels.size, _CACHED):
        part = labels[start : start + _CACHED]
        # As a Python integer, since no signed byte can hold 255.
        if int(np.bitwise_or.reduce(part)) & ~(BYTE_VALUES - 1):
            return None
        narrow[start : start + _CACHED] = part
    return narrow


def _count(cells: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Counts values (N,), N >= 1, up to the largest; label maps are regions, so most pixels repeat the one before."""
    changes = cells[1:] != cells[:-1]
    if np.count_nonzero(changes) * _RUNS_PAY_FROM > cells.size:
        return np.bincount(cells)
    ends = np.append(np.flatnonzero(changes), cells.size - 1)
    lengths = np.diff(ends, prepend=-1)
    # bincount sums weights in float64: exact, as a chunk has fewer than 2**53 pixels.
    return np.bincount(cells[ends], weights=lengths).astype(np.int64)
