"""What a pre-flight check reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["CheckResult", "PreflightReport", "Status"]

Status = Literal["ok", "warning", "failed", "not run"]


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one check of a pre-flight found."""

    name: str
    status: Status
    found: str
    way_out: str = ""
    """What to do; empty where nothing is to be done."""
    seconds: float = 0.0
    values: Mapping[str, Any] = field(default_factory=dict)
    """The numbers behind ``found``, as plain values."""


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """The results of all checks, in their order."""

    checks: tuple[CheckResult, ...]
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether the real run would fail."""
        return any(check.status == "failed" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        checks = [{**vars(check), "values": dict(check.values)} for check in self.checks]
        return {"failed": self.failed, "seconds": self.seconds, "checks": checks}
