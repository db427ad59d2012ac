"""MATLAB 5 to 7.2 files: one variable, every size that the file states held against the bytes that are there.

SciPy's `loadmat` gives the same values, but trusts the file: a few bytes make it ask for gigabytes, and one damaged
byte or deep nesting ends the process. Read here are numbers, text, cells and structures; sparse matrices, functions
and Java objects are refused, but may stand beside what is asked for: SBD keeps sparse boundaries next to its masks.
Source of the layout: MathWorks, "MAT-File Format", chapter 1, level 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perpixel.data.decoding import DamagedFile
from perpixel.data.formats.item import listed
from perpixel.errors import DataError

__all__ = ["MAX_BYTES", "Unread", "read_variable"]

MAX_BYTES = 2**30
"""Larger files and variables are refused: the labels of one image, or the lists of a data set, are far smaller."""

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_NUMBERS = range(6, 16)  # classes of arrays: double to uint64
_CELL, _STRUCT, _OBJECT, _CHAR = 1, 2, 3, 4
_DEEPEST = 32
_MOST_AXES = 8
_NAME_WITHIN = 4096  # bytes at the start of a variable that hold its name
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_COMPLEX = 0x0800  # a bit of the flags


class _Damaged(Exception):
    """The file contradicts itself; says where."""


class _Unreadable(Exception):
    """The file holds what is not read here; says what."""


class Unread(NamedTuple):
    """Stands in a cell or field for an array of a kind that is not read."""

    what: str


class _Element(NamedTuple):
    kind: int
    start: int
    """First byte of its content."""
    end: int
    next: int
    """First byte of the element after it."""


def read_variable(file: Path, name: str) -> Any:
    """Returns one variable as `scipy.io.loadmat` does.

    Numbers become arrays of the type that the file stores them with, text arrays of strings, cells arrays of objects,
    structures and objects records; a structure without fields becomes an empty array. An array inside cells or fields
    that is none of these, such as a sparse matrix, becomes an array () of one `Unread`.

    Raises:
        DataError: no such file or variable, another version of MATLAB's format, larger than `MAX_BYTES`, or damaged.
    """
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise DataError(f"{file}: {size} bytes are more than the limit of {MAX_BYTES} for a .mat file of labels")
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{file}: there is no such file") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    _require_version_5(file, content)
    try:
        return _Reader(*_variable(file, content, name)).variable()
    except _Damaged as error:
        raise DamagedFile(f"{file}: variable {name!r} is damaged: {error}. Fetch the file again.") from error
    except _Unreadable as error:
        raise DataError(f"{file}: variable {name!r} holds {error}; data sets with labels do not") from error
    except (zlib.error, ValueError) as error:  # NumPy's, for shapes that no array can have
        raise DamagedFile(f"{file}: cannot be read as a .mat file, damaged or cut short: {error}") from error


def _require_version_5(file: Path, content: bytes) -> None:
    if content[:8] == b"\x89HDF\r\n\x1a\n" or content[:10] == b"MATLAB 7.3" or content[512:516] == b"\x89HDF":
        raise DataError(
            f"{file}: this is a .mat file of version 7.3 (HDF5), and versions 5 to 7.2 are read here. Fetch the file "
            "that the data set publishes, or write it again in MATLAB with save(..., '-v7')."
        )
    if len(content) < _HEADER or content[126:128] not in (b"IM", b"MI"):
        raise DataError(f"{file}: not a .mat file of versions 5 to 7.2 (it starts with {content[:12]!r})")


def _variable(file: Path, content: bytes, wanted: str) -> tuple[bytes, str]:
    """Finds a variable; returns its unpacked element and the byte order, ``"<"`` or ``">"``."""
    order = "<" if content[126:128] == b"IM" else ">"
    names: list[str] = []
    place = _HEADER
    while place + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        start, end = place + 8, place + 8 + size
        if kind not in (_MATRIX, _COMPRESSED) or end > len(content):
            raise _Damaged(f"at byte {place} stands an element of kind {kind} with {size} bytes")
        unpacker = zlib.decompressobj() if kind == _COMPRESSED else None
        opening = content[place:end] if unpacker is None else unpacker.decompress(content[start:end], _NAME_WITHIN)
        place = end
        name = _Reader(opening[8:_NAME_WITHIN], order).name()
        if name != wanted:
            names.append(name)
            continue
        if unpacker is not None:
            opening += unpacker.decompress(unpacker.unconsumed_tail, MAX_BYTES)
            if unpacker.unconsumed_tail:
                raise DataError(f"{file}: variable {wanted!r} unpacks to more than {MAX_BYTES} bytes; it is refused")
        return opening, order
    held = listed(names) if names else "no variable"
    raise DataError(f"{file}: there is no variable {wanted!r} in this file; it holds {held}")


class _Reader:
    """Builds the value of one unpacked element."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data = data
        self.order = order

    def variable(self) -> NDArray[Any]:
        return self.array(self.element(0, len(self.data)), depth=0)

    def name(self) -> str:
        """Reads the name of the array whose content the data begin with: after flags and dimensions."""
        place = 0
        for _ in range(2):
            place = self.element(place, len(self.data)).next
        element = self.element(place, len(self.data))
        return self.data[element.start : element.end].decode("latin-1")

    def element(self, place: int, end: int) -> _Element:
        """Reads the tag of the element at ``place``, whose bytes must end before ``end``."""
        if place + 8 > end:
            raise _Damaged(f"it ends at byte {end} where an element should begin")
        first, size = struct.unpack_from(f"{self.order}II", self.data, place)
        if first >> 16:  # the short form: up to four bytes stand in the tag itself
            kind, size = first & 0xFFFF, first >> 16
            if size > 4:
                raise _Damaged(f"the short element at byte {place} states {size} bytes")
            return _Element(kind, place + 4, place + 4 + size, place + 8)
        if place + 8 + size > end:
            raise _Damaged(f"the element at byte {place} states {size} bytes and {end - place - 8} are left")
        return _Element(first, place + 8, place + 8 + size, min(place + 8 + size + -size % 8, end))

    def array(self, array: _Element, *, depth: int) -> NDArray[Any]:
        if array.kind != _MATRIX:
            raise _Damaged(f"an array was expected at byte {array.start}, not an element of kind {array.kind}")
        if array.start == array.end:
            return np.zeros((0, 0))  # an empty array is a bare tag
        if depth > _DEEPEST:
            raise _Damaged(f"arrays lie in arrays more than {_DEEPEST} deep")
        flags = self.element(array.start, array.end)
        if flags.end - flags.start != 8:
            raise _Damaged(f"the flags at byte {flags.start} are {flags.end - flags.start} bytes, not 8")
        bits = struct.unpack_from(f"{self.order}I", self.data, flags.start)[0]
        shape = self.element(flags.next, array.end)
        sizes = struct.unpack_from(f"{self.order}{(shape.end - shape.start) // 4}i", self.data, shape.start)
        if not 2 <= len(sizes) <= _MOST_AXES or min(sizes) < 0:
            raise _Damaged(f"an array at byte {array.start} states the dimensions {sizes[:_MOST_AXES]}")
        place = self.element(shape.next, array.end).next
        kind = bits & 0xFF
        if kind in _NUMBERS:
            return self.numbers(place, array.end, sizes, bits)
        if kind == _CHAR:
            return self.text(place, array.end, sizes)
        if kind == _CELL:
            return self.parts(place, array.end, math.prod(sizes), depth).reshape(sizes, order="F")
        if kind in (_STRUCT, _OBJECT):
            if kind == _OBJECT:  # the name of its class
                place = self.element(place, array.end).next
            return self.records(place, array.end, sizes, depth)
        what = f"an array of class {kind}, which is neither numbers, text, cells nor structures"
        if depth == 0:
            raise _Unreadable(what)
        stand_in = np.empty((), dtype=object)
        stand_in[()] = Unread(what)
        return stand_in

    def numbers(self, place: int, end: int, sizes: tuple[int, ...], bits: int) -> NDArray[Any]:
        element, values = self.values(place, end)
        if bits & _COMPLEX:
            _, imaginary = self.values(element.next, end)
            values = values + 1j * imaginary if len(values) == len(imaginary) else values[:0]
        if len(values) != math.prod(sizes):
            raise _Damaged(f"numbers at byte {element.start} are {len(values)} for the dimensions {sizes}")
        return values.reshape(sizes, order="F")

    def values(self, place: int, end: int) -> tuple[_Element, NDArray[Any]]:
        element = self.element(place, end)
        if element.kind not in _TYPES:
            raise _Damaged(f"numbers at byte {element.start} have the unknown type {element.kind}")
        kind = np.dtype(self.order + _TYPES[element.kind])
        count, rest = divmod(element.end - element.start, kind.itemsize)
        if rest:
            raise _Damaged(f"numbers at byte {element.start} end within a number")
        values = np.frombuffer(self.data, kind, count, element.start)
        return element, values.astype(kind.newbyteorder("="), copy=False)

    def text(self, place: int, end: int, sizes: tuple[int, ...]) -> NDArray[Any]:
        element = self.element(place, end)
        encoding = _ENCODINGS.get(element.kind)
        if encoding is None:
            raise _Damaged(f"text at byte {element.start} has the unknown type {element.kind}")
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self.order == "<" else "-be"
        try:
            letters = list(self.data[element.start : element.end].decode(encoding))
        except UnicodeDecodeError as error:
            raise _Damaged(f"text at byte {element.start} is no {encoding}: {error}") from error
        if len(letters) != math.prod(sizes):
            raise _Damaged(f"text at byte {element.start} has {len(letters)} letters for the dimensions {sizes}")
        if not letters:
            return np.zeros((0,), dtype="U1")
        rows = np.array(letters, dtype="U1").reshape(sizes, order="F").reshape(-1, sizes[-1])
        return np.array(["".join(row) for row in rows]).reshape(sizes[:-1])

    def parts(self, place: int, end: int, count: int, depth: int) -> NDArray[Any]:
        """Reads ``count`` arrays, one after the other."""
        if count * 8 > end - place:  # the tag of each takes eight bytes
            raise _Damaged(f"at byte {place} {count} arrays are stated in {end - place} bytes")
        found = np.empty(count, dtype=object)
        for index in range(count):
            element = self.element(place, end)
            found[index] = self.array(element, depth=depth + 1)
            place = element.next
        return found

    def records(self, place: int, end: int, sizes: tuple[int, ...], depth: int) -> NDArray[Any]:
        length = self.element(place, end)
        if length.end - length.start != 4:
            raise _Damaged(f"the length of field names at byte {length.start} is not stated in 4 bytes")
        size = struct.unpack_from(f"{self.order}i", self.data, length.start)[0]
        listing = self.element(length.next, end)
        text = self.data[listing.start : listing.end]
        if not text:
            return np.zeros((0, 0))
        if size < 1 or len(text) % size:
            raise _Damaged(f"field names at byte {listing.start} are {len(text)} bytes of {size} each")
        names = [text[at : at + size].partition(b"\0")[0].decode("latin-1") for at in range(0, len(text), size)]
        if len(set(names)) < len(names) or not all(names):
            raise _Damaged(f"field names at byte {listing.start} are empty or repeated: {listed(names, 4)}")
        found = self.parts(listing.next, end, math.prod(sizes) * len(names), depth).reshape(-1, len(names))
        records = np.empty(len(found), dtype=[(name, object) for name in names])
        for column, name in enumerate(names):
            records[name] = found[:, column]
        return records.reshape(sizes, order="F")
