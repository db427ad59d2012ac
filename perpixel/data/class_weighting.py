"""Weights of classes against their frequency, as the loss of a pixel is multiplied by its class's weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from perpixel.data.summary import SplitSummary
from perpixel.errors import DataError, InvalidValue

__all__ = ["ClassWeighting", "class_weights"]

ClassWeighting = Literal[
    "median_frequency",
    "median_frequency_eigen",
    "sqrt_median_frequency",
    "inverse_frequency",
    "enet",
    "effective_number",
]

_ENET_OFFSET = 1.02
_BETA = 0.999
Vector: TypeAlias = NDArray[np.float64]


class _Counts(NamedTuple):
    """Of the classes that occur (K',)."""

    pixels: Vector
    pixels_of_images: Vector
    images: Vector


def class_weights(
    summary: SplitSummary, method: ClassWeighting, *, max_weight: float | None = None
) -> tuple[float, ...]:
    """Weighs classes against their frequency.

    With f the share of a class in all valid pixels and the median over the classes that occur:

    - ``median_frequency``: median(f) / f; ``sqrt_median_frequency`` its square root.
    - ``median_frequency_eigen``: the same with f the share in all pixels, ignored ones too, of those images that hold
      the class (Eigen and Fergus 2015, arXiv:1411.4734; quoted by SegNet, arXiv:1511.00561).
    - ``inverse_frequency``: 1 / (K' f), K' the number of classes that occur: 1 for all where they are equally frequent.
    - ``enet``: 1 / ln(1.02 + f) (ENet, arXiv:1606.02147, section 5.2), between 1.42 and 50.5.
    - ``effective_number``: (1 - b) / (1 - b^n), b = 0.999 and n the images that hold the class, scaled to a mean of 1
      (Cui et al. 2019, arXiv:1901.05555, equation 5; its samples are images, since pixels of one image are no
      independent samples).

    Args:
        summary: Counts of the training split.
        method: Which formula.
        max_weight: Larger weights are cut to this.

    Returns:
        One weight per class; classes that do not occur weigh 1.

    Raises:
        InvalidValue: the method is unknown or ``max_weight`` not positive.
        DataError: no class occurs.
    """
    if method not in get_args(ClassWeighting):
        raise InvalidValue(f"class weights by {method!r} are not known; one of {get_args(ClassWeighting)}")
    if max_weight is not None and not max_weight > 0:
        raise InvalidValue(f"max_weight must be positive, got {max_weight}")
    columns = (summary.pixels_per_class, summary.pixels_of_images_with_class, summary.images_per_class)
    pixels, pixels_of_images, images = (np.array(column, dtype=np.float64) for column in columns)
    present = pixels > 0
    if not present.any():
        raise DataError("class weights need a split with labelled pixels, and every pixel of this one is ignored")
    weights = np.ones_like(pixels)
    weights[present] = _FORMULAS[method](_Counts(pixels[present], pixels_of_images[present], images[present]))
    return tuple(np.minimum(weights, np.inf if max_weight is None else max_weight).tolist())


def _median_frequency(counts: _Counts) -> Vector:
    return _median_over(counts.pixels / counts.pixels.sum())


def _eigen(counts: _Counts) -> Vector:
    return _median_over(counts.pixels / counts.pixels_of_images)


def _median_over(frequency: Vector) -> Vector:
    weights: Vector = np.median(frequency) / frequency
    return weights


def _square_root(counts: _Counts) -> Vector:
    return np.sqrt(_median_frequency(counts))


def _inverse(counts: _Counts) -> Vector:
    weights: Vector = counts.pixels.sum() / (len(counts.pixels) * counts.pixels)
    return weights


def _enet(counts: _Counts) -> Vector:
    weights: Vector = 1 / np.log(_ENET_OFFSET + counts.pixels / counts.pixels.sum())
    return weights


def _effective_number(counts: _Counts) -> Vector:
    weights: Vector = (1 - _BETA) / (1 - _BETA**counts.images)
    weights /= weights.mean()
    return weights


_FORMULAS: dict[str, Callable[[_Counts], Vector]] = {
    "median_frequency": _median_frequency,
    "median_frequency_eigen": _eigen,
    "sqrt_median_frequency": _square_root,
    "inverse_frequency": _inverse,
    "enet": _enet,
    "effective_number": _effective_number,
}
