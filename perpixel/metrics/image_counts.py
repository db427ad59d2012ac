"""What one image adds to the scores of a data set: right, true and predicted pixels per class.

Shapes: K classes, ``...`` any leading axes (images, resamples). Every score of the IoU family follows from these three
counts, summed over images; `perpixel.metrics.scores` computes the same from a whole confusion matrix.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue

__all__ = ["CLASS_SCORES", "SUMMARY_SCORES", "image_counts", "mean_of_defined", "ratio", "scores_of_counts"]

Floats: TypeAlias = NDArray[np.float64]

SUMMARY_SCORES = {
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iou": "frequency weighted IoU",
    "mean_dice": "mean Dice",
}
"""Scores of a whole data set, and what they are called in text."""
CLASS_SCORES = ("iou", "accuracy", "precision", "dice")
"""Scores of one class."""

_COLUMNS = 3


def image_counts(confusion: NDArray[np.int64], unpredicted: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Returns right, true and predicted pixels (K, 3) of one confusion matrix (K, K).

    Args:
        confusion: Counts, rows true and columns predicted class.
        unpredicted: Valid pixels (K,) without a predicted class, which are in no column.
    """
    truth = confusion.sum(axis=1) if unpredicted is None else confusion.sum(axis=1) + unpredicted
    return np.stack([np.diagonal(confusion), truth, confusion.sum(axis=0)], axis=1).astype(np.int64)


def scores_of_counts(counts: NDArray[Any]) -> dict[str, Floats]:
    """Computes all scores of summed counts, with the rules of `perpixel.metrics.scores`.

    Args:
        counts: (..., K, 3) right, true and predicted pixels.

    Returns:
        ``SUMMARY_SCORES`` of shape (...) and ``CLASS_SCORES`` of shape (..., K), fractions, NaN where undefined.

    Raises:
        InvalidValue: the last axis is not of length 3.
    """
    if counts.ndim < 2 or counts.shape[-1] != _COLUMNS:
        raise InvalidValue(f"counts are (..., K, 3): right, true and predicted pixels, got shape {counts.shape}")
    right, truth, predicted = (counts[..., column].astype(np.float64) for column in range(_COLUMNS))
    iou, accuracy = ratio(right, truth + predicted - right), ratio(right, truth)
    precision, dice = ratio(right, predicted), ratio(2 * right, truth + predicted)
    pixels = truth.sum(axis=-1)
    return {
        "mean_iou": mean_of_defined(iou),
        "pixel_accuracy": ratio(right.sum(axis=-1), pixels),
        "mean_accuracy": mean_of_defined(accuracy),
        "frequency_weighted_iou": ratio((truth * np.nan_to_num(iou)).sum(axis=-1), pixels),
        "mean_dice": mean_of_defined(dice),
        "iou": iou,
        "accuracy": accuracy,
        "precision": precision,
        "dice": dice,
    }


def ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> Floats:
    """Divides where the denominator is positive; NaN elsewhere."""
    result = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=np.asarray(denominator) > 0)
    return result


def mean_of_defined(values: Floats) -> Floats:
    """Averages over the last axis, NaN left out; NaN where all are."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))
