"""Two runs on the same images: whether their difference is more than chance, by class, and which images changed.

Shapes: N images, K classes, R resamples. Differences are the first run less the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue
from perpixel.metrics.image_changes import ImageChange, image_changes
from perpixel.metrics.image_counts import scores_of_counts
from perpixel.metrics.statistics import PairedTest, difference_intervals, paired_test
from perpixel.report.per_image import PerImage, per_image
from perpixel.report.read_run import RunRecord
from perpixel.report.tables import Swatch, swatches

__all__ = ["TESTED", "ClassChange", "Comparison", "compare_runs"]

TESTED = ("mean_iou", "pixel_accuracy", "mean_accuracy")
"""The scores that are tested: of the whole data set."""
CONFIDENCE = 0.95
"""Share of the resampled data sets between the ends of an interval."""
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """IoU of one class in both runs and the interval of the difference; None where undefined."""

    swatch: Swatch
    first: float | None
    second: float | None
    low: float | None
    high: float | None

    @property
    def difference(self) -> float | None:
        """How far the first run lies above the second."""
        return None if self.first is None or self.second is None else self.first - self.second

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the counts of both runs tell; ``problem`` says why they tell nothing."""

    problem: str | None = None
    recounted: tuple[str, ...] = ()
    """Names of the runs whose saved masks were counted again, because they keep no counts."""
    tests: tuple[PairedTest, ...] = ()
    classes: tuple[ClassChange, ...] = ()
    images: tuple[ImageChange, ...] = ()
    """By change, the first run's largest gain first; images without a valid pixel are left out."""
    undefined: int = 0
    """Images without a valid pixel."""

    @property
    def better(self) -> int:
        """Images on which the first run scores higher."""
        return sum(image.change > 0 for image in self.images)

    @property
    def worse(self) -> int:
        """Images on which the first run scores lower."""
        return sum(image.change < 0 for image in self.images)


def compare_runs(run: RunRecord, other: RunRecord) -> Comparison:
    """Compares two runs image by image; runs that do not compare give a sentence that says why."""
    found = [per_image(record) for record in (run, other)]
    for counts in found:
        if isinstance(counts, str):
            return Comparison(problem=counts)
    first, second = (counts for counts in found if not isinstance(counts, str))
    problem = _mismatch(run, other, first, second)
    if problem is not None:
        return Comparison(problem=problem)
    place = {name: index for index, name in enumerate(second.names)}
    theirs = second.counts[[place[name] for name in first.names]]
    try:
        tests = tuple(paired_test(first.counts, theirs, score=score, confidence=CONFIDENCE) for score in TESTED)
    except InvalidValue as error:
        return Comparison(problem=f"{run.name} and {other.name} do not compare: {error}.")
    images, undefined = image_changes(first.names, first.counts, theirs)
    return Comparison(
        recounted=tuple(record.name for record, counts in ((run, first), (other, second)) if counts.recounted),
        tests=tests,
        classes=_class_changes(run, first.counts, theirs),
        images=images,
        undefined=undefined,
    )


def _mismatch(run: RunRecord, other: RunRecord, first: PerImage, second: PerImage) -> str | None:
    """Says what keeps two sets of counts from being compared image by image, None when nothing does."""
    for record, counts in ((run, first), (other, second)):
        if len(set(counts.names)) < len(counts.names):
            return f"{record.name} names an image twice, so its images cannot be matched with another run's."
    names = [record.labels.names if record.labels is not None else None for record in (run, other)]
    if first.counts.shape[1] != second.counts.shape[1] or (None not in names and names[0] != names[1]):
        return (
            f"{run.name} and {other.name} have other classes ({first.counts.shape[1]} and "
            f"{second.counts.shape[1]}): only scores of the same classes in the same order compare."
        )
    ours, theirs = set(first.names), set(second.names)
    if ours == theirs:
        return None
    parts = [
        f"{len(alone)} only in {record.name} ({_listed(alone)})"
        for record, alone in ((run, sorted(ours - theirs)), (other, sorted(theirs - ours)))
        if alone
    ]
    return (
        f"{run.name} and {other.name} scored different images: {', '.join(parts)}; {len(ours & theirs)} are in both. "
        "Score both on the same split and save the masks of all of it (evaluation.save_predictions=true)."
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" and more" if len(names) > _NAMED else "")


def _class_changes(run: RunRecord, first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[ClassChange, ...]:
    """Returns both IoU per class with the bootstrap interval of the difference, the same draws for both runs."""
    spans = difference_intervals(first, second, score="iou", confidence=CONFIDENCE)
    ours, theirs = (scores_of_counts(counts.sum(axis=0))["iou"] for counts in (first, second))
    found = []
    for swatch, span, *both in zip(_classes(run, first.shape[1]), spans, ours, theirs, strict=True):
        own, other, low, high = (None if np.isnan(value) else float(value) for value in (*both, span.low, span.high))
        found.append(ClassChange(swatch=swatch, first=own, second=other, low=low, high=high))
    return tuple(found)


def _classes(run: RunRecord, count: int) -> list[Swatch]:
    known = list(swatches(run).values())
    return known if len(known) == count else [Swatch(name=f"class {i}", color="#8a8f98") for i in range(count)]
