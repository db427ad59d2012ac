"""The one form of all results: rows in a JSON file that is whole after every row, and limits beside them.

::

    {"benchmark": name, "environment": {...}, "settings": {...}, "rounds": n, "rows": [...], "limits": [...]}

A row has ``name``, ``failed`` (a message or None), ``commit``, ``contenders`` (name -> times, ratio to the reference,
memory and further values), ``reference`` (the contender that ratios refer to, or None), ``values`` and ``limits``. The
limits of the report are those of its rows, each with its row's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from perpixel.bench.environment import commit
from perpixel.engine.atomic import write_bytes
from perpixel.errors import PerpixelError, RunError
from perpixel.metrics import to_json

__all__ = ["Report", "Row", "limit", "measured_row", "read_report", "row_of"]

Row = dict[str, Any]
_COMPARABLE = ("device", "threads", "python", "versions")
"""What must not differ between rows of one file."""


def limit(
    what: str, value: float | None, bound: float, *, sense: Literal["at least", "at most"], unit: str = ""
) -> dict[str, Any]:
    """Returns a target, what was measured, and whether it is reached (None where nothing was measured)."""
    holds = value is not None and (value >= bound if sense == "at least" else value <= bound)
    reached = None if value is None else holds
    return {"what": what, "value": value, "limit": bound, "sense": sense, "unit": unit, "reached": reached}


def row_of(
    name: str,
    contenders: Mapping[str, Mapping[str, Any]],
    *,
    reference: str | None = None,
    values: Mapping[str, Any] | None = None,
    limits: list[dict[str, Any]] | None = None,
) -> Row:
    """Returns the row of something that was measured."""
    return {
        "name": name,
        "failed": None,
        "commit": commit(),
        "reference": reference,
        "contenders": {key: dict(found) for key, found in contenders.items()},
        "values": dict(values or {}),
        "limits": limits or [],
    }


def measured_row(name: str, measure: Callable[[], Row], *, targets: list[dict[str, Any]] | None = None) -> Row:
    """Measures a row; one that cannot be measured says why, and its targets stay open.

    Args:
        name: Of the row.
        measure: Returns it.
        targets: Limits without values, for a row that fails.
    """
    try:
        return measure()
    except Exception as error:  # whatever the other side raises: the rows that follow are measured all the same
        text = " ".join(str(error).split()) or type(error).__name__
        why = text if isinstance(error, PerpixelError) else f"{type(error).__name__}: {text}"
        return {**row_of(name, {}, limits=targets), "failed": why[:600]}


class Report:
    """The results of one benchmark, written to its file after every row.

    Rows of an earlier run stay where settings and environment are the same (but for commit and date), so that single
    rows can be measured again; else they are left out, and ``left_out`` names them.

    Args:
        path: JSON file; None keeps the report in memory.
        benchmark: Its name.
        environment: From `describe_environment`.
        settings: What was measured, but for the rows' own.
        rounds: Timed runs of each contender.

    Raises:
        RunError: the file is one of something else.
    """

    def __init__(
        self,
        path: Path | None,
        benchmark: str,
        *,
        environment: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
        rounds: int,
    ) -> None:
        self.path = path
        self.rounds = rounds
        self.benchmark = benchmark
        self.environment: dict[str, Any] = to_json(environment)
        self.settings: dict[str, Any] = to_json(settings or {})
        self.rows: list[Row] = []
        self.left_out: list[str] = []
        if path is not None and path.exists():
            self._take_over(read_report(path))

    def put(self, row: Mapping[str, Any]) -> Row:
        """Adds a row, in place of one with its name, and writes the file.

        Raises:
            RunError: the disk refuses; the file on it is unchanged.
        """
        plain: Row = to_json(row)
        names = [kept["name"] for kept in self.rows]
        if plain["name"] in names:
            self.rows[names.index(plain["name"])] = plain
        else:
            self.rows.append(plain)
        if self.path is not None:
            self._write(self.path)
        return plain

    @property
    def failed(self) -> list[str]:
        """``name: why`` of the rows that could not be measured."""
        return [f"{row['name']}: {row['failed']}" for row in self.rows if row["failed"]]

    def content(self) -> dict[str, Any]:
        """Returns what the file holds."""
        return {
            "benchmark": self.benchmark,
            "environment": self.environment,
            "settings": self.settings,
            "rounds": self.rounds,
            "rows": self.rows,
            "limits": [{"row": row["name"], **found} for row in self.rows for found in row["limits"]],
        }

    def _take_over(self, earlier: dict[str, Any]) -> None:
        if earlier["benchmark"] != self.benchmark:
            raise RunError(
                f"{self.path} holds results of {earlier['benchmark']!r}, not of {self.benchmark!r}; name another file"
            )
        then = earlier["environment"]
        same = all(then.get(key) == self.environment.get(key) for key in _COMPARABLE)
        if same and earlier["settings"] == self.settings and earlier["rounds"] == self.rounds:
            self.rows = list(earlier["rows"])
        else:
            self.left_out = [row["name"] for row in earlier["rows"]]

    def _write(self, path: Path) -> None:
        text = json.dumps(self.content(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, text.encode())
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}; free space or name another file") from error


def read_report(path: Path) -> dict[str, Any]:
    """Returns the content of a file of results.

    Raises:
        RunError: it cannot be read, or is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as JSON ({error}); mend or move it, or name another file") from error
    keys = {"benchmark", "environment", "settings", "rounds", "rows", "limits"}
    if not isinstance(content, dict) or not keys <= set(content):
        raise RunError(f"{path}: is not a file of benchmark results and is not overwritten; name another file")
    return content
