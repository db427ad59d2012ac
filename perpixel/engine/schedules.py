"""Learning-rate schedules: the factor on each group's base rate as a function of the step.

A step counts finished updates, so the first update runs at ``factor(0)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perpixel.errors import InvalidValue, nearest

__all__ = ["SCHEDULES", "Schedule", "ScheduleOptions", "constant", "cosine", "create_schedule", "multi_step", "poly"]


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """What the schedules read; each takes the fields that it knows.

    Raises:
        InvalidValue: a value is out of its range.
    """

    steps: int
    """Length of the stage in updates."""
    power: float = 0.9
    """poly: exponent."""
    every: int = 1
    """poly: the factor changes every this many steps."""
    milestones: tuple[int, ...] = ()
    """step: steps from which on ``gamma`` applies once more, ascending."""
    gamma: float = 0.1
    """step, plateau: factor of one drop."""
    patience: int = 5
    """plateau: evaluations without a gain that are waited for; the next one drops the rate."""
    threshold: float = 1e-4
    """plateau: a score must exceed the best by this much to count as a gain."""
    warmup_steps: int = 0
    """The factor is multiplied by a ramp from ``warmup_factor`` at step 0 to 1 at this step."""
    warmup_factor: float = 0.1
    min_factor: float = 0.0
    """The factor never falls below this (warm-up aside)."""

    def __post_init__(self) -> None:
        checks = (
            ("steps", self.steps > 0, "positive"),
            ("power", self.power >= 0, "at least 0"),
            ("every", self.every > 0, "positive"),
            ("milestones", list(self.milestones) == sorted(set(self.milestones)), "ascending"),
            ("gamma", 0 < self.gamma <= 1, "in (0, 1]"),
            ("patience", self.patience >= 0, "at least 0"),
            ("warmup_steps", self.warmup_steps >= 0, "at least 0"),
            ("warmup_factor", 0 <= self.warmup_factor <= 1, "in [0, 1]"),
            ("min_factor", 0 <= self.min_factor <= 1, "in [0, 1]"),
        )
        for name, good, wanted in checks:
            if not good:
                raise InvalidValue(f"schedule: {name} must be {wanted}, got {getattr(self, name)}")


def poly(step: int, options: ScheduleOptions) -> float:
    """Returns ``(1 - step / steps) ** power``, the step rounded down to a multiple of ``every``.

    Source: Liu et al. 2015, arXiv:1506.04579 (ParseNet); power 0.9 from DeepLab v2.
    """
    counted = step // options.every * options.every
    return float((1.0 - min(counted / options.steps, 1.0)) ** options.power)


def multi_step(step: int, options: ScheduleOptions) -> float:
    """Returns ``gamma`` to the power of the number of milestones reached."""
    return float(options.gamma ** sum(step >= milestone for milestone in options.milestones))


def constant(step: int, options: ScheduleOptions) -> float:  # noqa: ARG001 - one signature for all
    """Returns 1 at every step."""
    return 1.0


def cosine(step: int, options: ScheduleOptions) -> float:
    """Returns half a cosine from 1 at step 0 to 0 at the end. Source: Loshchilov and Hutter 2017, arXiv:1608.03983."""
    return 0.5 * (1.0 + math.cos(math.pi * min(step / options.steps, 1.0)))


SCHEDULES: dict[str, Callable[[int, ScheduleOptions], float]] = {
    "poly": poly,
    "step": multi_step,
    "constant": constant,
    "cosine": cosine,
    "plateau": constant,  # times the drops that its evaluations caused
}


class Schedule:
    """A named schedule with warm-up and floor; ``plateau`` alone remembers scores."""

    def __init__(self, name: str, options: ScheduleOptions) -> None:
        self.name = name
        self.options = options
        self._function = SCHEDULES[name]
        self._drops = 0
        self._waited = 0
        self._best = -math.inf

    def factor(self, step: int) -> float:
        """Returns what the base learning rates are multiplied by in the update after ``step`` finished ones."""
        options = self.options
        factor = max(self._function(step, options) * options.gamma**self._drops, options.min_factor)
        if step < options.warmup_steps:
            factor *= options.warmup_factor + (1.0 - options.warmup_factor) * step / options.warmup_steps
        return factor

    def observe(self, score: float) -> None:
        """Takes an evaluation's score, higher is better; only ``plateau`` heeds it. NaN is no gain."""
        if self.name != "plateau":
            return
        if score > self._best + self.options.threshold:
            self._best = score
            self._waited = 0
            return
        self._waited += 1
        if self._waited > self.options.patience:
            self._drops += 1
            self._waited = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run needs."""
        return {"name": self.name, "drops": self._drops, "waited": self._waited, "best": self._best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what ``state_dict`` returned."""
        self._drops, self._waited, self._best = state["drops"], state["waited"], state["best"]


def create_schedule(name: str, options: ScheduleOptions) -> Schedule:
    """Builds a schedule by name.

    Raises:
        InvalidValue: the name is unknown.
    """
    if name not in SCHEDULES:
        raise InvalidValue(f"unknown schedule {name!r}; known: {', '.join(SCHEDULES)}{nearest(name, SCHEDULES)}")
    return Schedule(name, options)
