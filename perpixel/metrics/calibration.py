"""Whether probabilities can be taken at their word: expected calibration error, of the top class and of each class.

Shapes: K classes, M bins of equal width (m/M, (m+1)/M], H W image; probability 0 belongs to the first bin.
Of the pixels in bin b: n_b their number, c_b their mean confidence, a_b the share that is right.
- Top label (Guo, Pleiss, Sun, Weinberger, ICML 2017, arXiv:1706.04599, section 2): the confidence of a pixel is its
  largest probability, and it is right when that class (the first of equals) is the true one.
  ECE = sum_b n_b / n |a_b - c_b|.
- Class-wise (Kull et al., NeurIPS 2019, arXiv:1910.12656, section 2): for class k the confidence of every pixel is its
  probability of k, and it is right when k is the true class. The mean over all K classes is the class-wise ECE; classes
  that are rare have a small one, since nearly all of their pixels are rightly near 0.
Only sums are kept, so that images, workers and ranks add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue
from perpixel.metrics.tensors import Tensor, host_labels

__all__ = ["Calibration", "CalibrationScores", "ClassCalibration", "ConfidenceBin"]

_SUM_TOLERANCE = 1e-2
"""How far a pixel's probabilities may sum from 1: half precision stays within it."""
_BAND_VALUES = 1 << 20
_RIGHT, _CONFIDENCE, _PIXELS = range(3)


class ConfidenceBin(TypedDict):
    """The pixels whose confidence lies in one bin: a bar of the reliability diagram."""

    low: float
    high: float
    confidence: float
    """Mean; NaN without a pixel, as is ``accuracy``."""
    accuracy: float
    pixels: int


class ClassCalibration(TypedDict):
    """Calibration of one class's probability over all valid pixels."""

    name: str
    ece: float
    bins: list[ConfidenceBin]


class CalibrationScores(TypedDict):
    """Errors as fractions in [0, 1], NaN without a pixel; the keys are those of metrics.json."""

    ece: float
    class_wise_ece: float
    pixels: int
    bins: list[ConfidenceBin]
    per_class: list[ClassCalibration]


class Calibration:
    """Calibration error, image by image.

    Args:
        num_classes: K, at least 2.
        bins: M, at least 1.
        ignore_index: Target value that is left out.

    Raises:
        InvalidValue: fewer than two classes, or no bin.

    Example:
        >>> calibration = Calibration(2, bins=2)
        >>> calibration.add(np.array([[[0.9, 0.6]], [[0.1, 0.4]]]), np.array([[0, 1]]))
        >>> round(calibration.result()["ece"], 6)
        0.25
    """

    def __init__(self, num_classes: int, *, bins: int = 15, ignore_index: int = 255) -> None:
        if num_classes < 2:
            raise InvalidValue(f"calibration needs at least 2 classes, got {num_classes}")
        if bins < 1:
            raise InvalidValue(f"bins must be at least 1, got {bins}")
        self.num_classes, self.bins, self.ignore_index = num_classes, bins, ignore_index
        self.top: NDArray[np.float64] = np.zeros((3, bins))
        """(3, M): right pixels, sum of confidences, pixels. Whole numbers below 2^53 are exact in float64."""
        self.classes: NDArray[np.float64] = np.zeros((num_classes, 3, bins))
        """(K, 3, M): the same of each class's probability."""

    def add(self, probabilities: NDArray[Any] | Tensor, target: NDArray[Any] | Tensor) -> None:
        """Adds one image.

        Args:
            probabilities: (K, H, W), each in [0, 1], each pixel's summing to 1; what stands at ignored pixels is not
                read.
            target: True train ids (H, W), in [0, K) or ``ignore_index``.

        Raises:
            InvalidValue: shapes do not fit, a target is no integer or out of range, or a valid pixel's values are no
                probabilities.
        """
        values, truth = _array(probabilities), host_labels(target, "target")
        if values.shape != (self.num_classes, *truth.shape) or truth.ndim != 2 or values.dtype.kind != "f":
            raise InvalidValue(
                f"probabilities are floats (K, H, W) and the target is (H, W) with K = {self.num_classes}, got "
                f"{values.dtype} {values.shape} and {truth.shape}"
            )
        valid, truth = truth != self.ignore_index, truth.astype(np.int64)
        labels = truth[valid]
        if labels.size and not 0 <= labels.min() <= labels.max() < self.num_classes:
            bad = int(labels[(labels < 0) | (labels >= self.num_classes)][0])
            raise InvalidValue(
                f"target holds {bad} on valid pixels; allowed is 0..{self.num_classes - 1} or {self.ignore_index}"
            )
        sums = np.zeros((self.num_classes + 1, 3, self.bins))
        for rows in _bands(values.shape):
            band = values[:, rows][:, valid[rows]].astype(np.float64)
            sums += self._band_sums(band, truth[rows][valid[rows]], _places(valid, rows))
        self.top += sums[-1]
        self.classes += sums[:-1]

    def merge(self, other: Calibration) -> None:
        """Adds the images of another of the same classes, bins and ignored label.

        Raises:
            InvalidValue: they differ.
        """
        ours, theirs = ((c.num_classes, c.bins, c.ignore_index) for c in (self, other))
        if ours != theirs:
            raise InvalidValue(f"cannot add calibration of (classes, bins, ignored) {theirs} to one of {ours}")
        self.top += other.top
        self.classes += other.classes

    def result(self, names: Sequence[str] | None = None) -> CalibrationScores:
        """Computes errors and reliability diagrams of all pixels so far.

        Args:
            names: One name per class; None numbers them.

        Raises:
            InvalidValue: the number of names differs.
        """
        names = [f"class {k}" for k in range(self.num_classes)] if names is None else names
        if len(names) != self.num_classes:
            raise InvalidValue(f"{len(names)} class names for {self.num_classes} classes")
        per_class: list[ClassCalibration] = [
            {"name": str(name), "ece": _error(sums), "bins": _bars(sums)}
            for name, sums in zip(names, self.classes, strict=True)
        ]
        return {
            "ece": _error(self.top),
            "class_wise_ece": sum(entry["ece"] for entry in per_class) / self.num_classes,
            "pixels": int(self.top[_PIXELS].sum()),
            "bins": _bars(self.top),
            "per_class": per_class,
        }

    def _band_sums(
        self, chosen: NDArray[np.float64], labels: NDArray[Any], places: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Returns sums (K + 1, 3, M) of N pixels from their probabilities, truth and places; last, the top label's."""
        _refuse_others(chosen, places)
        each, rows, count = np.arange(labels.size), self.num_classes, self.num_classes * self.bins
        cells = _bin_of(chosen, self.bins) + self.bins * np.arange(rows)[:, None]
        sums = np.empty((rows + 1, 3, self.bins))
        sums[:-1, _RIGHT] = np.bincount(cells[labels, each], minlength=count).reshape(rows, self.bins)
        flat = cells.reshape(-1)
        sums[:-1, _CONFIDENCE] = np.bincount(flat, chosen.reshape(-1), minlength=count).reshape(rows, self.bins)
        sums[:-1, _PIXELS] = np.bincount(flat, minlength=count).reshape(rows, self.bins)
        top = chosen.argmax(axis=0)
        bins = cells[top, each] - self.bins * top
        sums[-1, _RIGHT] = np.bincount(bins[top == labels], minlength=self.bins)
        sums[-1, _CONFIDENCE] = np.bincount(bins, chosen[top, each], minlength=self.bins)
        sums[-1, _PIXELS] = np.bincount(bins, minlength=self.bins)
        return sums


def _bin_of(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Returns the bin (m/M, (m+1)/M] of each value; truncation may land one too high on an edge, never too low."""
    index = (confidence * bins).astype(np.int64)
    np.clip(index, 0, bins, out=index)
    index -= confidence <= (np.arange(bins + 1) / bins)[index]
    return index.clip(0, bins - 1)


def _array(values: NDArray[Any] | Tensor) -> NDArray[Any]:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return np.asarray(values.double() if values.is_floating_point() else values)


def _bands(shape: tuple[int, ...]) -> list[slice]:
    """Cuts the rows of a map (K, H, W) so that a band in float64 stays small."""
    num_classes, height, width = shape
    rows = max(1, _BAND_VALUES // max(1, num_classes * width))
    return [slice(start, start + rows) for start in range(0, height, rows)]


def _places(valid: NDArray[np.bool_], rows: slice) -> NDArray[np.int64]:
    """Returns row and column (N, 2) of the band's valid pixels."""
    places: NDArray[np.int64] = np.argwhere(valid[rows])
    places[:, 0] += rows.start
    return places


def _refuse_others(chosen: NDArray[np.float64], places: NDArray[np.int64]) -> None:
    """Refuses what is no probability, NaN too."""
    if not chosen.size:
        return
    wrong = ~((chosen.min(axis=0) >= 0) & (np.abs(chosen.sum(axis=0) - 1) <= _SUM_TOLERANCE))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        row, column = (int(i) for i in places[first])
        listed = ", ".join(f"{value:.4g}" for value in chosen[:8, first])
        raise InvalidValue(
            f"row {row}, column {column} holds no probabilities: {listed}; they must be at least 0 and sum to 1. Take "
            "the softmax of class scores"
        )


def _error(sums: NDArray[np.float64]) -> float:
    pixels = float(sums[_PIXELS].sum())
    return float(np.abs(sums[_RIGHT] - sums[_CONFIDENCE]).sum()) / pixels if pixels else math.nan


def _bars(sums: NDArray[np.float64]) -> list[ConfidenceBin]:
    count = sums.shape[1]
    bars: list[ConfidenceBin] = []
    for index, (right, confidence, pixels) in enumerate(sums.T.tolist()):
        bars.append(
            {
                "low": index / count,
                "high": (index + 1) / count,
                "confidence": confidence / pixels if pixels else math.nan,
                "accuracy": right / pixels if pixels else math.nan,
                "pixels": int(pixels),
            }
        )
    return bars
