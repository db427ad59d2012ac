"""Statistics of data sets drawn from the same images with replacement: the percentile bootstrap (Efron 1979).

Shapes: N images, R resamples. What is summed over images is summed with weights here, so all resamples are one matrix
product. What is resampled is the image, because its pixels are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue

__all__ = ["Interval", "Statistic", "bootstrap", "class_intervals", "interval", "weighted_statistics"]

Floats: TypeAlias = NDArray[np.float64]
Statistic: TypeAlias = Callable[[NDArray[Any]], Mapping[str, Floats]]
"""Takes summed counts (R, ...) and returns named values (R, ...)."""

_BLOCK_VALUES = 1 << 22
_LEAST_IMAGES = 2


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A score and the range that other images of the same kind would move it within; NaN where undefined."""

    value: float
    low: float
    high: float


def bootstrap(
    counts: NDArray[Any],
    statistic: Statistic,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Floats]:
    """Computes a statistic of summed counts on data sets drawn from the same images with replacement.

    Args:
        counts: (N, ...) one block per image, to be added over images.
        statistic: Takes summed counts (R, ...) and returns named values (R, ...).
        resamples: R, at least 1.
        seed: Of the drawing; the same images and seed give the same draws.

    Returns:
        The named values on each of the R data sets.

    Raises:
        InvalidValue: there is no image, or ``resamples`` is not positive.
    """
    _check_draws(len(counts), resamples)
    rng, images = np.random.default_rng(seed), len(counts)
    even = np.full(images, 1 / images)
    return weighted_statistics(
        counts, statistic, resamples, lambda rows: rng.multinomial(images, even, rows).astype(np.float64)
    )


def interval(whole: Floats, drawn: Floats, confidence: float, images: int) -> Interval:
    """Returns the interval of one score from its draws (R,)."""
    if not 0 < confidence < 1:
        raise InvalidValue(f"confidence is a share in (0, 1), such as 0.95, got {confidence}")
    defined = drawn[~np.isnan(drawn)]
    if images < _LEAST_IMAGES or not defined.size:
        return Interval(value=float(whole), low=math.nan, high=math.nan)
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(value=float(whole), low=float(low), high=float(high))


def class_intervals(whole: Floats, drawn: Floats, confidence: float, images: int) -> list[Interval]:
    """Returns one interval per class from draws (R, K)."""
    return [interval(whole[k], drawn[:, k], confidence, images) for k in range(drawn.shape[1])]


def weighted_statistics(
    counts: NDArray[Any], statistic: Statistic, resamples: int, weights: Callable[[int], Floats]
) -> dict[str, Floats]:
    """Weighs and sums in blocks, so that memory does not grow with the number of resamples."""
    flat = counts.reshape(len(counts), -1).astype(np.float64)
    parts: dict[str, list[Floats]] = {}
    for rows in _blocks(resamples, max(1, _BLOCK_VALUES // max(flat.shape))):
        summed = (weights(rows) @ flat).reshape(rows, *counts.shape[1:])
        for name, values in statistic(summed).items():
            parts.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _blocks(total: int, size: int) -> Iterator[int]:
    for start in range(0, total, size):
        yield min(size, total - start)


def _check_draws(images: int, resamples: int) -> None:
    if images < 1:
        raise InvalidValue("there are no images to resample")
    if resamples < 1:
        raise InvalidValue(f"resamples must be at least 1, got {resamples}")
