"""How far scores would move with other images: bootstrap intervals, and the paired test of two sets of predictions.

Shapes: N images, K classes, R resamples. Every score of the IoU family follows from ``counts`` (N, K, 3) int64: per
image and class the right, the true and the predicted pixels. A resampled data set is a weighted sum over N, so all R
of them are one matrix product. What is resampled is the image, because its pixels are not independent.
Sources: percentile bootstrap, Efron 1979; sign-flip permutation of paired observations, Fisher 1935.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue, nearest
from perpixel.metrics.image_counts import CLASS_SCORES, SUMMARY_SCORES, mean_of_defined, ratio, scores_of_counts
from perpixel.metrics.resampling import Interval, Statistic, bootstrap, class_intervals, interval, weighted_statistics

__all__ = [
    "Interval",
    "PairedTest",
    "ScoreIntervals",
    "bootstrap",
    "difference_intervals",
    "intervals",
    "mean_intervals",
    "paired_test",
    "ratio_intervals",
]

Floats: TypeAlias = NDArray[np.float64]

_TRUTH = 1
_COLUMNS = 3
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class ScoreIntervals:
    """The intervals of all scores of the IoU family."""

    summary: Mapping[str, Interval]
    """By key of ``SUMMARY_SCORES``."""
    classes: Mapping[str, list[Interval]]
    """By name of ``CLASS_SCORES``, one per class."""


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """The difference of a score between two sets of predictions for the same images, first minus second."""

    score: str
    """A key of `SUMMARY_SCORES`, or ``"iou of <class>"`` and the like."""
    first: float
    second: float
    difference: float
    low: float
    high: float
    """Ends of the bootstrap interval of the difference; NaN with fewer than two images."""
    p_value: float
    """How often swapping the two at random, image by image, gives as large a difference either way."""
    confidence: float
    images: int
    draws: int
    """Swaps that were tried; all 2**images of them where those are fewer than asked for."""

    @property
    def beyond_chance(self) -> bool:
        """Whether the interval leaves zero out and the swaps seldom reach the difference."""
        return self.p_value < 1 - self.confidence and (self.low > 0 or self.high < 0)

    @property
    def words(self) -> str:
        """The answer to "is it real?" in two sentences at most."""
        name = SUMMARY_SCORES.get(self.score, self.score)
        if math.isnan(self.difference):
            return f"the {name} of one side is undefined, so there is nothing to compare."
        between = f"between these {self.images} images" if self.images != 1 else "with one image"
        if self.difference == 0 and self.p_value == 1:
            return f"both have the same {name}, {100 * self.first:.2f} %."
        points = f"{_signed(self.difference)} points of {name}"
        level = 1 - self.confidence
        smallest = 2.0 ** (1 - self.images)
        if smallest >= level:
            return (
                f"{points} cannot be told from chance {between}: even if every image agreed, p would be "
                f"{smallest:.3g}; score at least {_images_needed(level)} images."
            )
        span = f"the {100 * self.confidence:g} % interval is {_signed(self.low)} to {_signed(self.high)}"
        swaps = (
            f"swapping the two at random does as much in {100 * self.p_value:.3g} % of cases (p = {self.p_value:.2g})"
        )
        if self.beyond_chance:
            return f"{points} is more than what chance does {between}: {span}, and {swaps}."
        return f"{points} is within what chance does {between}: {span}, and {swaps}."


def intervals(
    counts: NDArray[np.int64], *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> ScoreIntervals:
    """Returns the percentile bootstrap interval over images of every score of the IoU family.

    A class that a resampled data set lacks is left out of that set's means, as `perpixel.metrics.scores` does.

    Args:
        counts: (N, K, 3) right, true and predicted pixels.
        resamples: Drawn data sets, at least 1.
        confidence: Share of the draws between the two ends, in (0, 1).
        seed: Of the drawing.

    Returns:
        Intervals whose ends are NaN with fewer than two images: one image says nothing about others.

    Raises:
        InvalidValue: counts are not (N, K, 3), there is no image, or a number is out of range.
    """
    _check_counts(counts, "counts")
    drawn = bootstrap(counts, scores_of_counts, resamples=resamples, seed=seed)
    whole = scores_of_counts(counts.sum(axis=0))
    images = len(counts)
    return ScoreIntervals(
        summary={name: interval(whole[name], drawn[name], confidence, images) for name in SUMMARY_SCORES},
        classes={name: class_intervals(whole[name], drawn[name], confidence, images) for name in CLASS_SCORES},
    )


def mean_intervals(values: Floats, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0) -> list[Interval]:
    """Returns the intervals of means over images of values per image, such as BF scores; NaN values are left out.

    Args:
        values: (N, K), K values of each image.
        resamples: Drawn data sets, at least 1.
        confidence: In (0, 1).
        seed: Of the drawing.

    Raises:
        InvalidValue: values have another number of axes, there is no image, or a number is out of range.
    """
    if values.ndim != 2:
        raise InvalidValue(f"values per image are (N, K), got shape {values.shape}")
    defined = ~np.isnan(values)
    pairs = np.stack([np.where(defined, values, 0.0), defined.astype(np.float64)], axis=-1)

    def mean(summed: NDArray[Any]) -> dict[str, Floats]:
        return {"mean": ratio(summed[..., 0], summed[..., 1])}

    drawn = bootstrap(pairs, mean, resamples=resamples, seed=seed)["mean"]
    return class_intervals(mean(pairs.sum(axis=0))["mean"], drawn, confidence, len(values))


def ratio_intervals(
    counts: NDArray[np.int64], *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[Interval, list[Interval]]:
    """Returns the intervals of a ratio of sums, such as Boundary IoU: of the mean over classes, and of each class.

    Args:
        counts: (N, K, 2) numerators and denominators per image, such as intersections and unions.
        resamples: Drawn data sets, at least 1.
        confidence: In (0, 1).
        seed: Of the drawing.

    Raises:
        InvalidValue: counts have another shape, there is no image, or a number is out of range.
    """
    if counts.ndim != 3 or counts.shape[2] != 2:
        raise InvalidValue(f"counts of a ratio are (N, K, 2), got shape {counts.shape}")

    def ratios(summed: NDArray[Any]) -> dict[str, Floats]:
        values = ratio(summed[..., 0], summed[..., 1])
        return {"classes": values, "mean": mean_of_defined(values)}

    drawn = bootstrap(counts, ratios, resamples=resamples, seed=seed)
    whole = ratios(counts.sum(axis=0))
    mean = interval(whole["mean"], drawn["mean"], confidence, len(counts))
    return mean, class_intervals(whole["classes"], drawn["classes"], confidence, len(counts))


def difference_intervals(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    *,
    score: str = "iou",
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """Returns per class the difference of a score, first minus second, with its bootstrap interval over images.

    Args:
        first: Counts (N, K, 3) of one side.
        second: Counts (N, K, 3) of the other, of the same images in the same order.
        score: A name of ``CLASS_SCORES``.
        resamples: Drawn data sets, the same for both sides; at least 1.
        confidence: In (0, 1).
        seed: Of the drawing.

    Raises:
        InvalidValue: as `paired_test`.
    """
    _check_pair(first, second)
    if score not in CLASS_SCORES:
        raise InvalidValue(f"no score {score!r} of one class{nearest(score, CLASS_SCORES, end='.')}")

    def difference(summed: NDArray[Any]) -> dict[str, Floats]:
        values = scores_of_counts(summed)[score]
        return {"difference": values[..., 0, :] - values[..., 1, :]}

    both = np.stack([first, second], axis=1)
    drawn = bootstrap(both, difference, resamples=resamples, seed=seed)["difference"]
    return class_intervals(difference(both.sum(axis=0))["difference"], drawn, confidence, len(first))


def paired_test(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    *,
    score: str = "mean_iou",
    class_index: int | None = None,
    names: Sequence[str] | None = None,
    resamples: int = 9999,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedTest:
    """Tests whether the difference of a data-set score between two sets of predictions is more than chance.

    The interval of the difference comes from resampling images, with the same draws for both sides. The p-value comes
    from swapping the two sides image by image: if they were equally good, it would not matter whose prediction is
    whose. All 2**N swaps are tried where they are no more than ``resamples``.

    Args:
        first: Counts (N, K, 3) of one side.
        second: Counts (N, K, 3) of the other, of the same images in the same order.
        score: A key of ``SUMMARY_SCORES``, or of ``CLASS_SCORES`` with ``class_index``.
        class_index: Which class, for a score of one class.
        names: Class names, for the words.
        resamples: Draws of each kind, at least 1.
        confidence: In (0, 1).
        seed: Of both drawings.

    Raises:
        InvalidValue: shapes differ, the true pixels of an image differ between both sides, or a name or number is
            out of range.

    Example:
        >>> better = np.array([[[9, 10, 10], [9, 10, 10]]] * 8)
        >>> worse = np.array([[[6, 10, 10], [6, 10, 10]]] * 8)
        >>> paired_test(better, worse).beyond_chance
        True
    """
    _check_pair(first, second)
    title = _score_title(score, class_index, names, first.shape[1])
    both = np.stack([first, second], axis=1).astype(np.float64)

    def chosen(summed: NDArray[Any]) -> dict[str, Floats]:
        values = scores_of_counts(summed)[score]
        picked = values if class_index is None else values[..., class_index]
        return {"difference": picked[..., 0] - picked[..., 1], "first": picked[..., 0], "second": picked[..., 1]}

    whole = {name: float(value) for name, value in chosen(both.sum(axis=0)).items()}
    drawn = bootstrap(both, chosen, resamples=resamples, seed=seed)["difference"]
    span = interval(np.array(whole["difference"]), drawn, confidence, len(first))
    p_value, draws = _swap_p_value(both, chosen, whole["difference"], resamples, seed)
    return PairedTest(
        score=title,
        first=whole["first"],
        second=whole["second"],
        difference=whole["difference"],
        low=span.low,
        high=span.high,
        p_value=p_value,
        confidence=confidence,
        images=len(first),
        draws=draws,
    )


def _swap_p_value(
    both: Floats,
    statistic: Statistic,
    observed: float,
    resamples: int,
    seed: int,
) -> tuple[float, int]:
    """Returns the share of swaps whose difference is at least as large as the observed, and the number of swaps."""
    if math.isnan(observed):
        return math.nan, 0
    images = len(both)
    # Swapping image i turns the sum over images by -(first - second) of that image on one side, + on the other.
    change = both[:, ::-1] - both
    base = both.sum(axis=0)

    def swapped(summed: NDArray[Any]) -> Mapping[str, Floats]:
        return statistic(base + summed)

    exact = images < 63 and 2**images <= resamples
    if exact:
        draws = 2**images
        numbers = iter(np.arange(draws))

        def weights(rows: int) -> Floats:
            taken = np.fromiter(islice(numbers, rows), dtype=np.int64)
            return (taken[:, None] >> np.arange(images) & 1).astype(np.float64)
    else:
        draws, rng = resamples, np.random.default_rng([seed, 1])

        def weights(rows: int) -> Floats:
            return rng.integers(0, 2, (rows, images)).astype(np.float64)

    differences = weighted_statistics(change, swapped, draws, weights)["difference"]
    reached = int(np.count_nonzero(np.abs(differences) >= abs(observed) - _ROUNDING))
    return (reached / draws, draws) if exact else ((reached + 1) / (draws + 1), draws)


def _check_counts(counts: NDArray[Any], name: str) -> None:
    if counts.ndim != 3 or counts.shape[2] != _COLUMNS:
        raise InvalidValue(
            f"{name} are (N, K, 3): right, true and predicted pixels per image, got shape {counts.shape}"
        )


def _check_pair(first: NDArray[Any], second: NDArray[Any]) -> None:
    for name, counts in (("first", first), ("second", second)):
        _check_counts(counts, f"{name} counts")
    if first.shape != second.shape:
        raise InvalidValue(f"both sides need the same images and classes, got {first.shape} and {second.shape}")
    differing = np.flatnonzero((first[..., _TRUTH] != second[..., _TRUTH]).any(axis=1))
    if differing.size:
        raise InvalidValue(
            f"{differing.size} images have other true pixels on the two sides, the first is number {differing[0]}; "
            "score both against the same targets, in the same order"
        )


def _score_title(score: str, class_index: int | None, names: Sequence[str] | None, num_classes: int) -> str:
    known = (*SUMMARY_SCORES, *CLASS_SCORES)
    if score not in known:
        raise InvalidValue(f"no score {score!r}{nearest(score, known, end='.')} Known: {', '.join(known)}")
    if (score in CLASS_SCORES) != (class_index is not None):
        raise InvalidValue(
            f"score {score!r} with class_index {class_index}: {', '.join(CLASS_SCORES)} are of one class"
        )
    if class_index is None:
        return score
    if not 0 <= class_index < num_classes:
        raise InvalidValue(f"class_index {class_index} is outside 0..{num_classes - 1}")
    return f"{score} of {names[class_index] if names is not None else f'class {class_index}'}"


def _signed(fraction: float) -> str:
    return f"{100 * fraction:+.2f}".replace("-", "−")


def _images_needed(level: float) -> int:
    """The fewest images for which agreement of all is rarer than ``level``."""
    return math.floor(math.log2(2 / level)) + 1
