"""How well the borders are drawn: mean IoU in bands around true borders, BF score and Boundary IoU per class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perpixel.report.read_run import RunRecord, entries, mapping, number

__all__ = ["Boundary", "BoundaryRow", "boundary"]


@dataclass(frozen=True, kw_only=True)
class BoundaryRow:
    """Boundary scores of one class, fractions or None where undefined."""

    name: str
    bf_score: float | None
    boundary_iou: float | None


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """Boundary scores of one run."""

    bf_score: float | None
    boundary_iou: float | None
    trimap: tuple[tuple[float, float], ...]
    """Distance from a true border in pixels, mean IoU of the pixels within it; by rising distance."""
    rows: tuple[BoundaryRow, ...]

    def row(self, name: str) -> BoundaryRow | None:
        """Returns the row of a class, None when there is none."""
        return next((row for row in self.rows if row.name == name), None)


def boundary(run: RunRecord) -> Boundary | None:
    """Returns the boundary scores that metrics.json holds, None when it holds none."""
    stated = mapping(run.metrics.get("boundary"))
    rows = tuple(_row(entry) for entry in entries(stated.get("per_class")))
    found = Boundary(
        bf_score=number(stated.get("bf_score")),
        boundary_iou=number(stated.get("boundary_iou")),
        trimap=_trimap(mapping(stated.get("trimap_iou"))),
        rows=tuple(row for row in rows if row.bf_score is not None or row.boundary_iou is not None),
    )
    return None if found.bf_score is None and found.boundary_iou is None and not found.trimap else found


def _row(entry: Mapping[str, Any]) -> BoundaryRow:
    return BoundaryRow(
        name=str(entry.get("name")),
        bf_score=number(entry.get("bf_score")),
        boundary_iou=number(entry.get("boundary_iou")),
    )


def _trimap(stated: Mapping[str, Any]) -> tuple[tuple[float, float], ...]:
    points = []
    for width, value in stated.items():
        try:
            distance, score = number(float(width)), number(value)
        except ValueError:
            continue
        if distance is not None and score is not None:
            points.append((distance, score))
    return tuple(sorted(points))
