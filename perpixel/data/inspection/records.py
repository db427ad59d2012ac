"""What is kept of each image and mask after it was read once: small, so that memory hardly grows with the data.

Shapes: T side of a thumbnail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["GRID", "THUMBNAIL", "ImageRecord", "MaskRecord", "PairRecord", "Problem", "Stored", "packed"]

THUMBNAIL = 16
"""Side of the grey thumbnail by which nearly equal images are found."""
GRID = 12
"""Side of the grid on which a mask's ids are kept, to compare where classes lie."""


class _Plain:
    """Is pickled as the call that makes it, in 0.6 of the time of what dataclasses do for slots."""

    __slots__: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), tuple([getattr(self, name) for name in self.__slots__])


@dataclass(frozen=True, slots=True)
class Problem(_Plain):
    """Why a file could not be read."""

    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Stored(_Plain):
    """How pixels lie in a file."""

    size: tuple[int, int]
    """(height, width), upright."""
    orientation: int
    format: str
    mode: str
    """Pillow's word, such as L, P, RGB; ``array`` for pixels that are no file of their own."""
    bits: int
    suffix: str

    @property
    def stored_size(self) -> tuple[int, int]:
        """(height, width) before EXIF orientation."""
        height, width = self.size
        return (width, height) if self.orientation >= 5 else (height, width)


@dataclass(frozen=True, slots=True)
class ImageRecord(_Plain):
    """One image."""

    stored: Stored | None
    problem: Problem | None = None
    grey: bool = False
    blank: bool = False
    digest: bytes = b""
    """Of the pixels, or of the file where it is a JPEG."""
    thumbnail: bytes = b""
    """(T, T) uint8 luminance."""
    cut: float = 0.0
    """Share of the height that is of one colour, from the lower edge up."""


@dataclass(frozen=True, slots=True)
class MaskRecord(_Plain):
    """One mask."""

    stored: Stored | None
    problem: Problem | None = None
    digest: bytes = b""
    packed_counts: bytes = b""
    packed_colors: bytes = b""
    packed_regions: bytes = b""
    distinct: int = 0
    """How many different ids or colours there are, listed or not."""
    alpha: tuple[int, ...] = ()
    """The different values of its transparency, at most nine."""
    palette: bytes = b""
    """RGB triplets; empty without a palette."""
    noise: tuple[int, int, int] = (0, 0, 0)
    """As `MaskRuns.noise`."""
    grid: bytes = b""
    """Ids at the points of a grid, two bytes each."""
    follows: float | None = None
    """As `perpixel.data.inspection.following.following`; None where the image is missing or of another size."""

    @property
    def counts(self) -> tuple[tuple[int, int], ...]:
        """(id, pixels) of a mask of ids, in the order of the ids."""
        return tuple([(row[0], row[1]) for row in _rows(self.packed_counts, 2)])

    @property
    def colors(self) -> tuple[tuple[int, int], ...]:
        """(0xRRGGBB, pixels) of a mask of colours, the most frequent first."""
        return tuple([(row[0], row[1]) for row in _rows(self.packed_colors, 2)])

    @property
    def regions(self) -> tuple[tuple[int, int, int], ...]:
        """(id, regions, regions that the network's grid misses)."""
        return tuple([(row[0], row[1], row[2]) for row in _rows(self.packed_regions, 3)])


@dataclass(frozen=True, slots=True)
class PairRecord(_Plain):
    """One pair."""

    image: ImageRecord | None
    mask: MaskRecord | None


def packed(rows: Iterable[tuple[int, ...]]) -> bytes:
    """Packs rows of whole numbers below 2**32: tuples of them would take ten times the memory."""
    return np.array(list(rows), dtype="<u4").tobytes()


def _rows(data: bytes, columns: int) -> list[list[int]]:
    rows: list[list[int]] = np.frombuffer(data, dtype="<u4").reshape(-1, columns).tolist()
    return rows
