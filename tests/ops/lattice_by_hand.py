"""The permutohedral filter point by point and vertex by vertex, in plain Python: the twin of ops/permutohedral.py."""

from __future__ import annotations

from collections import defaultdict
from math import sqrt

import numpy as np

Key = tuple[int, ...]


def corners(feature: np.ndarray) -> list[tuple[Key, float]]:
    """The D + 1 vertices around a point (all D + 1 coordinates of each) and their weights."""
    dims = len(feature)
    scaled = [f * sqrt(2 / 3) * (dims + 1) / sqrt((i + 1) * (i + 2)) for i, f in enumerate(feature)]
    point = [sum(scaled[max(j, 0) :]) - (j * scaled[j - 1] if j else 0.0) for j in range(dims + 1)]
    base = [(dims + 1) * round(p / (dims + 1)) for p in point]
    excess = sum(base) // (dims + 1)
    gaps = [p - b for p, b in zip(point, base, strict=True)]
    by_gap = sorted(range(dims + 1), key=lambda i: (-gaps[i], i))
    rank = [by_gap.index(i) + excess for i in range(dims + 1)]
    for i in range(dims + 1):
        turn = (rank[i] < 0) - (rank[i] > dims)
        rank[i] += turn * (dims + 1)
        base[i] += turn * (dims + 1)
    weights = [0.0] * (dims + 2)
    for i in range(dims + 1):
        share = (point[i] - base[i]) / (dims + 1)
        weights[dims - rank[i]] += share
        weights[dims + 1 - rank[i]] -= share
    weights[0] += 1 + weights.pop()
    found = []
    for r in range(dims + 1):
        key = tuple(base[i] + (r if rank[i] <= dims - r else r - dims - 1) for i in range(dims + 1))
        assert sum(key) == 0
        found.append((key, weights[r]))
    return found


def filter_by_hand(features: np.ndarray, values: np.ndarray, *, reverse: bool = False) -> np.ndarray:
    """Filters values (N, C) at features (N, D)."""
    dims = features.shape[1]
    places = [corners(feature) for feature in features]
    table: dict[Key, np.ndarray] = defaultdict(lambda: np.zeros(values.shape[1]))
    for place, value in zip(places, values, strict=True):
        for key, weight in place:
            table[key] = table[key] + weight * value
    axes = range(dims, -1, -1) if reverse else range(dims + 1)
    for axis in axes:
        blurred = {}
        for key, value in table.items():
            down = tuple(k - 1 + (dims + 1) * (i == axis) for i, k in enumerate(key))
            up = tuple(k + 1 - (dims + 1) * (i == axis) for i, k in enumerate(key))
            blurred[key] = value + (table.get(down, 0) + table.get(up, 0)) / 2
        table = blurred
    return np.stack([sum(w * table[key] for key, w in place) / (1 + 2.0**-dims) for place in places])
