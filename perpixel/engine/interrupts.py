"""Ctrl-C and SIGTERM during training: finish the step, save, leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupted", "StopSignals"]


class Interrupted(KeyboardInterrupt):
    """A stop signal came in a part of the work that can be dropped."""


class StopSignals:
    """Within its ``with`` block the first SIGINT or SIGTERM is only noted; a second SIGINT stops at once.

    Handlers can be set in the main thread alone; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        """Name of the signal that came, such as ``"SIGTERM"``."""
        self._droppable = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def droppable(self) -> Iterator[None]:
        """A signal within this block raises ``Interrupted`` there, for work that can be done again."""
        self._droppable = True
        try:
            if self.requested is not None:
                raise Interrupted(self.requested)
            yield
        finally:
            self._droppable = False

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        first = self.requested is None
        self.requested = signal.Signals(number).name
        if self._droppable and first:
            raise Interrupted(self.requested)
        if not first and number == signal.SIGINT:
            raise KeyboardInterrupt
