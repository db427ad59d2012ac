"""What is said of a kind of finding, whatever data set it is found in."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["EXCLUDE", "REREAD", "Kind", "Severity"]

Severity = Literal["error", "warning", "note"]
EXCLUDE = "Replace the files, or leave them out: --fix lists them under 'exclude' of a mapping file."
REREAD = "--fix writes how these masks are to be read (key 'masks'); train with data.fixes=FILE."


class Kind(NamedTuple):
    """One kind of finding."""

    severity: Severity
    title: str
    why: str
    repair: str
