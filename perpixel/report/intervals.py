"""Confidence intervals as metrics.json states them: how far other images of the same kind would move each score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perpixel.report.read_run import RunRecord, entries, mapping, number

__all__ = ["Intervals", "Span", "intervals", "span"]


@dataclass(frozen=True, kw_only=True)
class Span:
    """The two ends of an interval, fractions."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """The intervals of one run; scores without a defined one are left out."""

    level: float
    """Share of the resampled data sets between the two ends."""
    samples: int | None
    """Resampled data sets."""
    summary: Mapping[str, Span]
    """Score of the whole data set -> interval."""
    iou: Mapping[str, Span]
    """Class name -> interval of its IoU."""


def intervals(run: RunRecord) -> Intervals | None:
    """Returns the intervals that metrics.json holds, None when it holds none."""
    stated = mapping(run.metrics.get("intervals"))
    found = {str(key): ends for key, value in stated.items() if (ends := span(value)) is not None}
    of_classes = stated.get("per_class_iou")
    names = [str(entry.get("name")) for entry in entries(run.metrics.get("per_class"))]
    values: Sequence[Any] = of_classes if isinstance(of_classes, list) else ()
    iou = {name: ends for name, value in zip(names, values, strict=False) if (ends := span(value)) is not None}
    if not found and not iou:
        return None
    level, samples = number(stated.get("level")), number(stated.get("samples"))
    return Intervals(
        level=0.95 if level is None else level,
        samples=None if samples is None else int(samples),
        summary=found,
        iou=iou,
    )


def span(value: Any) -> Span | None:
    """Returns the interval that ``[low, high]`` or ``{"low": low, "high": high}`` states, None for anything else."""
    if isinstance(value, Mapping):
        value = [value.get("low"), value.get("high")]
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = (number(end) for end in value)
    return None if low is None or high is None else Span(low=low, high=high)
