"""Bitmaps to outlines along the edges of their pixels, exactly: filled by pixel centres they give the bitmap again.

A region is 4-connected, so that its outer outline is one ring; regions that touch at a corner alone are two. Outlines
turn at whole coordinates only. H W height and width, N corners.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["outlines", "regions", "with_holes_joined"]


def regions(bitmap: NDArray[Any]) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """Yields the 4-connected regions of a bitmap (H, W): row and column of a window, and the region in it."""
    numbered, _ = ndimage.label(bitmap != 0)
    for number, window in enumerate(ndimage.find_objects(numbered), start=1):
        yield window[0].start, window[1].start, numbered[window] == number


def outlines(region: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Returns the outlines of one 4-connected region (H, W), outer one first, then those of its holes.

    Each is (N, 2) corners x, y, in which horizontal and vertical edges take turns.
    """
    corners, across, along = _corners(region)
    partner_in_row, partner_in_column = _partners(across), _partners(along)
    unseen = np.ones(len(corners), dtype=bool)
    rings = []
    # Plain lists: the walk looks up one number at a time.
    right, down = partner_in_row.tolist(), partner_in_column.tolist()
    for start in range(len(corners)):
        if not unseen[start]:
            continue
        walk, at = [], start
        while True:
            walk += [at, right[at]]
            at = down[right[at]]
            if at == start:
                break
        unseen[walk] = False
        rings.append(corners[walk])
    if len(rings) > 1:
        rings.sort(key=lambda ring: -abs(_twice_area(ring)))
    return rings


def with_holes_joined(rings: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Joins the outlines of a region to one, for formats without holes.

    A line goes from the outer outline to each hole and back the same way, so that nothing lies between: filled by the
    even-odd rule the area is the same to the pixel.
    """
    joined = rings[0]
    for hole in rings[1:]:
        near = int(np.argmin(np.abs(joined - hole[0]).sum(axis=1)))
        joined = np.concatenate([joined[: near + 1], hole, hole[:1], joined[near:]])
    return joined


def _corners(region: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns the corners of all outlines, and keys that sort them along their row and down their column.

    Where two pixels of the region touch at a corner alone, that corner is two, one for each pixel.
    """
    padded = np.pad(region, 1).astype(np.int8)
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    count = upper_left + upper_right + lower_left + lower_right
    falling = (count == 2) & (upper_left == lower_right) & (upper_left == 1)
    rising = (count == 2) & (upper_left == lower_right) & (upper_left == 0)
    y, x = np.nonzero((count == 1) | (count == 3) | falling | rising)
    double = falling[y, x] | rising[y, x]
    x, y = np.repeat(x, 1 + double), np.repeat(y, 1 + double)
    second = np.zeros(len(x), dtype=np.int64)
    second[np.cumsum(1 + double)[double] - 1] = 1
    # The first copy of a double corner has its edge to the left. The other edge of it goes up where the pixels touch
    # from upper left to lower right, else down.
    below = np.where(rising[y, x], 1 - second, second)
    height, width = region.shape
    across = (y * (width + 2) + x) * 2 + second
    along = (x * (height + 2) + y) * 2 + below
    return np.stack([x, y], axis=1), across, along


def _partners(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns for each corner the one at the other end of its edge: sorted by key, neighbours pair up."""
    order = np.argsort(keys)
    partners = np.empty(len(keys), dtype=np.int64)
    partners[order[::2]], partners[order[1::2]] = order[1::2], order[::2]
    return partners


def _twice_area(ring: NDArray[np.int64]) -> int:
    x, y = ring.T
    return int((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())
