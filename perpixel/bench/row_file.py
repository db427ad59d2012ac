"""A JSON file of measured rows that is whole after every row, so that an interrupted benchmark goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perpixel.engine.atomic import write_bytes
from perpixel.errors import RunError
from perpixel.metrics import to_json

__all__ = ["Row", "RowFile"]

Row = dict[str, Any]
"""``key`` (what was measured, plain values), ``failed`` (a message, or None), and the values."""


class RowFile:
    """The rows of one benchmark, one per key; rows of other keys, such as other settings, are kept beside them.

    Args:
        path: Read where it exists; it is written with the first row.

    Raises:
        RunError: the file is not one of a benchmark.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[Row] = []
        if path.is_dir():
            raise RunError(f"{path} is a folder; name a JSON file for the rows")
        if path.exists():
            self.rows = _read(path)

    def find(self, key: Mapping[str, Any]) -> Row | None:
        """Returns the row of a key, None where it was not measured."""
        wanted = to_json(key)
        return next((row for row in self.rows if row["key"] == wanted), None)

    def put(self, row: Mapping[str, Any]) -> Row:
        """Adds a row, in place of one with the same key, and writes the file whole.

        Raises:
            RunError: the disk refuses; the file on it is unchanged.
        """
        plain: Row = to_json(row)
        self.rows = [kept for kept in self.rows if kept["key"] != plain["key"]] + [plain]
        text = json.dumps({"rows": self.rows}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.path, text.encode())
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror}; free space or name another") from error
        return plain


def _read(path: Path) -> list[Row]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as JSON ({error}); mend or move it, or name another file") from error
    rows = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and {"key", "failed"} <= set(row) for row in rows):
        raise RunError(f"{path}: holds no rows of a benchmark and is not overwritten; name another file")
    return rows
