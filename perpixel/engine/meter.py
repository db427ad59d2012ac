"""Losses and times between two readings of the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Meter"]


@dataclass
class Meter:
    """Losses, summed on the device, and seconds since the last reading."""

    values: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"data": 0.0, "step": 0.0, "evaluation": 0.0})

    @property
    def steps_per_second(self) -> float:
        """Rate so far; evaluations are not counted."""
        return self.steps / max(self.seconds["data"] + self.seconds["step"], 1e-9)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Takes one step's losses in; does not wait for the device."""
        for name, value in values.items():
            self.values[name] = self.values[name] + value if name in self.values else value
        self.steps += 1

    def read(self) -> dict[str, float]:
        """Waits for the device and returns the means."""
        names = list(self.values)
        sums = torch.stack([self.values[name].float() for name in names]).tolist() if names else []
        return {name: total / self.steps for name, total in zip(names, sums, strict=True)}
