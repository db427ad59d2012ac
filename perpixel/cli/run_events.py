"""A run's events in words, and what is said when it ends."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent
from typing import Any, Protocol, TypeVar

from rich.console import Console

from perpixel.cli.failures import interruption_code, leave_output
from perpixel.cli.output import console_for, say, write_json
from perpixel.cli.progress import ProgressDisplay, duration
from perpixel.cli.score_table import SCORE_NAMES, named_scores, per_cent, print_scores

__all__ = [
    "Outcome",
    "describe_event",
    "finish_run",
    "print_interruption",
    "result_json",
    "show_event",
    "unless_unread",
    "watch_run",
]

T = TypeVar("T")

_EVALUATION = ("mean_iou", "pixel_accuracy")
_STYLES = {"best": "bold", "warning": "yellow"}


class Outcome(Protocol):
    """What a finished or interrupted run is known by."""

    @property
    def folder(self) -> Path: ...
    @property
    def scores(self) -> Mapping[str, Any]: ...
    @property
    def interrupted(self) -> bool: ...
    @property
    def signal(self) -> str | None: ...
    @property
    def steps(self) -> int: ...
    @property
    def seconds(self) -> float: ...


def show_event(display: ProgressDisplay, event: Mapping[str, Any]) -> None:
    """Prints an event that a user should see."""
    text = describe_event(event)
    if text is not None:
        display.say(text, style=_STYLES.get(str(event["event"])))


def describe_event(event: Mapping[str, Any]) -> str | None:
    """Returns text about a decision, an evaluation, a new best score or a warning; None for other events."""
    kind = event["event"]
    if kind == "decision":
        return _decision(f"{event['what']}: {_chosen(event['choice'])}", str(event["reason"]))
    if kind == "warning":
        return f"warning: {event.get('message') or _rest(event)}"
    if kind == "evaluation":
        values = named_scores({key: event["values"][key] for key in _EVALUATION if key in event["values"]})
        took = duration(event.get("seconds") or 0)
        return f"{_place(event)}: {values} on {event.get('split', 'val')} in {took}"
    if kind == "best":
        return f"{_place(event)}: best so far{_best_value(event)}"
    return None


def finish_run(console: Console, result: Outcome) -> int:
    """Prints the scores, where everything is and what to try next; returns the exit code."""
    if result.interrupted:
        print_interruption(console, result.folder, steps=result.steps)
        return interruption_code(result.signal)
    if result.scores:
        print_scores(console, result.scores)
    folder = result.folder
    say(console, f"\n{result.steps} steps in {duration(result.seconds)}; everything is in {folder}", style="bold")
    rows = [("report", folder / "report.html"), ("best model", folder / "best")]
    for name, path in rows:
        if path.exists():
            say(console, f"  {name}: {path}")
    if (folder / "best").exists():
        command = f"perpixel predict {shlex.quote(str(folder / 'best'))} IMAGE_OR_FOLDER --out predictions"
        say(console, f"  to predict: {command}")
    return 0


def print_interruption(console: Console, folder: Path | None, *, steps: int | None = None) -> None:
    """Says what an interrupted run has saved and how to go on."""
    at = "" if steps is None else f" at step {steps}"
    if folder is None or not (folder / "config.yaml").is_file():
        say(console, f"interrupted{at}; nothing was saved yet", style="bold")
        return
    saved = _training_states(folder)
    state = f"the training state is in {saved[-1]}" if saved else "there is no training state yet: it starts anew"
    say(console, f"interrupted{at}; {state}", style="bold")
    if (folder / "best").exists():
        say(console, f"  best model so far: {folder / 'best'}")
    say(console, f"  to go on: perpixel train --resume {shlex.quote(str(folder))}")


def result_json(result: Outcome) -> dict[str, Any]:
    """Returns the outcome as plain values for ``--json``."""
    from perpixel.metrics import to_json

    plain: dict[str, Any] = to_json(
        {
            "run": result.folder,
            "interrupted": result.interrupted,
            "signal": result.signal,
            "steps": result.steps,
            "seconds": result.seconds,
            "scores": result.scores,
        }
    )
    return plain


def _training_states(folder: Path) -> list[Path]:
    """Checkpoints of a run, the newest last: of its later stages, then of later steps."""
    holders = [folder, *sorted((folder / "stages").glob("*"), key=lambda path: _leading_number(path.name))]
    return [
        path
        for holder in holders
        for path in sorted(
            (holder / "checkpoints").glob("step-*"), key=lambda path: _leading_number(path.name.removeprefix("step-"))
        )
    ]


def _leading_number(name: str) -> int:
    digits = name.partition("-")[0]
    return int(digits) if digits.isdigit() else 0


def _decision(what: str, reason: str) -> str:
    """A reason of several lines stands below what was decided."""
    return f"{what}\n{indent(reason, '    ')}" if "\n" in reason else f"{what} ({reason})"


def _place(event: Mapping[str, Any]) -> str:
    stage = event.get("stage", "main")
    return f"step {event.get('step', '?')}" if stage == "main" else f"{stage}, step {event.get('step', '?')}"


def _best_value(event: Mapping[str, Any]) -> str:
    score, key = event.get("score"), event.get("monitor", "mean_iou")
    return "" if score is None else f", {SCORE_NAMES.get(key, key)} {per_cent(score)} %"


def _chosen(choice: Any) -> str:
    if isinstance(choice, Mapping):
        return ", ".join(f"{key} {value}" for key, value in choice.items())
    return ", ".join(map(str, choice)) if isinstance(choice, list | tuple) else str(choice)


def _rest(event: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in event.items() if key != "event")


def unless_unread(show: Callable[[T], None]) -> Callable[[T], None]:
    """Returns ``show``, silent from the moment on that its terminal or pipe is gone: training does not end with it."""
    gone = False

    def shown(value: T) -> None:
        nonlocal gone
        if not gone:
            try:
                show(value)
            except OSError:
                gone = True

    return shown


def watch_run(json: str | None, folder: Path | None, start: Callable[[ProgressDisplay], Outcome]) -> int:
    """Starts a run, shows how it goes and how it ends, and returns the exit code.

    Args:
        json: Where the result goes, as ``--json`` takes it.
        folder: The run folder, where it is known before.
        start: Runs with the display as the receiver of events and progress.
    """
    console = console_for(json)
    try:
        with ProgressDisplay(console) as display:
            result = start(display)
    except KeyboardInterrupt as error:
        with _perhaps_unread():
            print_interruption(console, folder)
        return interruption_code(getattr(error, "signal", None))
    code = interruption_code(result.signal) if result.interrupted else 0
    with _perhaps_unread():
        finish_run(console, result)
    write_json(json, result_json(result))
    return code


@contextmanager
def _perhaps_unread() -> Iterator[None]:
    """A terminal that was closed is no mistake of a run that ended well."""
    try:
        yield
    except OSError:
        leave_output()
