"""Reads images bilinearly and labels by the nearest pixel at drawn places.

Images go through PyTorch's `grid_sample`, the one kernel at hand that computes weights, reads and blends in one pass;
before it and after it, levels become float32 and back. The result is that of float64 but for roundings of places to
about 1e-5 of the source's side. Labels are picked by whole numbers, never blended.

The window is done in bands, so that what lies between two passes stays in the processor's cache, and levels keep their
memory (H, W, C): NumPy converts it in one run, and the pixels that are blended lie next to each other.

Sizes are (height, width); C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from perpixel.data.augment.scratch import Scratch

__all__ = [
    "LARGEST_PLACE",
    "Slope",
    "bands",
    "blended",
    "mirrored_span",
    "read",
    "read_affine",
    "to_float",
    "to_levels",
]

LARGEST_PLACE = 1 << 21
"""Places stay below this many pixels, so that float32 tells neighbours apart."""

_BAND = 1 << 15  # pixels at once: their places and levels, and what they show, fit the cache
_BILINEAR, _BORDER, _REFLECTION = 0, 1, 2  # the kernel's names for its modes
_SCRATCH = Scratch()


class Slope(NamedTuple):
    """Places along one axis under an affine map, pixel centres on whole numbers."""

    middle: float
    """What the middle of the window shows."""
    down: float
    """Change per row of the window."""
    right: float
    """Change per column of the window."""

    def extremes(self, size: tuple[int, int]) -> tuple[float, float]:
        """Smallest and largest place of a window of this size."""
        reach = (abs(self.down) * (size[0] - 1) + abs(self.right) * (size[1] - 1)) / 2
        return self.middle - reach, self.middle + reach

    def sides(self, size: tuple[int, int], factor: float, offset: float) -> tuple[NDArray[Any], NDArray[Any]]:
        """Float32 numbers (h, 1) and (w,) whose sums are factor * place + offset."""
        down = _offsets(size[0]) * (factor * self.down) + (factor * self.middle + offset)
        right = _offsets(size[1]) * (factor * self.right)
        return down.astype(np.float32)[:, None], right.astype(np.float32)


def read(
    image: Tensor,
    labels: NDArray[np.uint8],
    rows: NDArray[np.float32],
    columns: NDArray[np.float32],
    *,
    levels: tuple[int, ...] | None,
    ignore_index: int = 255,
) -> tuple[Tensor, NDArray[np.uint8]]:
    """Returns image (C, h, w) with (h, w, C) memory and labels (h, w) at places (h, w), both new.

    Args:
        image: (C, H, W) uint8, or int32 for 16-bit values.
        labels: (H, W).
        rows: Places down, pixel centres on whole numbers.
        columns: Places to the right.
        levels: Value per channel of what lies outside; None mirrors the source about its edge pixels.
        ignore_index: Label of what lies outside, where there is a fill.
    """
    mirrored = levels is None
    normal = [_normal(side, 0 if mirrored else 1) for side in (image.shape[2], image.shape[1])]
    source = to_float(image, levels)
    framed = _framed(labels, ignore_index)
    out = np.empty((*rows.shape, image.shape[0]), dtype=image.numpy().dtype)
    seen = np.empty(rows.shape, dtype=np.uint8)
    for band in bands(rows.shape):
        grid = _SCRATCH.array("grid", (2, *rows[band].shape), np.float32)
        for line, places, (factor, offset) in zip(grid, (columns, rows), normal, strict=True):
            np.multiply(places[band], np.float32(factor), out=line)
            line += np.float32(offset)
        _round_to(out[band], blended(source, grid, mirrored=mirrored))
        seen[band] = _nearest(framed, rows[band], columns[band], mirrored=mirrored)
    return torch.from_numpy(out).permute(2, 0, 1), seen


def read_affine(
    image: Tensor,
    labels: NDArray[np.uint8],
    places: tuple[Slope, Slope],
    shape: tuple[int, int],
    *,
    levels: tuple[int, ...],
    ignore_index: int = 255,
) -> tuple[Tensor, NDArray[np.uint8]]:
    """Does what `read` does for the places down and to the right of a window of this shape.

    Pillow picks the labels, which takes a third of the time of picking by index.
    """
    source = to_float(image, levels)
    rows, columns = (
        line.sides(shape, *_normal(side, 1))
        for line, side in zip(places, (image.shape[1], image.shape[2]), strict=True)
    )
    out = np.empty((*shape, image.shape[0]), dtype=image.numpy().dtype)
    for band in bands(shape):
        grid = _SCRATCH.array("grid", (2, len(rows[0][band]), shape[1]), np.float32)
        np.add(columns[0][band], columns[1], out=grid[0])
        np.add(rows[0][band], rows[1], out=grid[1])
        _round_to(out[band], blended(source, grid, mirrored=False))
    numbers: list[float] = []
    for line in places[::-1]:  # right before down, as Pillow has it; its pixels are centred on halves
        numbers += [line.right, line.down, line.middle + 0.5 - (line.down * shape[0] + line.right * shape[1]) / 2]
    picture = Image.frombuffer("L", labels.shape[::-1], np.ascontiguousarray(labels), "raw", "L", 0, 1)
    method, nearest = Image.Transform.AFFINE, Image.Resampling.NEAREST
    seen = picture.transform((shape[1], shape[0]), method, numbers, nearest, fillcolor=ignore_index)
    return torch.from_numpy(out).permute(2, 0, 1), np.array(seen)


def bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of a window (h, w) that are done together; none is empty."""
    height, width = shape
    rows = -(-height // max(1, height * width // _BAND))
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def mirrored_span(low: float, high: float, size: int) -> tuple[int, int]:
    """First and last + 1 pixel of a side that places need, those beyond an edge after mirroring."""
    low, high = math.floor(low), math.ceil(high) + 1
    first, last = min(max(0, low), size - 1), max(min(size, high), 1)
    if low < 0:
        last = max(last, min(size, 1 - low))
    if high > size:
        first = min(first, max(0, 2 * size - high - 1))
    return first, last


def to_float(image: Tensor, levels: tuple[int, ...] | None) -> Tensor:
    """Returns (1, C, H, W) in float32, the image's layout kept; overwritten by the next call.

    With ``levels``, one pixel of them is added all around, which the kernel then repeats without end.
    """
    channels, height, width = image.shape
    frame = 0 if levels is None else 1
    tall, wide = height + 2 * frame, width + 2 * frame
    if image.stride(0) == 1:
        source = _SCRATCH.array("source", (tall, wide, channels), np.float32).transpose(2, 0, 1)
    else:
        source = _SCRATCH.array("source", (channels, tall, wide), np.float32)
    if levels is not None:
        fill = np.array(levels, dtype=np.float32)[:, None]
        source[:, 0] = source[:, -1] = source[:, :, 0] = source[:, :, -1] = fill
    source[:, frame : frame + height, frame : frame + width] = image.numpy()
    return torch.from_numpy(source)[None]


def blended(source: Tensor, grid: NDArray[np.float32], *, mirrored: bool) -> NDArray[np.float32]:
    """Returns levels (C, h, w) at the kernel's places (2, h, w): right before down."""
    at = torch.from_numpy(grid).permute(1, 2, 0)[None]
    found = torch.grid_sampler(source, at, _BILINEAR, _REFLECTION if mirrored else _BORDER, True)
    levels: NDArray[np.float32] = found[0].numpy()
    return levels


def _normal(side: int, frame: int) -> tuple[float, float]:
    """Factor and offset from a place to the kernel's, which is -1 to 1 over the pixels with their frame."""
    factor = 2 / max(1, side + 2 * frame - 1)
    return factor, frame * factor - 1


def _round_to(out: NDArray[Any], found: NDArray[np.float32]) -> None:
    found += np.float32(0.5)
    to_levels(found, out)


def to_levels(found: NDArray[np.float32], out: NDArray[Any]) -> None:
    """Writes levels (C, h, w), cut off to whole ones, as (h, w, C)."""
    planes = _SCRATCH.array("planes", found.shape, out.dtype.type)
    np.copyto(planes, found, casting="unsafe")
    for channel, plane in enumerate(planes):
        out[..., channel] = plane


@lru_cache(maxsize=64)
def _offsets(side: int) -> NDArray[np.float64]:
    """Distances from the middle of a side."""
    offsets: NDArray[np.float64] = np.arange(side, dtype=np.float64) - (side - 1) / 2
    offsets.flags.writeable = False
    return offsets


def _framed(labels: NDArray[np.uint8], ignore_index: int) -> NDArray[np.uint8]:
    """Labels with one pixel of ``ignore_index`` all around, overwritten by the next call."""
    framed = _SCRATCH.array("labels", (labels.shape[0] + 2, labels.shape[1] + 2), np.uint8)
    framed[0] = framed[-1] = framed[:, 0] = framed[:, -1] = ignore_index
    framed[1:-1, 1:-1] = labels
    return framed


def _nearest(
    framed: NDArray[np.uint8], rows: NDArray[np.float32], columns: NDArray[np.float32], *, mirrored: bool
) -> NDArray[np.uint8]:
    index, right = (_SCRATCH.array(name, rows.shape, np.int32) for name in ("index", "right"))
    _whole(rows, framed.shape[0] - 2, index, mirrored=mirrored)
    _whole(columns, framed.shape[1] - 2, right, mirrored=mirrored)
    index *= np.int32(framed.shape[1])
    index += right
    picked: NDArray[Any] = torch.from_numpy(framed).view(-1).index_select(0, torch.from_numpy(index).view(-1)).numpy()
    return picked.reshape(rows.shape)


def _whole(places: NDArray[np.float32], size: int, out: NDArray[np.int32], *, mirrored: bool) -> None:
    """Numbers of the nearest pixels in a framed side: 0 and size + 1 lie outside."""
    moved = _SCRATCH.array("moved", places.shape, np.float32)
    if mirrored:
        places = _reflected(places, size)
    # Halves round up; nothing is negative once it is limited, so that cutting off the fraction is rounding down.
    np.maximum(np.add(places, np.float32(1.5), out=moved), np.float32(0), out=moved)
    np.minimum(moved, np.float32(size + 1), out=out, casting="unsafe")


def _reflected(places: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Moves places beyond an edge to where a mirror about the edge pixels shows them."""
    last = np.float32(size - 1)
    if last == 0:
        return np.zeros_like(places)
    low, high = places.min(), places.max()
    if low < -last or high > 2 * last:
        places = places % (2 * last)
    if low < 0 or high > last:
        places = last - abs(last - abs(places))
    return places
