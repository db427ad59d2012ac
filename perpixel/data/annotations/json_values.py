"""JSON of annotation tools, read with every value checked: what has another shape is refused with its place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from perpixel.data.annotations.rasterise import FARTHEST
from perpixel.data.annotations.shapes import Ring
from perpixel.data.formats.list_file import file_fault
from perpixel.errors import DataError

__all__ = [
    "LONGEST_SIDE",
    "Fields",
    "coordinate",
    "json_files",
    "path_inside",
    "read_json",
    "require_plain_file",
    "ring_of",
]

LONGEST_SIDE = 1_000_000
_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}


def read_json(file: Path) -> Any:
    """Reads a JSON file; NaN and Infinity, which JSON does not have, are refused.

    Raises:
        DataError: no such file, a device or pipe, or it is not JSON.
    """
    require_plain_file(file)

    def no_number(name: str) -> float:
        raise ValueError(f"{name} is no JSON number")

    try:
        return json.loads(file.read_bytes(), parse_constant=no_number)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as JSON: {error}") from error


def require_plain_file(file: Path) -> None:
    """Refuses what is not there and what may never end, such as a device or pipe.

    Raises:
        DataError: the file is not there, or is no plain file.
    """
    fault = file_fault(file)
    if fault is not None:
        there = file.exists() or file.is_symlink()
        raise DataError(f"{file}: {fault if there else 'there is no such file'}; give the file of the annotations")


def json_files(folder: Path) -> list[Path]:
    """Returns the JSON files of a folder, sorted; hidden ones are left out, as copies from a Mac have them."""
    return sorted(file for file in folder.glob("*.json") if not file.name.startswith("."))


@dataclass(frozen=True)
class Fields:
    """The fields of one JSON object, taken out with their kind checked."""

    values: dict[str, Any]
    place: str
    """Where the object stands, for messages."""

    @classmethod
    def of(cls, value: Any, place: str) -> Fields:
        """Takes an object.

        Raises:
            DataError: it is something else.
        """
        return cls(_of_kind(value, dict, place), place)

    def text(self, key: str) -> str:
        """Returns a text that is not empty.

        Raises:
            DataError: it is missing, empty or no text.
        """
        text: str = _of_kind(self._needed(key), str, f"{self.place}: {key!r}")
        if not text:
            raise DataError(f"{self.place}: {key!r} is empty")
        return text

    def items(self, key: str) -> list[Any]:
        """Returns a list.

        Raises:
            DataError: it is missing or no list.
        """
        items: list[Any] = _of_kind(self._needed(key), list, f"{self.place}: {key!r}")
        return items

    def whole(self, key: str, low: int, high: int) -> int:
        """Returns a whole number in [low, high].

        Raises:
            DataError: it is missing, no whole number or outside.
        """
        value = self._needed(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise DataError(f"{self.place}: {key!r} must be a whole number from {low} to {high}, got {value!r:.60}")
        return value

    def identity(self, key: str) -> int | str:
        """Returns an id, which some tools write as text.

        Raises:
            DataError: it is missing, or neither a whole number nor a text.
        """
        value = self._needed(key)
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise DataError(f"{self.place}: {key!r} must be a whole number or a text, got {value!r:.60}")
        return value

    def _needed(self, key: str) -> Any:
        if key not in self.values:
            raise DataError(f"{self.place}: the field {key!r} is missing; it has {', '.join(map(repr, self.values))}")
        return self.values[key]


def coordinate(value: Any, place: str) -> float:
    """Returns one coordinate in pixels.

    Raises:
        DataError: it is no number, not finite, or beyond `FARTHEST`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{place}: a coordinate must be a number, got {value!r:.60}")
    if not abs(value) <= FARTHEST:  # false for NaN; a whole number may be too large for a float
        raise DataError(f"{place}: a coordinate must be finite and within ±{FARTHEST:.0f} pixels, got {value!r:.60}")
    return float(value)


def ring_of(values: Any, place: str) -> Ring:
    """Returns an outline from a flat list x0, y0, x1, y1, … or a list of points.

    Raises:
        DataError: another shape, or a coordinate is none.
    """
    listed = _of_kind(values, list, place)
    if listed and isinstance(listed[0], list):
        if any(not isinstance(point, list) or len(point) != 2 for point in listed):
            raise DataError(f"{place}: a point is two coordinates x, y")
        listed = [value for point in listed for value in point]
    if len(listed) % 2:
        raise DataError(f"{place}: an outline has an x and a y for each point, got {len(listed)} coordinates")
    return tuple(coordinate(value, place) for value in listed)


def path_inside(folder: Path, name: str, place: str) -> Path:
    """Returns the file of this name in a folder; names may hold subfolders and the separators of Windows.

    Raises:
        DataError: the name leads out of the folder, is the folder itself, or holds a NUL character.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in name or path.parts[0].endswith(":"):
        raise DataError(
            f"{place}: the file name {name!r:.200} leads out of {folder}, or nowhere. Names stand relative to the "
            "folder of the images: give that folder with --images, and names within it."
        )
    return folder / path


def _of_kind(value: Any, kind: type, place: str) -> Any:
    if not isinstance(value, kind):
        raise DataError(f"{place}: must be {_KINDS[kind]}, got {type(value).__name__}: {value!r:.60}")
    return value
