"""Records of pairs in a temporary file, so that memory holds a number for each in place of kilobytes."""

from __future__ import annotations

import pickle
import tempfile

from perpixel.data.inspection.records import PairRecord

__all__ = ["RecordSpool"]

_BUFFER = 1 << 16


class RecordSpool:
    """Keeps records in the order in which they come; the file is gone with the object, or with the process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=_BUFFER)  # noqa: SIM115 - closed with the object
        self._last: tuple[int, PairRecord] | None = None

    def add(self, record: PairRecord) -> int:
        """Writes a record and returns its place.

        Raises:
            OSError: the disk is full.
        """
        place = self._file.seek(0, 2)
        pickle.dump(record, self._file, pickle.HIGHEST_PROTOCOL)
        self._file.flush()
        return place

    def read(self, place: int) -> PairRecord:
        """Returns the record of a place; the last one is at hand."""
        if self._last is None or self._last[0] != place:
            self._file.seek(place)
            record: PairRecord = pickle.load(self._file)  # our own, of this process
            self._last = place, record
        return self._last[1]
