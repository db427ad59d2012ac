"""Wrong pixels near true borders against those inside regions: what DFN's two sub-networks are each there for.

DFN (Yu et al., CVPR 2018, arXiv:1804.09337, section 1) names two faults: *indistinction* between neighbouring classes,
which shows at borders, and *inconsistency* within one region, which shows inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perpixel.report.read_run import RunRecord, number

__all__ = ["DEFAULT_WIDTH_PX", "ErrorSplit", "SplitRow", "error_split"]

DEFAULT_WIDTH_PX = 5.0
"""Distance from a true border that the error maps use when metrics.json states none, pixels."""


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """Wrong pixels of one true class, or of all."""

    name: str
    border_wrong: int
    interior_wrong: int
    border_pixels: int
    interior_pixels: int

    @property
    def wrong(self) -> int:
        """All wrong pixels."""
        return self.border_wrong + self.interior_wrong

    @property
    def border_share(self) -> float | None:
        """Fraction of the wrong pixels that lie near a border (indistinction), None when nothing is wrong."""
        return self.border_wrong / self.wrong if self.wrong else None

    @property
    def wrong_share(self) -> float | None:
        """Fraction of all pixels that are wrong, None without a pixel."""
        pixels = self.border_pixels + self.interior_pixels
        return self.wrong / pixels if pixels else None

    @property
    def near_rate(self) -> float | None:
        """Fraction of the pixels near a border that are wrong, None without such a pixel."""
        return self.border_wrong / self.border_pixels if self.border_pixels else None

    @property
    def inside_rate(self) -> float | None:
        """Fraction of the pixels inside regions that are wrong, None without such a pixel."""
        return self.interior_wrong / self.interior_pixels if self.interior_pixels else None


@dataclass(frozen=True, kw_only=True)
class ErrorSplit:
    """The split of one run: over all classes, and per class."""

    width_px: float
    total: SplitRow
    rows: tuple[SplitRow, ...]


def error_split(run: RunRecord) -> ErrorSplit | None:
    """Returns the split that metrics.json holds, None when it holds none."""
    stated = run.metrics.get("error_split")
    if not isinstance(stated, Mapping) or not isinstance(stated.get("per_class"), list):
        return None
    rows = tuple(_row(entry) for entry in stated["per_class"] if isinstance(entry, Mapping))
    total = SplitRow(
        name="all classes",
        border_wrong=sum(row.border_wrong for row in rows),
        interior_wrong=sum(row.interior_wrong for row in rows),
        border_pixels=sum(row.border_pixels for row in rows),
        interior_pixels=sum(row.interior_pixels for row in rows),
    )
    width = number(stated.get("width_px"))
    return ErrorSplit(width_px=DEFAULT_WIDTH_PX if width is None else width, total=total, rows=rows)


def _row(entry: Mapping[str, Any]) -> SplitRow:
    def count(key: str) -> int:
        return int(number(entry.get(key)) or 0)

    return SplitRow(
        name=str(entry.get("name")),
        border_wrong=count("border_wrong"),
        interior_wrong=count("interior_wrong"),
        border_pixels=count("border_pixels"),
        interior_pixels=count("interior_pixels"),
    )
