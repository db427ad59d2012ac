"""Contenders that take turns, so that a slow moment of the machine meets all of them.

Every round runs each contender once, in alternating order. A ratio says how many times as fast as the reference a
contender is: once of the medians, once of the fastest rounds, and once per round, whose median and quartiles say how
far the ratio can be trusted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from perpixel.errors import InvalidValue

__all__ = ["Contender", "Contest", "Ratio", "contest", "quartiles", "summary"]

_LEAST_ROUNDS = 3  # that a budget leaves


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One of those compared: how it is made ready, and what is timed."""

    name: str
    prepare: Callable[[], Any]
    """Makes what ``run`` takes; not timed."""
    run: Callable[[Any], object]
    warm: Callable[[Any], object] | None = None
    """A small run before memory is measured; None: ``run`` itself."""


class Ratio(NamedTuple):
    """How many times as fast as the reference; above 1 is faster."""

    of_medians: float
    of_fastest: float
    per_round: float
    """Median of the ratios of single rounds."""
    per_round_quartiles: tuple[float, float]


@dataclass(frozen=True)
class Contest:
    """Seconds of one call of every contender in every round."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Returns the median seconds of a contender."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, reference: str) -> Ratio:
        """Compares a contender with the reference."""
        ours, theirs = self.seconds[name], self.seconds[reference]
        rounds = [b / a for a, b in zip(ours, theirs, strict=True)]
        return Ratio(
            of_medians=statistics.median(theirs) / statistics.median(ours),
            of_fastest=min(theirs) / min(ours),
            per_round=statistics.median(rounds),
            per_round_quartiles=quartiles(rounds),
        )

    def rows(self, reference: str) -> dict[str, dict[str, Any]]:
        """Returns, per contender, times and the ratio to the reference as plain values."""
        return {
            name: {**summary(values), "times_as_fast": self.ratio(name, reference)._asdict()}
            for name, values in self.seconds.items()
        }


def contest(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    warmup: int = 1,
    calls: int = 1,
    sync: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    budget_s: float | None = None,
) -> Contest:
    """Prepares all contenders, then times them in turns.

    Args:
        contenders: Two or more, or one where a limit is the other side; names differ.
        rounds: Timed runs of each, >= 1.
        warmup: Rounds before them that are not counted, >= 0.
        calls: Calls within one timed run, >= 1; the seconds of one call are kept.
        sync: Waits for the device; called before the clock is read.
        clock: Returns seconds; ``time.thread_time`` where the time of one thread counts.
        budget_s: Seconds after which no further round begins, but for the first three; None has no end.

    Raises:
        InvalidValue: there is no contender, a name repeats, or a number is out of range.
    """
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) != len(names):
        raise InvalidValue(f"contenders need different names, at least one, got {names}")
    if rounds < 1 or calls < 1 or warmup < 0:
        raise InvalidValue(f"rounds and calls are at least 1, warmup at least 0, got {rounds}, {calls} and {warmup}")
    started = time.perf_counter()
    wait = sync or _nothing
    ready = [(contender, contender.prepare()) for contender in contenders]
    for _ in range(warmup):
        for contender, state in ready:
            contender.run(state)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for contender, state in ready if number % 2 else reversed(ready):
            wait()
            begun = clock()
            for _ in range(calls):
                contender.run(state)
            wait()
            seconds[contender.name].append((clock() - begun) / calls)
        if budget_s is not None and number + 1 >= _LEAST_ROUNDS and time.perf_counter() - started > budget_s:
            break
    return Contest(seconds)


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Returns median, fastest, quartiles and all rounds of seconds as plain values."""
    return {
        "median_s": statistics.median(values),
        "fastest_s": min(values),
        "quartiles_s": list(quartiles(values)),
        "rounds_s": list(values),
    }


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Returns the lower and the upper quartile; of a single value that value."""
    if len(values) < 2:
        return values[0], values[0]
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, upper


def _nothing() -> None:
    return None
