"""Cutout (DeVries and Taylor 2017, arXiv:1708.04552) and random erasing (Zhong et al. 2017, arXiv:1708.04896).

Rectangles are covered with the padding value. Their sides are drawn as shares of the window's (random erasing draws
area and ratio, cutout one fixed square); as in cutout they may reach beyond the window's edge, their centre does not.
Neither paper segments: a pixel that shows nothing is ignored (255) unless ``keep`` is asked for, which makes the
network guess what is hidden.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["cover", "draw_holes"]


def draw_holes(
    count: int, shares: tuple[float, float], size: tuple[int, int], rng: np.random.Generator
) -> list[tuple[slice, slice]]:
    """Draws rectangles within a window of this size."""
    return [_hole(row, shares, size) for row in rng.random((count, 4)).tolist()]


def cover(
    pixels: NDArray[Any],
    labels: NDArray[np.uint8],
    holes: list[tuple[slice, slice]],
    *,
    levels: tuple[int, ...],
    label: int | None,
) -> None:
    """Fills rectangles of an image (H, W, C) and its labels (H, W) in place; ``label`` None keeps them."""
    for rows, columns in holes:
        pixels[rows, columns] = np.array(levels, dtype=pixels.dtype)
        if label is not None:
            labels[rows, columns] = label


def _hole(draws: list[float], shares: tuple[float, float], size: tuple[int, int]) -> tuple[slice, slice]:
    low, high = shares
    sides = []
    for side, share, place in zip(size, draws[:2], draws[2:], strict=True):
        length = max(1, round(side * (low + share * (high - low))))
        start = int(place * side) - length // 2
        sides.append(slice(max(0, start), min(side, start + length)))
    return sides[0], sides[1]
