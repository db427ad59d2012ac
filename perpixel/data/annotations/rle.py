"""Run lengths of bitmaps, as COCO stores them: plain lists of counts, and the same packed into text.

A bitmap is read down its columns; counts are outside and inside by turns, outside first. In the packed form each
number is written in groups of five bits, low groups first, as characters from ``0`` (48) on: bit 32 says that a further
group follows, bit 16 of the last group is the sign; from the fourth count on, the difference to the count two before is
written. Source: the mask functions of the COCO API (Lin et al. 2014, arXiv:1405.0312). H W height and width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perpixel.errors import DataError

__all__ = ["bitmap_of", "counts_of", "pack_counts", "unpack_counts"]

_FIRST = 48
_MORE, _SIGN, _BITS = 0x20, 0x10, 5
_MOST_GROUPS = 7
_ALLOWED = dict.fromkeys(range(_FIRST, _FIRST + 2 * _MORE))


def counts_of(bitmap: NDArray[Any], *, by_columns: bool = True) -> NDArray[np.int64]:
    """Returns the run lengths of a bitmap (H, W), outside first; none for one without pixels.

    Args:
        bitmap: Nonzero is inside.
        by_columns: Goes down the columns, as COCO does; else along the rows, as CVAT does.
    """
    flat = (bitmap != 0).reshape(-1, order="F" if by_columns else "C")
    if flat.size == 0:
        return np.zeros(0, dtype=np.int64)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    begins = [0, 0] if flat[0] else [0]
    return np.diff(np.concatenate((begins, changes, [flat.size]))).astype(np.int64)


def bitmap_of(
    counts: ArrayLike, size: tuple[int, int], *, by_columns: bool = True, source: str = "runs"
) -> NDArray[np.bool_]:
    """Returns the bitmap (H, W) that run lengths describe; the inverse of `counts_of`.

    Raises:
        DataError: a count is negative, or the counts do not add up to H times W; names ``source``.
    """
    height, width = size
    lengths = np.asarray(counts, dtype=np.int64).reshape(-1)
    if lengths.min(initial=0) < 0:
        raise DataError(f"{source}: run lengths must not be negative, got {lengths.min()}")
    if lengths.max(initial=0) > height * width or lengths.sum() != height * width:
        raise DataError(
            f"{source}: run lengths add up to {lengths.sum()}, and the size {height} x {width} has {height * width} "
            "pixels; the runs belong to an image of another size, or are damaged"
        )
    inside = np.arange(len(lengths)) % 2 == 1
    flat = np.repeat(inside, lengths)
    return flat.reshape((width, height)).T if by_columns else flat.reshape((height, width))


def pack_counts(counts: ArrayLike) -> str:
    """Packs run lengths, each in [0, 2**31), into COCO's text form."""
    values = np.array(counts, dtype=np.int64).reshape(-1)
    values[3:] -= values[1:-2].copy()
    groups = np.ones(len(values), dtype=np.int64)
    for used in range(1, _MOST_GROUPS):
        reach = 1 << (_BITS * used - 1)
        groups += (values >= reach) | (values < -reach)
    place = np.arange(_MOST_GROUPS)
    codes = (values[:, None] >> (_BITS * place)) & 0x1F
    codes[place < groups[:, None] - 1] |= _MORE
    return (codes[place < groups[:, None]] + _FIRST).astype(np.uint8).tobytes().decode("ascii")


def unpack_counts(text: str, *, source: str = "runs") -> NDArray[np.int64]:
    """Returns the run lengths that `pack_counts` packed.

    Raises:
        DataError: a character that cannot occur, a number that does not end or is out of range; names ``source``.
    """
    _check_characters(text, source)
    codes = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - _FIRST
    ends = np.flatnonzero(codes & _MORE == 0)
    if len(codes) and (len(ends) == 0 or ends[-1] != len(codes) - 1):
        raise DataError(f"{source}: packed runs are cut short within a number")
    starts = np.concatenate(([0], ends[:-1] + 1))[: len(ends)]
    groups = ends - starts + 1
    if groups.max(initial=0) > _MOST_GROUPS:
        first = int(starts[np.argmax(groups > _MOST_GROUPS)])
        raise DataError(f"{source}: a number of the packed runs at position {first} does not end")
    place = np.arange(len(codes)) - np.repeat(starts, groups)
    values = np.add.reduceat((codes & 0x1F) << (_BITS * place), starts) if len(codes) else codes
    values -= np.where(codes[ends] & _SIGN, 1 << (_BITS * groups), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.min(initial=0) < 0:
        number = int(np.argmax(values < 0))
        raise DataError(f"{source}: packed runs hold the negative length {values[number]} at position {starts[number]}")
    return values


def _check_characters(text: str, source: str) -> None:
    if text.isascii() and text.translate(_ALLOWED) == "":
        return
    place, character = next((i, c) for i, c in enumerate(text) if not _FIRST <= ord(c) < _FIRST + 2 * _MORE)
    raise DataError(f"{source}: packed runs hold {character!r} at position {place}, which COCO's form never has")
