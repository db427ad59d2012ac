"""Trimap scores: the confusion matrix of the pixels within some distance of a true edge between classes.

Kohli, Ladický and Torr, "Robust Higher Order Potentials for Enforcing Label Consistency", IJCV 2009; Krähenbühl and
Koltun 2011 and Chen et al. (DeepLab) draw the score over the width. Here an edge pixel has a 4-neighbour of another
valid class, distances are Euclidean between pixel centres, and void and image border make no edge. (DeepLab drew its
curves on PASCAL VOC around the *void* strips of the truth; those pixels are never scored here.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from perpixel.errors import InvalidValue
from perpixel.metrics.contours import LabelPair, edge_mask, label_pairs, row_bands
from perpixel.metrics.tensors import Tensor

__all__ = ["squared_distances", "trimap_confusion", "trimap_confusions"]

_MAX_BOUNDED_PX = 127


def trimap_confusion(
    prediction: NDArray[Any] | Tensor,
    target: NDArray[Any] | Tensor,
    num_classes: int,
    *,
    width_px: float,
    ignore_index: int = 255,
) -> NDArray[np.int64]:
    """Counts the valid pixels within ``width_px`` of a true edge, by true and predicted class.

    Args:
        prediction: Predicted train ids (H, W) or (B, H, W), in [0, K) on valid pixels, anything on others.
        target: True train ids of the same shape, each in [0, K) or equal to ``ignore_index``.
        num_classes: K.
        width_px: Largest Euclidean distance, in pixels, to an edge pixel; at least 0. Both pixels beside an edge are
            edge pixels.
        ignore_index: Target value that is left out.

    Returns:
        Counts (K, K) int64, rows true and columns predicted class, to be summed over images and given to ``scores``.
        All zero when the truth has no edge.

    Raises:
        InvalidValue: shapes differ or are not 2- or 3-dimensional, the width is negative, or a label is out of range.

    Example:
        >>> target = np.repeat([[0, 0, 0, 1, 1, 1]], 2, axis=0)
        >>> trimap_confusion(np.zeros_like(target), target, 2, width_px=1).tolist()
        [[4, 0], [4, 0]]
    """
    counts = trimap_confusions(prediction, target, num_classes, widths_px=[width_px], ignore_index=ignore_index)
    return counts.reshape(num_classes, num_classes)


def trimap_confusions(
    prediction: NDArray[Any] | Tensor,
    target: NDArray[Any] | Tensor,
    num_classes: int,
    *,
    widths_px: Sequence[float],
    ignore_index: int = 255,
) -> NDArray[np.int64]:
    """Does what ``trimap_confusion`` does for several widths from one distance map: a curve costs little more.

    Args:
        prediction: As for ``trimap_confusion``.
        target: As for ``trimap_confusion``.
        num_classes: K.
        widths_px: Distances in pixels (W), each at least 0, in any order.
        ignore_index: Target value that is left out.

    Returns:
        Counts (W, K, K) int64, in the order of the widths.

    Raises:
        InvalidValue: as for ``trimap_confusion``, or no width is given.
    """
    widths = np.asarray(list(widths_px), dtype=np.float64)
    if not widths.size or not (widths >= 0).all():
        raise InvalidValue(f"a trimap's width is a distance in pixels, at least 0, got {list(widths_px)}")
    pairs = label_pairs(prediction, target, num_classes, ignore_index=ignore_index)
    ascending = np.unique(widths)
    counts = np.zeros((len(ascending), num_classes, num_classes), dtype=np.int64)
    for pair in pairs:
        edges = edge_mask(pair.target, pair.void)
        if edges.any():
            counts += _counts_by_ring(pair, edges, ascending, num_classes)
    within: NDArray[np.int64] = counts.cumsum(axis=0)[np.searchsorted(ascending, widths)]
    return within


def squared_distances(edges: NDArray[np.bool_], limit_px: int) -> NDArray[np.uint16]:
    """Returns the squared Euclidean distance (H, W) of each pixel to the nearest edge pixel, exact up to a limit.

    Beyond the limit the value is larger than the limit's square. The distance within each row comes first, by steps of
    1, 2, 4…; then each pixel takes the least of (row distance)² + (rows between)² over the rows within the limit.

    Args:
        edges: Edge pixels (H, W).
        limit_px: Largest distance that matters, from 0 to 127.

    Raises:
        InvalidValue: the limit is out of range.
    """
    if not 0 <= limit_px <= _MAX_BOUNDED_PX:
        raise InvalidValue(f"limit_px must be from 0 to {_MAX_BOUNDED_PX}, got {limit_px}")
    nearest = np.empty(edges.shape, dtype=np.uint16)
    squares = _squares_in_row(edges, limit_px)
    for rows, _, _ in row_bands(edges.shape):
        nearest[rows] = _nearest_in_rows(squares, rows, limit_px)
    return nearest


def _squares_in_row(edges: NDArray[np.bool_], limit_px: int) -> NDArray[np.uint16]:
    """Squared distance to the nearest edge pixel of the same row, with limit_px rows above and below without edge."""
    height, width = edges.shape
    squares = np.full((height + 2 * limit_px, width), (limit_px + 1) ** 2, dtype=np.uint16)
    for rows, _, _ in row_bands(edges.shape):
        in_row = _distance_in_row(edges[rows], limit_px)
        np.multiply(in_row, in_row, out=squares[limit_px + rows.start : limit_px + rows.stop], dtype=np.uint16)
    return squares


def _nearest_in_rows(squares: NDArray[np.uint16], rows: slice, limit_px: int) -> NDArray[np.uint16]:
    """Squared distance to the nearest edge pixel, for the given rows of the image."""
    first, last = rows.start + limit_px, rows.stop + limit_px
    nearest = squares[first:last].copy()
    for apart in range(1, limit_px + 1):
        other = np.minimum(squares[first - apart : last - apart], squares[first + apart : last + apart])
        other += np.uint16(apart * apart)
        np.minimum(nearest, other, out=nearest)
    return nearest


def _distance_in_row(edges: NDArray[np.bool_], limit_px: int) -> NDArray[np.uint8]:
    """Distance (h, W) to the nearest edge pixel of the same row, or limit_px + 1 where that is farther."""
    # The largest byte is 191 + 64, with 64 the longest step.
    distance: NDArray[np.uint8] = (edges.view(np.uint8) - np.uint8(1)) & np.uint8(191)
    step = 1
    while step <= limit_px and step < edges.shape[1]:
        farther = distance + np.uint8(step)
        np.minimum(distance[:, step:], farther[:, :-step], out=distance[:, step:])
        np.minimum(distance[:, :-step], farther[:, step:], out=distance[:, :-step])
        step *= 2
    np.minimum(distance, np.uint8(limit_px + 1), out=distance)
    return distance


def _counts_by_ring(
    pair: LabelPair, edges: NDArray[np.bool_], widths_px: NDArray[np.float64], num_classes: int
) -> NDArray[np.int64]:
    """Counts (W, K, K) of the pixels within each width, ascending, but not within the one before."""
    bounded = widths_px[-1] <= _MAX_BOUNDED_PX
    limit = math.ceil(widths_px[-1]) if bounded else 0
    squares, distance = _squares_in_row(edges, limit), np.zeros(0)
    ring_of_square = np.searchsorted(widths_px, np.sqrt(np.arange(limit * limit + 1)))
    largest_square = np.count_nonzero(ring_of_square < len(widths_px)) - 1
    if not bounded:
        distance = distance_transform_edt(~edges)
    counts = np.zeros(len(widths_px) * num_classes * num_classes, dtype=np.int64)
    for rows, _, _ in row_bands(edges.shape):
        here = _nearest_in_rows(squares, rows, limit) if bounded else distance[rows]
        near = here <= (largest_square if bounded else widths_px[-1])
        near &= pair.target[rows] != pair.void
        chosen = np.flatnonzero(near)
        value = here.reshape(-1)[chosen]
        cell = ring_of_square[value] if bounded else np.searchsorted(widths_px, value)
        for labels in (pair.target, pair.prediction):
            cell = cell * num_classes + labels[rows].reshape(-1)[chosen]
        counts += np.bincount(cell, minlength=counts.size)
    return counts.reshape(len(widths_px), num_classes, num_classes)
