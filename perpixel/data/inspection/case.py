"""A pair with what was read of it: what the families of findings look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from perpixel.data.inspection.pairing import Pair
from perpixel.data.inspection.records import ImageRecord, MaskRecord, Stored

__all__ = ["Case"]


@dataclass
class Case:
    """One pair, its records, and what was made of its mask so far."""

    pair: Pair
    image: ImageRecord | None
    mask: MaskRecord | None
    fault: str | None = None
    """The kind of what is wrong with the mask's encoding; such a mask says nothing about classes."""
    mend: dict[str, Any] | None = field(default=None)
    """How the mask can be read all the same, as a mapping file says it."""

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

    @property
    def mask_file(self) -> str:
        """The name of the mask in findings."""
        return self.pair.mask_file or self.pair.image_file
