"""What long work tells whoever watches it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Progress", "ProgressCallback", "Reporter"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far one phase of the work is."""

    phase: str
    done: int
    total: int
    values: Mapping[str, float] = field(default_factory=dict)
    rate: float | None = None
    """Units per second since the phase began; None before the first."""


ProgressCallback = Callable[[Progress], None]


class Reporter:
    """Turns (done, total) calls of one phase into `Progress`, with the rate."""

    def __init__(self, phase: str, callback: ProgressCallback | None) -> None:
        self.phase = phase
        self.callback = callback
        self.started = time.perf_counter()
        self.first: int | None = None

    def __call__(self, done: int, total: int, values: Mapping[str, float] | None = None) -> None:
        if self.callback is None:
            return
        if self.first is None:  # a resumed phase does not begin at zero
            self.first = done - 1
        elapsed = time.perf_counter() - self.started
        rate = (done - self.first) / elapsed if elapsed > 0 else None
        self.callback(Progress(phase=self.phase, done=done, total=total, values=values or {}, rate=rate))
