"""Ctrl-C, SIGTERM and a closed terminal during a run: finish the step, save, leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupted", "StopSignals", "signals_raise"]

_ENDING = ("SIGTERM", "SIGHUP")  # the second is unknown to Windows
_STOPPING = ("SIGINT", *_ENDING)


class Interrupted(KeyboardInterrupt):
    """A stop signal came in a part of the work that can be dropped; its argument is the signal's name."""

    @property
    def signal(self) -> str:
        """Such as ``"SIGTERM"``."""
        return str(self.args[0])


class StopSignals:
    """Within its ``with`` block the first SIGINT, SIGTERM or SIGHUP is only noted; a second SIGINT stops at once.

    A signal that was ignored before stays so: ``nohup`` and background shells ask for it. Handlers can be set in the
    main thread alone; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        """Name of the signal that came, such as ``"SIGTERM"``."""
        self._droppable = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        self._previous = _handled(_STOPPING, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _put_back(self._previous)

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


@contextmanager
def signals_raise() -> Iterator[None]:
    """Within this block SIGTERM and SIGHUP raise ``Interrupted``, as Ctrl-C raises KeyboardInterrupt.

    Files that are being written are then cleared away and the exit is an orderly one. Ignored signals stay ignored;
    outside the main thread this does nothing.
    """

    def leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        raise Interrupted(signal.Signals(number).name)

    previous = _handled(_ENDING, leave)
    try:
        yield
    finally:
        _put_back(previous)


def _handled(names: tuple[str, ...], handler: Any) -> dict[signal.Signals, Any]:
    """Sets a handler for the signals that are not ignored and returns those from before."""
    previous: dict[signal.Signals, Any] = {}
    if threading.current_thread() is not threading.main_thread():
        return previous
    for number in (signal.Signals[name] for name in names if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, handler)
    return previous


def _put_back(previous: dict[signal.Signals, Any]) -> None:
    for number, handler in previous.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
