"""``perpixel verify``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from perpixel.cli.output import JsonFile, check_json_file, console_for, say, write_json
from perpixel.errors import CheckpointError

if TYPE_CHECKING:
    from perpixel.weights import Verification

__all__ = ["verify"]

_REFERENCE_VARIABLE = "PERPIXEL_REFERENCE"
_USUAL_PLACES = (Path("../shared/reference"), Path("tests/reference"))
_FAILED = 1


def verify(*paths: Annotated[Path, Parameter(name="PATH")], json: JsonFile = None) -> int:
    """Proves by numbers that networks, losses and procedures compute what the published code computes.

    Each reference vector gets one line with its largest error. The exit code is 1 when any fails; what this version
    has no checker for is counted as skipped.

    Args:
        paths: Reference vectors or folders of them; without any those of PERPIXEL_REFERENCE.
    """
    check_json_file(json)
    from perpixel.weights import find_vectors
    from perpixel.weights import verify as verify_vector

    console = console_for(json)
    rows: list[dict[str, Any]] = []
    for vector in find_vectors(paths or (_default_place(),)):
        try:
            verification = verify_vector(vector)
        except CheckpointError as error:
            unread = {"path": vector.as_posix(), "kind": None, "family": "", "status": "failed"}
            rows.append({**unread, "reason": str(error), "rows": []})
            say(console, f"{vector}: failed, {error}", style="red")
            continue
        rows.append(_plain(verification))
        say(console, verification.summary(), style="red" if verification.failed else None)
    counts = {status: sum(row["status"] == status for row in rows) for status in ("passed", "failed", "skipped")}
    say(console, ", ".join(f"{count} {status}" for status, count in counts.items()), style="bold")
    write_json(json, {**counts, "vectors": rows})
    return _FAILED if counts["failed"] else 0


def _default_place() -> Path:
    named = os.environ.get(_REFERENCE_VARIABLE)
    if named:
        return Path(named)
    for place in _USUAL_PLACES:
        if place.is_dir():
            return place
    raise CheckpointError(
        f"no reference vectors: name a folder, or set {_REFERENCE_VARIABLE} "
        f"(looked for {' and '.join(map(str, _USUAL_PLACES))})"
    )


def _plain(verification: Verification) -> dict[str, Any]:
    from perpixel.metrics import to_json

    rows = [
        {"name": row.name, "error": row.error, "tolerance": row.tolerance, "passed": row.passed, "note": row.note}
        for row in verification.rows
    ]
    plain: dict[str, Any] = to_json(
        {
            "path": verification.path,
            "kind": verification.kind,
            "family": verification.family,
            "status": verification.status,
            "reason": verification.skipped,
            "rows": rows,
        }
    )
    return plain
