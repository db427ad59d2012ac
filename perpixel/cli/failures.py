"""What a user sees when something goes wrong: one block on stderr, and an exit code that scripts can read."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from typing import TextIO

from cyclopts import CycloptsError
from rich.console import Console

from perpixel.errors import PerpixelError, PerpixelWarning

__all__ = [
    "CALLER_MISTAKE",
    "INTERRUPTED",
    "UNEXPECTED",
    "interruption_code",
    "leave_output",
    "show_failure",
    "show_warning",
]

UNEXPECTED = 1
CALLER_MISTAKE = 2
INTERRUPTED = 130


def interruption_code(signal_name: str | None) -> int:
    """Returns the exit code of a command that a signal ended: 128 and its number, 130 for Ctrl-C or an unknown one."""
    number = getattr(signal, signal_name or "SIGINT", None)
    return INTERRUPTED if number is None else 128 + int(number)


def show_failure(error: BaseException, *, debug: bool) -> int:
    """Prints an error for people and returns the exit code.

    Args:
        error: What ended the command.
        debug: Shows the traceback too.

    Raises:
        BaseException: ``error`` itself, when it is a bug and ``debug`` is set.
    """
    if isinstance(error, KeyboardInterrupt):
        _block("interrupted", "")
        return interruption_code(getattr(error, "signal", None))
    if isinstance(error, BrokenPipeError):
        leave_output()
        return UNEXPECTED
    if isinstance(error, CycloptsError):
        _block("error", f"{error}\nSee `{' '.join(('perpixel', *(error.command_chain or ()), '--help'))}`.")
        return CALLER_MISTAKE
    if isinstance(error, PerpixelError):
        if debug:
            traceback.print_exception(error)
        _block("error", str(error))
        return CALLER_MISTAKE
    if debug:
        raise error
    _block(
        "error",
        f"unexpected {type(error).__name__}: {error}\n"
        "This should not happen, whatever was asked; run again with --debug for the traceback.",
    )
    return UNEXPECTED


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Prints perpixel's own warnings as one block; stands in for `warnings.showwarning`."""
    if issubclass(category, PerpixelWarning):
        _block("warning", str(message))
    else:
        (file or sys.stderr).write(warnings.formatwarning(message, category, filename, lineno, line))


def _block(kind: str, text: str) -> None:
    console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    color = {"error": "bold red", "warning": "bold yellow"}.get(kind, "bold")
    console.print(f"{kind}:" if text else kind, style=color, end=" " if text else "\n")
    if text:
        console.print(text)


def leave_output() -> None:
    """The reader of our output has gone: the interpreter's own flush at exit must not fail once more."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
            continue
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
