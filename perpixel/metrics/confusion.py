"""Confusion matrix of two label maps, counted exactly in int64 and refusing what is not a label.

Shapes: K classes, ``...`` any shape that prediction and target share (usually (B, H, W)).
"""

from __future__ import annotations

import sys
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue
from perpixel.metrics.pair_counts import BYTE_VALUES, pair_counts
from perpixel.metrics.tensors import Tensor, refuse_mask

__all__ = ["confusion_matrix", "refuse_bad_labels"]

_CHUNK = 1 << 19
_NAMED_VALUES = 8

Labels = TypeVar("Labels", Tensor, NDArray[Any])


def confusion_matrix(prediction: Labels, target: Labels, num_classes: int, *, ignore_index: int = 255) -> Labels:
    """Counts the valid pixels of each true class that were given each predicted class.

    A pixel is valid when its target is not ``ignore_index``. What is predicted on other pixels has no effect,
    whatever its value. The matrices of two sets add up to the matrix of both.

    Args:
        prediction: Predicted train ids, integers, in [0, K) on valid pixels.
        target: True train ids of the same shape, each in [0, K) or equal to ``ignore_index``.
        num_classes: K, at least 1.
        ignore_index: Target value that is left out; may itself lie in [0, K).

    Returns:
        Counts (K, K) int64, rows true and columns predicted class: a tensor on the device of ``target`` for tensors,
        an array for arrays. All zero when no pixel is valid.

    Raises:
        InvalidValue: shapes or kinds differ, values are not integers, or a label is out of range on a valid pixel; the
            message names the values, their number and a pixel.

    Example:
        >>> confusion_matrix(np.array([0, 1, 1, 9]), np.array([0, 0, 1, 255]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    _check_arguments(prediction, target, num_classes)
    if isinstance(prediction, Tensor) and isinstance(target, Tensor):
        if prediction.device != target.device:
            raise InvalidValue(f"prediction is on {prediction.device}, target on {target.device}; move one of them")
        if target.device.type != "cpu":
            return _count_on_device(prediction, target, num_classes, ignore_index)
        counts = _count(prediction.detach().numpy(), target.detach().numpy(), num_classes, ignore_index)
        on_host: Tensor = _torch().from_numpy(counts)
        return on_host
    return _count(np.asarray(prediction), np.asarray(target), num_classes, ignore_index)


def refuse_bad_labels(
    prediction: NDArray[Any], target: NDArray[Any], num_classes: int, *, ignore_index: int = 255
) -> None:
    """Raises InvalidValue when a valid pixel holds a target or a prediction outside [0, K)."""
    valid = target != ignore_index
    _refuse(target, valid & ((target < 0) | (target >= num_classes)), "target", num_classes, ignore_index)
    _refuse(prediction, valid & ((prediction < 0) | (prediction >= num_classes)), "prediction", num_classes, None)


def _check_arguments(prediction: object, target: object, num_classes: int) -> None:
    if num_classes < 1:
        raise InvalidValue(f"num_classes must be at least 1, got {num_classes}")
    for name, labels in (("prediction", prediction), ("target", target)):
        if not isinstance(labels, Tensor | np.ndarray):
            raise InvalidValue(f"{name} must be a torch tensor or a NumPy array, got {type(labels).__name__}")
        refuse_mask(labels, name)
        integer = (
            not (labels.is_floating_point() or labels.is_complex())
            if isinstance(labels, Tensor)
            else labels.dtype.kind in "biu"
        )
        if not integer:
            raise InvalidValue(
                f"{name} must hold integer class ids, got {labels.dtype}; take the argmax of scores first"
            )
    if isinstance(prediction, Tensor) != isinstance(target, Tensor):
        kinds = f"prediction is a {type(prediction).__name__}, target a {type(target).__name__}"
        raise InvalidValue(f"{kinds}; give two tensors or two arrays")
    shapes = [tuple(labels.shape) for labels in (prediction, target) if isinstance(labels, Tensor | np.ndarray)]
    if shapes[0] != shapes[1]:
        raise InvalidValue(
            f"prediction has shape {shapes[0]}, target {shapes[1]}; resize the class scores to the target's size"
        )


def _count(prediction: NDArray[Any], target: NDArray[Any], num_classes: int, ignore_index: int) -> NDArray[np.int64]:
    """Counts on the host."""
    table = None
    if num_classes <= BYTE_VALUES and 0 <= ignore_index < BYTE_VALUES:
        table = pair_counts(prediction, target)
    if table is None:
        return _count_any(prediction, target, num_classes, ignore_index)
    table[ignore_index] = 0
    counts: NDArray[np.int64] = table[:num_classes, :num_classes].copy()
    if table.sum() != counts.sum():
        refuse_bad_labels(prediction, target, num_classes, ignore_index=ignore_index)
    return counts


def _count_any(
    prediction: NDArray[Any], target: NDArray[Any], num_classes: int, ignore_index: int
) -> NDArray[np.int64]:
    """Counts labels of any integer type; chunks keep the index of each pixel in the cache."""
    flat_prediction, flat_target = prediction.reshape(-1), target.reshape(-1)
    rows, columns = num_classes + 2, num_classes + 1
    table = np.zeros(rows * columns, dtype=np.int64)
    for start in range(0, flat_target.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        truth, guess = flat_target[part].astype(np.int64), flat_prediction[part].astype(np.int64)
        truth_row = np.where((truth >= 0) & (truth < num_classes), truth, num_classes + 1)
        truth_row = np.where(truth == ignore_index, num_classes, truth_row)
        cells = truth_row * columns + np.where((guess >= 0) & (guess < num_classes), guess, num_classes)
        table += np.bincount(cells, minlength=table.size)
    joint = table.reshape(rows, columns)
    joint[num_classes] = 0
    counts: NDArray[np.int64] = joint[:num_classes, :num_classes].copy()
    if joint.sum() != counts.sum():
        refuse_bad_labels(prediction, target, num_classes, ignore_index=ignore_index)
    return counts


def _count_on_device(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Counts on an accelerator: ignored pixels go to a spare row, labels out of range to a spare row or column."""
    torch = _torch()
    truth, guess = target.reshape(-1).long(), prediction.reshape(-1).long()
    row = torch.where((truth >= 0) & (truth < num_classes), truth, num_classes + 1)
    row = torch.where(truth == ignore_index, num_classes, row)
    column = torch.where((guess >= 0) & (guess < num_classes), guess, num_classes)
    size = (num_classes + 2, num_classes + 1)
    table = torch.bincount(row * size[1] + column, minlength=size[0] * size[1]).reshape(size)
    wrong = table[:num_classes, num_classes].sum() + table[num_classes + 1].sum()
    if wrong.item():
        refuse_bad_labels(prediction.cpu().numpy(), target.cpu().numpy(), num_classes, ignore_index=ignore_index)
    counts: Tensor = table[:num_classes, :num_classes].contiguous()
    return counts


def _torch() -> Any:
    """Whoever holds a tensor has imported torch; counting arrays does not wait for it."""
    return sys.modules["torch"]


def _refuse(
    labels: NDArray[Any], bad: NDArray[np.bool_], name: str, num_classes: int, ignore_index: int | None
) -> None:
    count = int(np.count_nonzero(bad))
    if not count:
        return
    pixel = tuple(int(i) for i in np.argwhere(bad)[0])
    values = np.unique(labels[bad])
    listed = ", ".join(str(int(v)) for v in values[:_NAMED_VALUES]) + (", …" if values.size > _NAMED_VALUES else "")
    allowed = f"0..{num_classes - 1}" + ("" if ignore_index is None else f" or {ignore_index} (ignored)")
    raise InvalidValue(
        f"{name} holds {listed} on {count} valid pixels (first at {pixel}: {int(labels[pixel])}); allowed is "
        f"{allowed}. Check num_classes and that both maps hold train ids."
    )
