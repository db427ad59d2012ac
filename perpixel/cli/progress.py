"""How far long work is: a bar with rate and time left on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn

from perpixel.cli.output import say

__all__ = ["ProgressDisplay", "ProgressState", "duration"]

_SECONDS_BETWEEN_LINES = 10.0


class ProgressState(Protocol):
    """What the work reports: one phase, and how far it is."""

    @property
    def phase(self) -> str: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int:
        """0 while unknown."""
        ...

    @property
    def values(self) -> Mapping[str, Any]: ...
    @property
    def rate(self) -> float | None:
        """Units per second; None while unknown."""
        ...


class ProgressDisplay:
    """Shows progress within its ``with`` block; text that comes meanwhile goes through ``say``."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = _bars(console) if console.is_terminal and not console.quiet else None
        self._tasks: dict[str, TaskID] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            with suppress(OSError):  # the terminal may be gone
                self._bars.stop()

    def say(self, text: str, *, style: str | None = None) -> None:
        """Prints a line, above the bar where there is one."""
        say(self.console, text, style=style)

    def update(self, progress: ProgressState) -> None:
        """Shows the state of a phase; other phases are hidden."""
        if self._bars is None:
            self._line(progress)
            return
        if progress.phase not in self._tasks:
            self._tasks[progress.phase] = self._bars.add_task(progress.phase, rate="", left="", values="")
        for phase, task in self._tasks.items():
            self._bars.update(task, visible=phase == progress.phase)
        self._bars.update(
            self._tasks[progress.phase],
            completed=progress.done,
            total=progress.total or None,
            rate=_rate(progress),
            left=_time_left(progress),
            values=_values(progress),
        )

    def _line(self, progress: ProgressState) -> None:
        now = time.monotonic()
        if now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        of = f"/{progress.total}" if progress.total else ""
        parts = [f"{progress.phase} {progress.done}{of}", _rate(progress), _time_left(progress), _values(progress)]
        self.say("  ".join(part for part in parts if part))


def duration(seconds: float) -> str:
    """Writes a length of time: ``8.3 s``, ``2:05`` or ``1:02:05``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bars(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.fields[values]}", markup=False),
        console=console,
        transient=True,
    )


def _rate(progress: ProgressState) -> str:
    if not progress.rate:
        return ""
    return f"{progress.rate:.2f}/s" if progress.rate < 10 else f"{progress.rate:.0f}/s"


def _time_left(progress: ProgressState) -> str:
    if not progress.rate or not progress.total:
        return ""
    return f"{duration(max(0, progress.total - progress.done) / progress.rate)} left"


def _values(progress: ProgressState) -> str:
    """The sum of the losses where there is one: a network may have ten terms, a line has not the room."""
    if "total" in progress.values:
        return f"loss {progress.values['total']:.4g}"
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in progress.values.items()
    )
