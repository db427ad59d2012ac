"""Files of the same kind of finding, gathered one by one while the data is looked at."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from perpixel.data.inspection.finding import KINDS, Finding, Severity, finding
from perpixel.data.picture import PixelSource, file_of

__all__ = ["Collector", "shown_path"]

_DETAILS = 3


class Collector:
    """Gathers (kind, file, detail) and makes one finding of each kind."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, None]] = {}
        self._details: dict[str, list[str]] = {}
        self._cases: Counter[str] = Counter()
        self._errors: set[str] = set()
        self._made: list[Finding] = []

    def add(self, kind: str, file: str | Sequence[str], detail: str = "") -> None:
        """Notes one case, of one file or several, with what is special about it."""
        self._cases[kind] += 1
        files = [file] if isinstance(file, str) else file
        self._files.setdefault(kind, {}).update(dict.fromkeys(files))
        details = self._details.setdefault(kind, [])
        if detail:
            details.append(detail)

    def make(
        self,
        kind: str,
        files: Sequence[str],
        message: str,
        *,
        count: int | None = None,
        severity: Severity | None = None,
        fix: str | None = None,
    ) -> None:
        """Adds a whole finding."""
        self._made.append(finding(kind, files, message, count=count, severity=severity, fix=fix))

    def files(self, *kinds: str) -> set[str]:
        """Returns the files that were gathered of some kinds."""
        return {file for kind in kinds for file in self._files.get(kind, ())}

    def explain(self, refusal: str) -> None:
        """Makes sure that what a reader refuses is an error: a finding of a file that it names, or one of its own."""
        reasons = [kind for kind, files in self._files.items() if any(_is_named(file, refusal) for file in files)]
        made = any(one.severity == "error" and one.kind in ("layout", "class_files") for one in self._made)
        if (
            made
            or self._errors & {"name_control", "name_blank"}
            or any(kind in self._errors or KINDS[kind].severity == "error" for kind in reasons)
        ):
            return
        if reasons:
            worst = min(reasons, key=lambda kind: KINDS[kind].severity == "note")  # the first warning, if there is one
            self.make_error(worst, f"the reader of this format stops here: {refusal}")
        else:
            self.make("layout", [], refusal, count=1)

    def make_error(self, kind: str, detail: str) -> None:
        """Makes an error of a kind that was gathered, and says why first."""
        self._errors.add(kind)
        self._details[kind].insert(0, detail)

    def findings(self) -> list[Finding]:
        """Returns what was gathered, one finding per kind and whole ones."""
        gathered = []
        for kind, files in self._files.items():
            details = self._details[kind]
            more = f"; and {len(details) - _DETAILS} more" if len(details) > _DETAILS else ""
            said = f" ({'; '.join(details[:_DETAILS])}{more})" if details else ""
            count = self._cases[kind]
            severity: Severity | None = "error" if kind in self._errors else None
            message = f"{KINDS[kind].title}: {count}{said}"
            gathered.append(finding(kind, list(files), message, count=count, severity=severity))
        return [*gathered, *self._made]


def _is_named(file: str, text: str) -> bool:
    """Tells whether a text names a file, with any extension."""
    name, stem, text = Path(file).name.casefold(), Path(file).stem.casefold(), text.casefold()
    return name in text or any(f"{before}{stem}{after}" in text for before in "/ " for after in ".,")


def shown_path(root: Path, source: PixelSource) -> str:
    """Returns the file of a picture relative to the root of the data, or whole where it lies elsewhere."""
    file, base = str(file_of(source)), f"{root}{os.sep}"
    if str(root) == ".":
        return file.replace(os.sep, "/")
    return file[len(base) :].replace(os.sep, "/") if file.startswith(base) else file
