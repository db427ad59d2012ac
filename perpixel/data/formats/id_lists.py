"""Lists of image ids, one per line, as data sets keep for their splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from perpixel.data.formats.item import listed, read_lines
from perpixel.errors import DataError

__all__ = ["read_ids"]


def read_ids(file: Path, *, way_out: str) -> list[str]:
    """Returns the ids in their order: plain names such as ``2008_000002``, without folder or extension.

    Raises:
        DataError: the list cannot be read, is empty, repeats an id, or holds what leads elsewhere.
    """
    ids = [line.split()[0] for _, line in read_lines(file)]
    odd = [name for name in ids if Path(name).name != name or name.startswith(".") or "\\" in name]
    repeated = sorted(name for name, count in Counter(ids).items() if count > 1)
    if not ids:
        raise DataError(f"{file}: the list is empty. {way_out}")
    if odd:
        raise DataError(f"{file}: ids are plain names such as 2008_000002, got {listed(odd, 3)}. {way_out}")
    if repeated:
        raise DataError(f"{file}: {len(repeated)} ids are listed more than once: {listed(repeated)}. {way_out}")
    return ids
