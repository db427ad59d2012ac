"""Proof by numbers: a folder that pins a published network, loss or procedure is compared with ours.

A *reference vector* is a folder with ``manifest.json`` and ``expected.npz``; its ``kind`` chooses the checker. One
whose manifest lists ``files`` has these in place of ``expected.npz``, and its checker reads them.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perpixel.errors import CheckpointError, PerpixelError
from perpixel.weights.checkers import CHECKERS
from perpixel.weights.checkers.vector import TOLERANCE, Row, Skipped, Vector

__all__ = ["Row", "Verification", "find_vectors", "verify"]

_MANIFEST = "manifest.json"
_EXPECTED = "expected.npz"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The outcome for one reference vector: passed, failed, or skipped because nothing here can check it."""

    path: Path
    kind: str
    rows: tuple[Row, ...]
    family: str = ""
    """``codebase/network`` of a network's vector."""
    skipped: str = ""
    """Why it was not checked; empty when it was."""

    @property
    def passed(self) -> bool:
        """Checked, and every row held."""
        return bool(self.rows) and all(row.passed for row in self.rows)

    @property
    def failed(self) -> bool:
        """Checked, and some row did not hold: what the command line's exit code counts."""
        return not self.skipped and not self.passed

    @property
    def status(self) -> str:
        """``"passed"``, ``"failed"`` or ``"skipped"``."""
        return "skipped" if self.skipped else "passed" if self.passed else "failed"

    def summary(self) -> str:
        """Returns one line, and one more for each row that failed."""
        if self.skipped:
            return f"{self.path}: skipped, {self.skipped}"
        if not self.rows:
            return f"{self.path}: failed, nothing was compared"
        worst = max(self.rows, key=lambda row: row.error / row.tolerance)
        held = sum(row.passed for row in self.rows)
        lines = [
            f"{self.path}: {self.status}, {held} of {len(self.rows)} outputs equal; "
            f"largest error {worst.error:.2e} of {worst.tolerance:.0e} allowed ({worst.name})"
        ]
        wrong = [row for row in self.rows if not row.passed]
        lines += [f"  {row.name}: error {row.error:.2e} > {row.tolerance:.0e} {row.note}".rstrip() for row in wrong]
        return "\n".join(lines)


def verify(path: str | Path) -> Verification:
    """Compares ours with the reference vector in ``path`` (its folder or its manifest).

    A vector of a kind, or a network of a family, that this version does not have is skipped, not failed. One whose
    weights cannot be imported has failed, and its only row says why.

    Raises:
        CheckpointError: the folder holds no readable reference vector.
    """
    folder = Path(path)
    folder = folder.parent if folder.name == _MANIFEST else folder
    manifest = _read_manifest(folder)
    kind, family = str(manifest["kind"]), str(manifest.get("family", ""))
    if kind not in CHECKERS:
        known = ", ".join(sorted(CHECKERS))
        reason = f"no checker for kind {kind!r} (there are {known})"
        return Verification(path=folder, kind=kind, family=family, rows=(), skipped=reason)
    expected = {} if "files" in manifest else _read_arrays(folder)
    vector = Vector(folder=folder, manifest=manifest, expected=expected)
    try:
        rows = tuple(CHECKERS[kind](vector))
    except Skipped as reason:
        return Verification(path=folder, kind=kind, family=family, rows=(), skipped=str(reason))
    except KeyError as error:
        raise CheckpointError(f"{folder}: incomplete reference vector, it lacks {error}") from error
    except PerpixelError as error:
        rows = (Row(name="import", error=math.inf, tolerance=TOLERANCE, note=str(error)),)
    return Verification(path=folder, kind=kind, family=family, rows=rows)


def find_vectors(paths: Iterable[str | Path]) -> tuple[Path, ...]:
    """Returns the folders with a manifest.json at or below each path, in order and each once.

    Raises:
        CheckpointError: a path does not exist, or has no vector below it.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise CheckpointError(f"{path}: no such file or folder; give a folder with reference vectors")
        manifests = [path] if path.name == _MANIFEST else sorted(path.rglob(_MANIFEST))
        if not manifests:
            raise CheckpointError(f"{path}: no {_MANIFEST} below it, so no reference vector")
        found.update(dict.fromkeys(manifest.parent for manifest in manifests))
    return tuple(found)


def _read_manifest(folder: Path) -> dict[str, object]:
    path = folder / _MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {_MANIFEST} in it, so no reference vector")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(manifest, dict) or "kind" not in manifest:
        raise CheckpointError(f"{path}: a reference vector's manifest is an object with the key 'kind'")
    return manifest


def _read_arrays(folder: Path) -> dict[str, np.ndarray]:
    path = folder / _EXPECTED
    try:
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: missing or damaged ({error}); fetch the reference vector again") from error
