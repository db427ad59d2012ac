"""``perpixel report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from perpixel.cli.output import console_for, say

__all__ = ["report"]


def report(run: Path, other: Annotated[Path | None, Parameter(name="RUN2")] = None, /) -> None:
    """Writes report.html of a run folder again, or compares it with a second run.

    Args:
        run: Run folder; the report is written into it.
        other: Run folder to compare with.
    """
    from perpixel.report import write_report

    path = write_report(run, other)
    say(console_for(), f"report: {path}")
