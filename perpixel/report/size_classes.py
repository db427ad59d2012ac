"""Whether small things are found: the recall of true regions by their size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perpixel.report.read_run import RunRecord, entries, mapping, number

__all__ = ["SizeClass", "SizeClasses", "size_classes"]


@dataclass(frozen=True, kw_only=True)
class SizeClass:
    """The connected true regions of one range of sizes."""

    name: str
    span: str
    """Its range in words, empty where metrics.json states none."""
    regions: int
    pixels: int | None
    recall: float | None
    """Share of their pixels that were found, None without a region."""


@dataclass(frozen=True, kw_only=True)
class SizeClasses:
    """Regions by size, small to large: of all classes together and of each class."""

    bins: tuple[SizeClass, ...]
    per_class: Mapping[str, tuple[SizeClass, ...]]


def size_classes(run: RunRecord) -> SizeClasses | None:
    """Returns the recall by region size that metrics.json holds, None when it holds none."""
    stated = mapping(run.metrics.get("region_sizes"))
    bins = _bins(stated.get("bins"))
    per_class = {str(entry.get("name")): _bins(entry.get("bins")) for entry in entries(stated.get("per_class"))}
    return (
        SizeClasses(bins=bins, per_class={n: b for n, b in per_class.items() if len(b) == len(bins)}) if bins else None
    )


def _bins(value: Any) -> tuple[SizeClass, ...]:
    found = []
    for entry in entries(value):
        regions, pixels = number(entry.get("regions")), number(entry.get("pixels"))
        low, high = number(entry.get("from_pixels")), number(entry.get("to_pixels"))
        found.append(
            SizeClass(
                name=str(entry.get("name")),
                span=_span(low, high),
                regions=int(regions or 0),
                pixels=None if pixels is None else int(pixels),
                recall=number(entry.get("recall")),
            )
        )
    return tuple(found)


def _span(low: float | None, high: float | None) -> str:
    """Says a range of sizes, ``high`` exclusive, None open."""
    if high is None:
        return "" if low is None else f"{low:,.0f} and more"
    return f"under {high:,.0f}" if low is None or low <= 1 else f"{low:,.0f} to {high - 1:,.0f}"
