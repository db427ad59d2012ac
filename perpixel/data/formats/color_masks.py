"""Masks whose colours are the labels, read as ids by a table: what a data set without ids needs.

Shapes: H W height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perpixel.data.decoding import image_head, read_color_mask
from perpixel.data.picture import Picture
from perpixel.errors import DataError, InvalidValue
from perpixel.labels import LabelSpace, Rgb

__all__ = ["ColorIds", "ColorTable", "color_table", "ids_of_colors"]

ColorTable: TypeAlias = tuple[tuple[Rgb, int], ...]
"""Pairs of colour and stored id."""

_SHOWN = 8


@dataclass(frozen=True)
class ColorIds(Picture):
    """An RGB mask file as stored ids (H, W): each pixel's colour is looked up in a table.

    Raises:
        InvalidValue: the table is empty, a colour stands in it twice, or an id is outside [0, 65535].
    """

    file: Path
    table: ColorTable
    unknown: int | None = None
    """Id of pixels whose colour is not in the table; None refuses them."""

    def __post_init__(self) -> None:
        _lookup(self.table)
        if self.unknown is not None and not 0 <= self.unknown <= 65535:
            raise InvalidValue(f"the id of unknown colours must lie in [0, 65535], got {self.unknown}")

    def __str__(self) -> str:
        return str(self.file)

    @property
    def path(self) -> Path:
        """The RGB file."""
        return self.file

    def size(self) -> tuple[int, int]:
        """Returns (height, width) from the header.

        Raises:
            DataError: the file cannot be read, or EXIF orientation turns it, so that it is open how it lies.
        """
        head = image_head(self.file)
        if head.orientation > 1:
            raise DataError(
                f"{self.file}: the mask carries EXIF orientation {head.orientation}; save it upright, without the tag"
            )
        return head.size

    def read(self) -> NDArray[Any]:
        """Decodes the stored ids (H, W), uint8, or uint16 where an id is over 255.

        Raises:
            DataError: the file cannot be read, is a JPEG, or holds colours outside the table.
        """
        return ids_of_colors(read_color_mask(self.file), self.table, unknown=self.unknown, source=str(self.file))


def color_table(labels: LabelSpace, extra: Mapping[Rgb, int] | None = None) -> ColorTable:
    """Returns the table of a label space whose colours are the labels: its colours and the ids of its classes.

    Args:
        labels: Of several ids of one class the lowest is taken; its ignored colour leads to its first ignored id, where
            it has one.
        extra: Further colours and their ids.

    Raises:
        InvalidValue: two classes share a colour.
    """
    stored_of = {train: stored for stored, train in sorted(labels.stored_to_train.items(), reverse=True)}
    pairs = [(color, stored_of[train]) for train, color in enumerate(labels.colors) if train in stored_of]
    pairs += [(labels.ignore_color, stored) for stored in labels.ignored_ids[:1]]
    table = (*pairs, *(extra or {}).items())
    _lookup(table)
    return table


def ids_of_colors(
    rgb: NDArray[np.uint8], table: ColorTable, *, unknown: int | None = None, source: str = "mask"
) -> NDArray[Any]:
    """Maps colours (H, W, 3) to the ids of a table, (H, W) uint8, or uint16 where an id is over 255.

    Args:
        rgb: Colours.
        table: Colours and their ids.
        unknown: Id of colours outside the table; None refuses them.
        source: Named in the error.

    Raises:
        DataError: a colour is not in the table; names the colours, their counts and a pixel.
    """
    keys, values = _lookup(table)
    packed = _packed(rgb)
    place = np.searchsorted(keys, packed)
    place[place == len(keys)] = 0
    known = keys[place] == packed
    if unknown is None and not known.all():
        raise DataError(_unknown_message(packed, known, len(table), source))
    highest = max(int(values.max()), 0 if unknown is None else unknown)
    ids = values[place].astype(np.uint8 if highest <= 255 else np.uint16)
    if unknown is not None:
        ids[~known] = unknown
    return ids


@lru_cache(maxsize=64)
def _lookup(table: ColorTable) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Returns packed colours, sorted, and their ids."""
    if not table:
        raise InvalidValue("a table of colours needs at least one colour")
    by_color: dict[int, int] = {}
    for color, stored in table:
        if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
            raise InvalidValue(f"a colour is three whole numbers in [0, 255], got {color}")
        if not 0 <= stored <= 65535:
            raise InvalidValue(f"the id {stored} of colour {color} is outside [0, 65535]")
        key = color[0] << 16 | color[1] << 8 | color[2]
        if by_color.setdefault(key, stored) != stored:
            raise InvalidValue(f"colour {color} stands for the ids {by_color[key]} and {stored}; colours must differ")
    keys = np.array(sorted(by_color), dtype=np.uint32)
    return keys, np.array([by_color[int(key)] for key in keys], dtype=np.int64)


def _packed(rgb: NDArray[np.uint8]) -> NDArray[np.uint32]:
    wide = rgb.astype(np.uint32)
    packed: NDArray[np.uint32] = wide[..., 0] << np.uint32(16) | wide[..., 1] << np.uint32(8) | wide[..., 2]
    return packed


def _unknown_message(packed: NDArray[np.uint32], known: NDArray[np.bool_], size: int, source: str) -> str:
    colors, counts = np.unique(packed[~known], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_SHOWN]
    shown = ", ".join(
        f"({colors[i] >> 16}, {colors[i] >> 8 & 255}, {colors[i] & 255}) on {counts[i]} pixels" for i in order
    )
    more = f" and {len(colors) - _SHOWN} more" if len(colors) > _SHOWN else ""
    row, column = (int(i) for i in np.argwhere(~known)[0])
    return (
        f"{source}: {len(colors)} colours are none of the {size} that stand for classes: {shown}{more}; the first at "
        f"row {row}, column {column}. Masks that were resized smoothly or saved as JPEG look like this: export them "
        "again as PNG, from where they were drawn."
    )
