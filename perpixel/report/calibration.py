"""Whether a probability can be taken at its word: confidence against accuracy, and the expected calibration error.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perpixel.report.read_run import RunRecord, entries, mapping, number

__all__ = ["Calibration", "ConfidenceBin", "calibration"]


@dataclass(frozen=True, kw_only=True)
class ConfidenceBin:
    """The pixels whose top probability lies in one range."""

    low: float
    high: float
    confidence: float
    """Mean top probability."""
    accuracy: float
    """Share that is right."""
    pixels: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration of one run."""

    ece: float
    bins: tuple[ConfidenceBin, ...]
    """Those that hold a pixel, by rising confidence."""
    per_class: tuple[tuple[str, float], ...]
    """Class name, ECE."""

    @property
    def pixels(self) -> int:
        """Pixels in all bins."""
        return sum(part.pixels for part in self.bins)

    @property
    def gap(self) -> float | None:
        """Mean confidence less accuracy over all pixels: above 0 the network is too sure. None without a pixel."""
        if not self.pixels:
            return None
        return sum(part.pixels * (part.confidence - part.accuracy) for part in self.bins) / self.pixels


def calibration(run: RunRecord) -> Calibration | None:
    """Returns the calibration that metrics.json holds, None when it holds none."""
    stated = mapping(run.metrics.get("calibration"))
    ece = number(stated.get("ece"))
    if ece is None:
        return None
    bins = sorted((part for entry in entries(stated.get("bins")) if (part := _bin(entry))), key=lambda part: part.low)
    per_class = ((str(entry.get("name")), number(entry.get("ece"))) for entry in entries(stated.get("per_class")))
    return Calibration(
        ece=ece, bins=tuple(bins), per_class=tuple((name, value) for name, value in per_class if value is not None)
    )


def _bin(entry: Any) -> ConfidenceBin | None:
    low, high, confidence, accuracy, pixels = (
        number(entry.get(key)) for key in ("low", "high", "confidence", "accuracy", "pixels")
    )
    if low is None or high is None or confidence is None or accuracy is None or not pixels:
        return None
    return ConfidenceBin(low=low, high=high, confidence=confidence, accuracy=accuracy, pixels=int(pixels))
