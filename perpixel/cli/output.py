"""Where a command's results go: text for people, JSON for programs."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from perpixel.errors import InvalidValue, RunError

__all__ = [
    "JsonFile",
    "check_json_file",
    "check_output_file",
    "console_for",
    "is_first_process",
    "refuse_existing_model",
    "say",
    "write_json",
]

_STDOUT = "-"
_HALF_PAIRS = re.compile("[\ud800-\udfff]")
_PLAIN_WIDTH = 160

JsonFile = Annotated[
    str | None,
    Parameter(
        name="--json",
        allow_leading_hyphen=True,
        help="File for the results as JSON; - is standard output, and text then goes to standard error.",
    ),
]
"""The ``--json`` option of a command that measures."""


def console_for(json_file: str | None = None) -> Console:
    """Returns the console for people: stdout, or stderr when the JSON goes to stdout.

    All but the first process of a distributed run stay silent.
    """
    console = Console(
        stderr=json_file == _STDOUT, highlight=False, markup=False, emoji=False, quiet=not is_first_process()
    )
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console


def is_first_process() -> bool:
    """Whether this process speaks for the run; torchrun numbers them in RANK."""
    return os.environ.get("RANK", "0") == "0"


def say(console: Console, text: str, *, style: str | None = None) -> None:
    """Prints text as it is, long lines unbroken."""
    console.print(text, style=style, soft_wrap=True)


def check_json_file(json_file: str | None) -> None:
    """Refuses before the work what could not be written after it.

    Raises:
        RunError: the name is an option or a folder, or nothing can be written there.
    """
    if json_file is None or json_file == _STDOUT:
        return
    if json_file.startswith("-"):
        raise RunError(f"--json needs a file name before {json_file!r}; - is standard output")
    check_output_file("--json", json_file)


def check_output_file(option: str, name: str | Path) -> None:
    """Refuses a file that an option names where it could not be written after the work.

    Raises:
        RunError: it is a folder, lies below a file, or may not be written.
    """
    if Path(name).is_dir():
        raise RunError(f"{option} {name}: is a folder; give a file name")
    above = next(place for place in Path(name).absolute().parents if place.exists())
    if not above.is_dir():
        raise RunError(f"{option} {name}: cannot be written: {above} is a file, no folder; give another file name")
    where = Path(name) if Path(name).exists() else above
    if not os.access(where, os.W_OK):
        raise RunError(f"{option} {name}: cannot be written: no rights to {where}; give another file name")


def write_json(json_file: str | None, value: Any) -> None:
    """Writes plain values as JSON to a file, whose folders are made, or to stdout; nothing without a file.

    Raises:
        RunError: the file cannot be written.
    """
    if json_file is None or not is_first_process():
        return
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    # Bytes of file names that are no UTF-8: half pairs, which JSON can escape and no encoding can write.
    text = _HALF_PAIRS.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
    if json_file == _STDOUT:
        sys.stdout.write(text)
        return
    path = Path(json_file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"--json {path}: cannot be written: {error.strerror}; give another file") from error


def refuse_existing_model(out: Path, *, overwrite: bool) -> None:
    """Refuses a folder for a model that holds one already, unless it may be replaced.

    Raises:
        InvalidValue: as said.
    """
    if (out / "model.yaml").exists() and not overwrite:
        raise InvalidValue(
            f"--out {out} holds a model already, which would be lost; choose another folder, or give --overwrite"
        )
