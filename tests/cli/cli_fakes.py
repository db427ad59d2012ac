"""What a command line leaves behind, and stand-ins for the long work behind it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command line left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, kw_only=True)
class FakeResult:
    folder: Path
    scores: dict[str, Any] = field(default_factory=dict)
    interrupted: bool = False
    signal: str | None = None
    steps: int = 7
    seconds: float = 65.0


@dataclass(frozen=True, kw_only=True)
class FakeProgress:
    phase: str = "train"
    done: int = 3
    total: int = 10
    values: dict[str, float] = field(default_factory=dict)
    rate: float | None = 2.0


SCORES: dict[str, Any] = {
    "pixel_accuracy": 0.75,
    "mean_accuracy": 0.7,
    "mean_iou": 0.5,
    "frequency_weighted_iou": 0.6,
    "mean_dice": None,
    "classes_averaged": 2,
    "images": 3,
    "pixels": 1200,
    "confusion": [[3, 1], [0, 4]],
    "per_class": [
        {"name": "[road]", "iou": 0.5, "accuracy": 0.8, "precision": 0.6, "dice": 0.66, "pixels": 1000},
        {"name": "car", "iou": 0.5, "accuracy": 0.6, "precision": None, "dice": None, "pixels": 200},
        {"name": "sky", "iou": None, "accuracy": None, "precision": None, "dice": None, "pixels": 0},
    ],
}
