"""Two sets of predictions for the same images: whether their difference is more than chance, and where it is.

Shapes: N images, K classes. Differences are first minus second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perpixel.errors import DataError
from perpixel.evaluation.totals import Evaluation
from perpixel.metrics.image_changes import ImageChange, image_changes
from perpixel.metrics.statistics import Interval, PairedTest, difference_intervals, paired_test

__all__ = ["TESTED_SCORES", "Comparison", "ImageChange", "compare_evaluations"]

TESTED_SCORES = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "mean_dice")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What distinguishes two sets of predictions."""

    tests: tuple[PairedTest, ...]
    """One per score of `TESTED_SCORES`, mean IoU first."""
    class_iou: tuple[Interval, ...]
    """Per class the difference of IoU with its bootstrap interval."""
    images: tuple[ImageChange, ...]
    """By falling change; images without a score on either side are left out."""
    undefined: int
    """Images without a valid pixel."""
    left_out: tuple[str, ...]
    """Images that only one side could be scored on."""


def compare_evaluations(
    first: Evaluation,
    second: Evaluation,
    *,
    scores: Sequence[str] = TESTED_SCORES,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compares two evaluations image by image, matched by name.

    Args:
        first: Of one set of predictions, or one model.
        second: Of another, against the same targets.
        scores: Which scores of the data set to test.
        resamples: Bootstrap draws; ten times as many swaps are drawn.
        confidence: Of the intervals, in (0, 1).
        seed: Of the drawings.

    Raises:
        DataError: they share no image.
        InvalidValue: an image's true pixels differ, or a number is out of range.
    """
    ours, theirs = ({name: i for i, name in enumerate(side.totals.names)} for side in (first, second))
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise DataError("the two sides were scored on no common image, so there is nothing to compare")
    one = first.totals.counts[[ours[name] for name in shared]]
    other = second.totals.counts[[theirs[name] for name in shared]]
    tests = tuple(
        paired_test(one, other, score=score, resamples=10 * resamples - 1, confidence=confidence, seed=seed)
        for score in scores
    )
    classes = difference_intervals(one, other, score="iou", resamples=resamples, confidence=confidence, seed=seed)
    images, undefined = image_changes(shared, one, other)
    return Comparison(
        tests=tests,
        class_iou=tuple(classes),
        images=images,
        undefined=undefined,
        left_out=tuple(sorted(ours.keys() ^ theirs.keys())),
    )
