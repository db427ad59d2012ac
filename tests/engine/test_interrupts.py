"""Signals that end a run: noted, raised, ignored where they were ignored before."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from perpixel.engine.interrupts import Interrupted, StopSignals, signals_raise

ENDING = (signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """A background shell starts tests with ignored signals."""
    kinds = (signal.SIGINT, *ENDING)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in kinds}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, *ENDING])
def test_stop_signals_first_is_noted_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert signals.requested is None
        os.kill(os.getpid(), number)
        assert signals.requested == number.name
    assert signal.getsignal(number) is before


def test_stop_signals_second_ctrl_c_raises_and_second_sigterm_does_not() -> None:
    with StopSignals() as signals:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_stop_signals_droppable_work_is_left_at_once() -> None:
    reached: list[str] = []
    with StopSignals() as signals:
        with pytest.raises(Interrupted, match="SIGHUP"), signals.droppable():
            os.kill(os.getpid(), signal.SIGHUP)
            reached.append("after")
        with pytest.raises(Interrupted, match="SIGHUP"), signals.droppable():
            reached.append("begun though a signal had come")
    assert reached == []


@pytest.mark.parametrize("block", [StopSignals, signals_raise])
@pytest.mark.parametrize("number", ENDING)
def test_ignored_signals_stay_ignored(number: signal.Signals, block: Any) -> None:
    signal.signal(number, signal.SIG_IGN)
    with block() as signals:
        os.kill(os.getpid(), number)
        assert signals is None or signals.requested is None
    assert signal.getsignal(number) is signal.SIG_IGN


@pytest.mark.parametrize("number", ENDING)
def test_signals_raise_what_names_them_and_handlers_come_back(number: signal.Signals) -> None:
    with pytest.raises(Interrupted) as caught, signals_raise():
        os.kill(os.getpid(), number)
    assert caught.value.signal == number.name
    assert isinstance(caught.value, KeyboardInterrupt)
    assert signal.getsignal(number) is signal.SIG_DFL


def test_signals_within_stop_signals_are_noted_and_raise_again_after() -> None:
    with signals_raise():
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.requested == "SIGTERM"
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)


def test_signals_outside_the_main_thread_do_nothing() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    seen: list[Any] = []

    def work() -> None:
        with signals_raise(), StopSignals() as signals:
            seen.append(signals.requested)
            seen.extend(signal.getsignal(number) for number in ENDING)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, *before]
