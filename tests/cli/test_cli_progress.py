"""Bars on terminals, lines elsewhere."""

from __future__ import annotations

import io

import pytest
from cli_fakes import FakeProgress
from rich.console import Console

from perpixel.cli import progress as progress_module
from perpixel.cli.progress import ProgressDisplay, duration


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(
    "seconds, text", [(0.04, "0.0 s"), (59.94, "59.9 s"), (125.0, "2:05"), (3725.0, "1:02:05"), (3599.8, "1:00:00")]
)
def test_duration_is_written_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=160, highlight=False, markup=False)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_plain_display_writes_at_most_one_line_in_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    console = plain_console()
    with ProgressDisplay(console) as display:
        for second in range(35):
            clock.now = float(second)
            display.update(FakeProgress(done=second, total=100, values={"loss": 0.51234}))
    assert text_of(console).splitlines() == [
        f"train {done}/100  2.00/s  {left} left  loss 0.5123"
        for done, left in ((10, "45.0 s"), (20, "40.0 s"), (30, "35.0 s"))
    ]


def test_plain_display_of_many_losses_shows_their_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    console = plain_console()
    with ProgressDisplay(console) as display:
        clock.now = 11.0
        display.update(FakeProgress(done=10, values={"main": 1.0, "deep0": 0.5, "total": 1.5}))
    assert text_of(console) == "train 10/10  2.00/s  0.0 s left  loss 1.5\n"


def test_plain_display_without_rate_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    console = plain_console()
    with ProgressDisplay(console) as display:
        clock.now = 11.0
        display.update(FakeProgress(done=1, total=0, rate=None))
    assert text_of(console) == "train 1\n"


def test_terminal_display_shows_a_bar_with_rate_and_time_left() -> None:
    console = Console(file=io.StringIO(), width=160, force_terminal=True, highlight=False, markup=False)
    with ProgressDisplay(console) as display:
        display.update(FakeProgress(done=3, total=10, rate=2.0, values={"[loss]": 0.25}))
        display.say("a [decision]")
        display.update(FakeProgress(phase="evaluate", done=1, total=2))
        display.update(FakeProgress(done=4, total=10))
    shown = text_of(console)
    for piece in ("train", "3/10", "2.00/s", "3.5 s left", "[loss] 0.25", "a [decision]", "evaluate", "4/10"):
        assert piece in shown


def test_quiet_console_shows_nothing() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, quiet=True)
    with ProgressDisplay(console) as display:
        display.update(FakeProgress())
        display.say("text")
    assert text_of(console) == ""
