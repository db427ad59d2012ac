"""Losses and times between two readings of the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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

    def read(self, share: Callable[[Tensor], Tensor] = lambda own: own) -> dict[str, float]:
        """Waits for the device and returns the means.

        Args:
            share: Makes one of the values of several processes.
        """
        return {name: total / self.steps for name, total in self.held(share)["sums"].items()}

    def held(self, share: Callable[[Tensor], Tensor] = lambda own: own) -> dict[str, Any]:
        """Waits for the device and returns the losses since the last reading as plain values, for a checkpoint.

        Args:
            share: Makes one of the values of several processes.
        """
        names = list(self.values)
        sums = share(torch.stack([self.values[name].float() for name in names])).tolist() if names else []
        return {"steps": self.steps, "sums": dict(zip(names, sums, strict=True))}

    @classmethod
    def of(cls, held: Mapping[str, Any], device: torch.device) -> Meter:
        """Returns the meter that goes on with what ``held`` gave, on ``device``."""
        sums = {name: torch.tensor(value, dtype=torch.float32, device=device) for name, value in held["sums"].items()}
        return cls(values=sums, steps=held["steps"])
