"""What the detective found: one kind of fault with all its files. The kinds stand in `kinds`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perpixel.data.inspection.kinds import KINDS, Severity

__all__ = ["KINDS", "Finding", "Severity", "finding", "in_order"]

_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found, with all its files."""

    kind: str
    severity: Severity
    count: int
    """How many cases: files, pairs, groups of equal files or classes, as ``message`` says."""
    files: tuple[str, ...]
    """All of them, relative to the root of the data where they lie below it."""
    message: str
    fix: str

    @property
    def title(self) -> str:
        """The kind in words."""
        return KINDS[self.kind].title

    @property
    def why(self) -> str:
        """What goes wrong when nothing is done."""
        return KINDS[self.kind].why

    def to_dict(self) -> dict[str, Any]:
        """Returns the keys of `data check --json`."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "count": self.count,
            "files": list(self.files),
            "message": self.message,
            "why": self.why,
            "fix": self.fix,
        }


def finding(
    kind: str,
    files: Sequence[str],
    message: str,
    *,
    count: int | None = None,
    severity: Severity | None = None,
    fix: str | None = None,
) -> Finding:
    """Makes a finding with the severity and the repair of its kind, unless others are given.

    Raises:
        KeyError: the kind is not in `KINDS`.
    """
    known = KINDS[kind]
    return Finding(
        kind=kind,
        severity=known.severity if severity is None else severity,
        count=len(files) if count is None else count,
        files=tuple(files),
        message=message,
        fix=known.repair if fix is None else fix,
    )


def in_order(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Sorts by severity, then as `KINDS` lists the kinds."""
    place = {kind: index for index, kind in enumerate(KINDS)}
    return tuple(sorted(findings, key=lambda found: (_ORDER[found.severity], place[found.kind])))
