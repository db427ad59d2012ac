"""What a checker gets and gives: a reference vector, and rows of errors beside their tolerances."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perpixel.weights.reference_values import fill_value, make_input, sample

__all__ = ["TOLERANCE", "Row", "Skipped", "Vector", "compare"]

TOLERANCE = 1e-9
"""Largest error in float64 that counts as equal: rounding of sums in another order stays well below it."""


class Skipped(Exception):
    """Raised by a checker for a vector that this version has nothing to compare with; says what is missing."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One compared output."""

    name: str
    error: float
    """max |ours - expected| / max(1, max |expected|), or as ``note`` says; infinite where shapes differ."""
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error stays within the tolerance; NaN does not."""
        return self.error <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class Vector:
    """A reference vector in memory."""

    folder: Path
    manifest: Mapping[str, Any]
    expected: Mapping[str, NDArray[Any]]

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the published state dict, filled by the published rule, in float64."""
        return {key: torch.from_numpy(fill_value(key, shape)) for key, shape, _ in self.manifest["state_dict"]}

    def input(self, name: str) -> Tensor:
        """Returns the input of that name, float64."""
        return torch.from_numpy(make_input(name, self.manifest["inputs"][name]))

    def tensor(self, name: str) -> Tensor:
        """Returns a whole stored array."""
        return torch.from_numpy(np.ascontiguousarray(self.expected[name]))

    def compare_sampled(self, name: str, ours: Tensor) -> Row:
        """Compares an output with its stored samples; its shape must be the stated one."""
        wanted = tuple(self.manifest["outputs"][name])
        if tuple(ours.shape) != wanted:
            note = f"shape {tuple(ours.shape)}, expected {wanted}"
            return Row(name=name, error=math.inf, tolerance=TOLERANCE, note=note)
        return compare(name, sample(ours.detach().cpu().numpy()), self.expected[name])

    def compare_whole(self, name: str, ours: Tensor) -> Row:
        """Compares with an array that is stored whole."""
        return compare(name, ours.detach().cpu().numpy(), self.expected[name])


def compare(name: str, ours: NDArray[Any] | Sequence[float], expected: NDArray[Any]) -> Row:
    """Returns the row of max |ours - expected| / max(1, max |expected|)."""
    values = np.asarray(ours, dtype=np.float64)
    wanted = np.asarray(expected, dtype=np.float64)
    if values.shape != wanted.shape:
        note = f"shape {values.shape}, expected {wanted.shape}"
        return Row(name=name, error=math.inf, tolerance=TOLERANCE, note=note)
    error = float(np.abs(values - wanted).max(initial=0.0)) / max(1.0, float(np.abs(wanted).max(initial=0.0)))
    return Row(name=name, error=error, tolerance=TOLERANCE)
