"""A pair with what was read of it: what the families of findings look at."""

from __future__ import annotations

from typing import Any

from perpixel.data.inspection.pairing import Pair
from perpixel.data.inspection.records import ImageRecord, MaskRecord, PairRecord, Stored
from perpixel.data.inspection.spool import RecordSpool

__all__ = ["Case"]


class Case:
    """One pair, its records, and what was made of its mask so far."""

    __slots__ = ("_place", "_record", "_spool", "fault", "mend", "pair")

    def __init__(self, pair: Pair, image: ImageRecord | None, mask: MaskRecord | None) -> None:
        self.pair = pair
        self._record: PairRecord | None = PairRecord(image, mask)
        self._spool: RecordSpool | None = None
        self._place = 0
        self.fault: str | None = None
        """The kind of what is wrong with the mask's encoding; such a mask says nothing about classes."""
        self.mend: dict[str, Any] | None = None
        """How the mask can be read all the same, as a mapping file says it."""

    @classmethod
    def spooled(cls, pair: Pair, record: PairRecord, spool: RecordSpool) -> Case:
        """Returns a case whose records lie in a file; in memory where that is full."""
        case = cls(pair, record.image, record.mask)
        try:
            case._place = spool.add(record)
        except OSError:
            return case
        case._record, case._spool = None, spool
        return case

    @property
    def image(self) -> ImageRecord | None:
        """What was read of the image."""
        return self._records().image

    @property
    def mask(self) -> MaskRecord | None:
        """What was read of the mask."""
        return self._records().mask

    @property
    def image_stored(self) -> Stored | None:
        """How the image lies in its file; None where it cannot be read."""
        return None if self.image is None or self.image.problem is not None else self.image.stored

    @property
    def mask_stored(self) -> Stored | None:
        """How the mask lies in its file; None where it cannot be read."""
        return None if self.mask is None or self.mask.problem is not None else self.mask.stored

    @property
    def ids(self) -> dict[int, int]:
        """id -> pixels of a mask that can be read and holds ids; empty for others."""
        return {} if self.mask is None or self.mask.problem is not None else dict(self.mask.counts)

    def _records(self) -> PairRecord:
        if self._record is not None:
            return self._record
        assert self._spool is not None
        return self._spool.read(self._place)

    @property
    def mask_file(self) -> str:
        """The name of the mask in findings."""
        return self.pair.mask_file or self.pair.image_file
