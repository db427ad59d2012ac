"""The scores of a confusion matrix: pixel accuracy, IoU family and Dice, with the convention for absent classes.

Shapes: K classes. With n the confusion matrix (rows true, columns predicted), t its row and p its column sums:
pixel accuracy = sum n_ii / sum t_i, accuracy_i = n_ii / t_i, precision_i = n_ii / p_i,
IoU_i = n_ii / (t_i + p_i - n_ii), Dice_i = 2 n_ii / (t_i + p_i), frequency weighted IoU = sum t_i IoU_i / sum t_i.
A class that neither truth nor prediction holds has no IoU and no Dice: NaN, left out of the means, and not counted in
``classes_averaged``. A class that is only predicted has IoU 0 and counts. Mean accuracy averages over the classes in
the truth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue
from perpixel.metrics.tensors import Tensor

__all__ = ["ClassScores", "Scores", "scores", "to_json"]


class ClassScores(TypedDict):
    """Scores of one class as fractions in [0, 1], NaN where undefined."""

    name: str
    iou: float
    accuracy: float
    precision: float
    dice: float
    pixels: int
    """Valid pixels of this class in the truth."""


class Scores(TypedDict):
    """Scores of a data set as fractions in [0, 1], NaN where undefined; the keys are those of metrics.json."""

    pixel_accuracy: float
    mean_accuracy: float
    mean_iou: float
    frequency_weighted_iou: float
    mean_dice: float
    classes_averaged: int
    """Classes that truth or prediction holds: the divisor of mean_iou and mean_dice."""
    pixels: int
    """Valid pixels."""
    confusion: list[list[int]]
    per_class: list[ClassScores]
    images: NotRequired[int]
    unpredicted: NotRequired[list[int]]
    """Valid pixels per class without a predicted class, in the row sums but in no column of ``confusion``."""


def scores(
    confusion: Tensor | NDArray[Any],
    names: Sequence[str] | None = None,
    *,
    unpredicted: NDArray[np.int64] | None = None,
) -> Scores:
    """Computes all scores of a confusion matrix in float64.

    Args:
        confusion: Counts (K, K), integers, rows true and columns predicted class.
        names: One name per class; None numbers them.
        unpredicted: Valid pixels (K,) of each true class for which no class was predicted: wrong predictions that are
            in the row sums t but in no column. None means none, and leaves the key out.

    Returns:
        Scores; every fraction is NaN when there is no valid pixel.

    Raises:
        InvalidValue: the matrix is not square, not of whole numbers, holds a negative count, or the number of names
            or of unpredicted counts differs.

    Example:
        >>> scores(np.array([[3, 1], [0, 4]]))["pixel_accuracy"]
        0.875
    """
    counts = _checked(confusion)
    if names is None:
        names = [f"class {i}" for i in range(len(counts))]
    if len(names) != len(counts):
        raise InvalidValue(f"{len(names)} class names for a confusion matrix of {len(counts)} classes")
    right, truth, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    if unpredicted is not None:
        truth = truth + _one_per_class(unpredicted, len(counts))
    iou, accuracy = _ratio(right, truth + predicted - right), _ratio(right, truth)
    precision, dice = _ratio(right, predicted), _ratio(2 * right, truth + predicted)
    pixels = int(truth.sum())
    present = truth > 0
    columns = [values.tolist() for values in (iou, accuracy, precision, dice, truth)]
    result: Scores = {
        "pixel_accuracy": int(right.sum()) / pixels if pixels else math.nan,
        "mean_accuracy": _mean(accuracy),
        "mean_iou": _mean(iou),
        "frequency_weighted_iou": float((truth[present] * iou[present]).sum()) / pixels if pixels else math.nan,
        "mean_dice": _mean(dice),
        "classes_averaged": int(np.count_nonzero(~np.isnan(iou))),
        "pixels": pixels,
        "confusion": counts.tolist(),
        "per_class": [
            {"name": str(name), "iou": i, "accuracy": a, "precision": p, "dice": d, "pixels": t}
            for name, i, a, p, d, t in zip(names, *columns, strict=True)
        ],
    }
    if unpredicted is not None:
        result["unpredicted"] = unpredicted.tolist()
    return result


def to_json(value: Any) -> Any:
    """Turns scores, or anything built of mappings, sequences, arrays and numbers, into what strict JSON can hold.

    NaN and infinities become None (JSON has neither), arrays and tensors lists, paths strings.

    Raises:
        InvalidValue: a value of another type is in there.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, np.generic | np.ndarray | Tensor):
        return to_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    raise InvalidValue(f"a {type(value).__name__} cannot be written as JSON: {value!r}")


def _checked(confusion: Tensor | NDArray[Any]) -> NDArray[np.int64]:
    counts = confusion.detach().cpu().numpy() if isinstance(confusion, Tensor) else np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise InvalidValue(f"a confusion matrix is square, (K, K), got shape {counts.shape}")
    if counts.dtype.kind not in "iu":
        raise InvalidValue(f"a confusion matrix holds whole numbers, got {counts.dtype}; sum int64 matrices")
    if counts.min() < 0:
        row, column = (int(i) for i in np.argwhere(counts < 0)[0])
        raise InvalidValue(f"confusion[{row}, {column}] is negative: {int(counts[row, column])}")
    return counts.astype(np.int64)


def _one_per_class(counts: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    if counts.shape != (num_classes,):
        raise InvalidValue(f"unpredicted has shape {counts.shape}, expected one count per class: ({num_classes},)")
    return counts


def _ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan
