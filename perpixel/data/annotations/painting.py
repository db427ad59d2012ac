"""Drawings to masks: which shape is seen where several overlap, and the mask that an image's shapes describe.

H W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.data.annotations.rasterise import Region, Rule, ellipse_region, ring_region
from perpixel.data.annotations.rle import bitmap_of, unpack_counts
from perpixel.data.annotations.shapes import Box, Drawing, Ellipse, Order, Part, Polygon, Runs, Shape
from perpixel.data.decoding import MAX_PIXELS, turn_upright
from perpixel.data.picture import Picture
from perpixel.errors import DataError

__all__ = ["DrawnMask", "Painted", "paint", "shape_region", "turn_back"]

_ON_ITS_SIDE = 5  # EXIF orientations from here on swap height and width


@dataclass(frozen=True, kw_only=True)
class Painted:
    """A mask that was painted from shapes, and what happened on the way."""

    ids: NDArray[Any]
    """(H, W) uint8, or uint16 where an id is over 255."""
    overlapped: int
    """Pixels on which a shape covers one of another id."""
    vanished: tuple[str, ...]
    """The shapes that cover no pixel by the rule in use, by their place."""


@dataclass(frozen=True, kw_only=True)
class DrawnMask(Picture):
    """The mask of one image as its shapes describe it; painted when it is read."""

    drawing: Drawing
    ids: tuple[tuple[str, int], ...]
    """Stored id of every class name that the shapes may have."""
    rest: int
    """Stored id of pixels that no shape covers."""
    order: Order = "file"
    rule: Rule = "centres"

    @property
    def path(self) -> Path:
        """The annotation file."""
        return self.drawing.file

    def size(self) -> tuple[int, int]:
        """Returns (height, width) of the pixels as the image file stores them, before EXIF orientation."""
        height, width = self.drawing.size
        return (width, height) if self.drawing.orientation >= _ON_ITS_SIDE else (height, width)

    def read(self) -> NDArray[Any]:
        """Paints the stored ids (H, W), lying as the pixels of the image file do.

        A mask has no EXIF tag, so whoever reads it with a turned image turns it as the image (`mask_is_turned`).

        Raises:
            DataError: as `paint`.
        """
        return turn_back(self.paint().ids, self.drawing.orientation)

    def paint(self) -> Painted:
        """Paints the stored ids as they were drawn, with what happened on the way.

        Raises:
            DataError: as `paint`.
        """
        return paint(self.drawing, dict(self.ids), rest=self.rest, order=self.order, rule=self.rule)

    def __str__(self) -> str:
        return f"{self.drawing.file}: {self.drawing.image}"


def paint(
    drawing: Drawing, ids: Mapping[str, int], *, rest: int, order: Order = "file", rule: Rule = "centres"
) -> Painted:
    """Paints the shapes of a drawing one over the other.

    Args:
        drawing: What was drawn.
        ids: Stored id of every class name.
        rest: Stored id of pixels that no shape covers.
        order: Which of two overlapping shapes is seen, see `shapes.ORDERS`.
        rule: Which pixels a polygon covers, see `rasterise`; boxes and ellipses go by pixel centres always.

    Raises:
        DataError: a class has no id, runs do not fit the image, or the order needs what the tool did not store.
    """
    unknown = sorted({shape.name for shape in drawing.shapes} - set(ids))
    if unknown:
        raise DataError(f"{drawing.file}: {drawing.image}: there is no id for the classes {', '.join(unknown)}")
    highest = max([rest, *(ids[shape.name] for shape in drawing.shapes)])
    mask = np.full(drawing.size, rest, dtype=np.uint8 if highest <= 255 else np.uint16)
    covered = np.zeros(drawing.size, dtype=bool)
    overlapped = np.zeros(drawing.size, dtype=bool)
    vanished = []
    for shape in _ordered(drawing, order, rule):
        value, empty = ids[shape.name], True
        for row, column, inside in _regions(shape, drawing, rule):
            empty = empty and not inside.any()
            window = np.s_[row : row + inside.shape[0], column : column + inside.shape[1]]
            overlapped[window] |= inside & covered[window] & (mask[window] != value)
            covered[window] |= inside
            mask[window][inside] = value
        if empty:
            vanished.append(shape.place or shape.name)
    return Painted(ids=mask, overlapped=int(np.count_nonzero(overlapped)), vanished=tuple(vanished))


def turn_back(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turns upright pixels (H, W) back to how a file with this EXIF orientation stores them."""
    return np.ascontiguousarray(turn_upright(pixels, {6: 8, 8: 6}.get(orientation, orientation)))


def shape_region(shape: Shape, size: tuple[int, int], *, rule: Rule = "centres", source: str = "shape") -> Region:
    """Returns the pixels that one shape covers, all its parts together, within the whole image.

    Raises:
        DataError: runs do not fit their bitmap.
    """
    covered = np.zeros(size, dtype=bool)
    for part in shape.parts:
        row, column, inside = _region(part, size, rule, source)
        covered[row : row + inside.shape[0], column : column + inside.shape[1]] |= inside
    return 0, 0, covered


def _ordered(drawing: Drawing, order: Order, rule: Rule) -> list[Shape]:
    """Returns the shapes as they are painted: what comes later is seen."""
    if order == "file":
        return list(drawing.shapes)
    if order == "z_order":
        if any(shape.z_order is None for shape in drawing.shapes):
            raise DataError(
                f"{drawing.file}: {drawing.image}: shapes have no z_order, which CVAT alone stores; choose the order "
                "file or area"
            )
        return sorted(drawing.shapes, key=lambda shape: shape.z_order or 0)
    return sorted(drawing.shapes, key=lambda shape: -_area(shape, drawing, rule))


def _area(shape: Shape, drawing: Drawing, rule: Rule) -> int:
    """Pixels of a shape; one with several parts counts where they overlap once."""
    if len(shape.parts) == 1:
        return sum(int(np.count_nonzero(inside)) for _, _, inside in _regions(shape, drawing, rule))
    source = _source(shape, drawing)
    return int(np.count_nonzero(shape_region(shape, drawing.size, rule=rule, source=source)[2]))


def _regions(shape: Shape, drawing: Drawing, rule: Rule) -> list[Region]:
    return [_region(part, drawing.size, rule, _source(shape, drawing)) for part in shape.parts]


def _source(shape: Shape, drawing: Drawing) -> str:
    return f"{drawing.file}: {drawing.image}: {shape.place or shape.name}"


def _region(part: Part, size: tuple[int, int], rule: Rule, source: str) -> Region:
    if isinstance(part, Polygon):
        return ring_region([np.reshape(ring, (-1, 2)) for ring in part.rings], size, rule=rule)
    if isinstance(part, Box):
        corners = [(part.left, part.top), (part.right, part.top), (part.right, part.bottom), (part.left, part.bottom)]
        return ring_region([corners], size)
    if isinstance(part, Ellipse):
        return ellipse_region(part.center, part.radii, part.rotation, size)
    return _runs_region(part, size, source)


def _runs_region(runs: Runs, size: tuple[int, int], source: str) -> Region:
    """Decodes a bitmap and cuts off what lies outside the image."""
    if runs.size[0] * runs.size[1] > MAX_PIXELS:
        raise DataError(f"{source}: a bitmap of {runs.size[0]} x {runs.size[1]} is larger than any image that is read")
    counts = unpack_counts(runs.packed, source=source)
    bitmap = bitmap_of(counts, runs.size, by_columns=runs.by_columns, source=source)
    row, column = runs.corner
    above, left = max(-row, 0), max(-column, 0)
    cut = bitmap[above : max(size[0] - row, 0), left : max(size[1] - column, 0)]
    return max(row, 0), max(column, 0), cut
