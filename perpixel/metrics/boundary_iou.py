"""Boundary IoU: the IoU of the bands that each class's mask has along its edge.

Cheng, Girshick, Dollár, Berg and Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation",
CVPR 2021. The paper scores single objects; for a semantic map the masks of each class are scored, and intersections
and unions are summed over the images of the data set before they are divided.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue
from perpixel.metrics.contours import LabelPair, label_pairs, row_bands
from perpixel.metrics.tensors import Tensor

__all__ = ["boundary_iou_counts"]


def boundary_iou_counts(
    prediction: NDArray[Any] | Tensor,
    target: NDArray[Any] | Tensor,
    num_classes: int,
    *,
    dilation_ratio: float = 0.02,
    ignore_index: int = 255,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts per class the pixels that the bands of prediction and target share, and those that either has.

    The band of a mask is the mask less its erosion by d steps of a 3x3 square: the pixels within Chebyshev distance d
    of a pixel outside. What lies beyond the image's border is outside. d = max(1, round(ratio · diagonal)), with
    Python's rounding of halves to even. Void is outside every class, in both maps.

    Args:
        prediction: Predicted train ids (H, W) or (B, H, W), in [0, K) on valid pixels, anything on others.
        target: True train ids of the same shape, each in [0, K) or equal to ``ignore_index``.
        num_classes: K.
        dilation_ratio: Width of the band as a share of the image's diagonal, at least 0.
        ignore_index: Target value that is left out.

    Returns:
        Intersections (K,) and unions (K,), int64. Sum both over images; a union of 0 leaves the class undefined.

    Raises:
        InvalidValue: shapes differ or are not 2- or 3-dimensional, the ratio is no share, or a label is out of range.

    Example:
        >>> target = np.repeat([[0, 0, 0, 1, 1, 1]], 6, axis=0)
        >>> [counts.tolist() for counts in boundary_iou_counts(np.roll(target, 1), target, 2)]
        [[4, 8], [24, 24]]
    """
    if not (dilation_ratio >= 0 and math.isfinite(dilation_ratio)):
        raise InvalidValue(f"dilation_ratio is a share of the image's diagonal, at least 0, got {dilation_ratio}")
    pairs = label_pairs(prediction, target, num_classes, ignore_index=ignore_index)
    intersections, unions = np.zeros(num_classes, dtype=np.int64), np.zeros(num_classes, dtype=np.int64)
    for pair in pairs:
        height, width = pair.target.shape
        width_px = max(1, round(dilation_ratio * math.sqrt(height**2 + width**2)))
        shared, predicted, true = _band_counts(pair, width_px, num_classes)
        intersections += shared
        unions += predicted + true - shared
    return intersections, unions


def _band_counts(pair: LabelPair, width_px: int, num_classes: int) -> list[NDArray[np.int64]]:
    """Counts (K,) the pixels in the bands of both maps at once, in the prediction's and in the target's."""
    interiors = [_interior(labels, width_px) for labels in pair[:2]]
    counts = [np.zeros(num_classes, dtype=np.int64) for _ in range(3)]
    for rows, _, _ in row_bands(pair.target.shape):
        # With all bits set a label is void.
        predicted, true = (
            (labels[rows] | np.negative(interior[rows].astype(labels.dtype))).reshape(-1)
            for labels, interior in zip(pair[:2], interiors, strict=True)
        )
        # Runs of pixels that are alike in both maps are counted as one: the maps are regions.
        changes = predicted[1:] != predicted[:-1]
        changes |= true[1:] != true[:-1]
        ends = np.append(np.flatnonzero(changes), true.size - 1)
        lengths = np.diff(ends, prepend=-1)
        predicted, true = predicted[ends], true[ends]
        both = np.where(predicted == true, true, true.dtype.type(pair.void))
        for total, labels in zip(counts, (both, predicted, true), strict=True):
            # bincount sums weights in float64, which is exact for numbers of pixels.
            pixels = np.bincount(labels, weights=lengths, minlength=pair.void + 1)
            total += pixels[:num_classes].astype(np.int64)
    return counts


def _interior(labels: NDArray[Any], width_px: int) -> NDArray[np.bool_]:
    """Marks (H, W) the pixels whose square of side 2 width_px + 1 lies in the image and holds one label.

    All other pixels are in their class's band. One label in the square means that each of its rows holds one, and that
    the rows agree at the centre column.
    """
    height, width = labels.shape
    interior = np.zeros(labels.shape, dtype=np.bool_)
    if min(height, width) <= 2 * width_px:
        return interior
    columns = slice(width_px, width - width_px)
    alike = np.empty((height, width - 2 * width_px), dtype=np.bool_)
    for rows, _, _ in row_bands(labels.shape):
        equal = labels[rows, 1:] == labels[rows, :-1]
        alike[rows] = _runs(equal.T, np.empty_like(equal).T, 2 * width_px).T
    both = alike[1:] & alike[:-1]
    for rows, _, _ in row_bands(both.shape):
        both[rows] &= labels[1:, columns][rows] == labels[:-1, columns][rows]
    interior[width_px : height - width_px, columns] = _runs(both, alike, 2 * width_px)
    return interior


def _runs(flags: NDArray[np.bool_], spare: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    """Marks along the first axis where ``length`` flags in a row begin; both arrays are overwritten."""
    known, left = 1, len(flags)
    while known < length:
        step = min(known, length - known)
        left -= step
        np.logical_and(flags[:left], flags[step : step + left], out=spare[:left])
        flags, spare = spare, flags
        known += step  # each step doubles the length that is known
    return flags[:left]
