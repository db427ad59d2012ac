"""Reads images bilinearly and labels by the nearest pixel at drawn places.

Images go through PyTorch's `grid_sample`, the one kernel at hand that computes weights, reads and blends in one pass;
before it and after it, levels become float32 and back. The result is that of float64 but for roundings of places to
about 1e-5 of the source's side. Labels are picked by whole numbers, never blended.

Sizes are (height, width); C channels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from perpixel.data.augment.scratch import Scratch

__all__ = ["LARGEST_PLACE", "mirrored_span", "read", "read_affine"]

LARGEST_PLACE = 1 << 21
"""Places stay below this many pixels, so that float32 tells neighbours apart."""

_SCRATCH = Scratch()


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
    grid = _grid(rows, columns, (image.shape[1], image.shape[2]), mirrored=levels is None)
    seen = _nearest(labels, rows, columns, mirrored=levels is None, ignore_index=ignore_index)
    return _read_image(image, grid, levels), seen


def read_affine(
    image: Tensor,
    labels: NDArray[np.uint8],
    places: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]],
    *,
    levels: tuple[int, ...],
    ignore_index: int = 255,
) -> tuple[Tensor, NDArray[np.uint8]]:
    """Does what `read` does where places are sums: along each axis, (h,) numbers for rows and (w,) for columns.

    Both must be evenly spaced. Pillow picks the labels, which takes a third of the time of picking by index.
    """
    size = image.shape[1], image.shape[2]
    shape = len(places[0][0]), len(places[0][1])
    grid = torch.from_numpy(_SCRATCH.array("grid", (1, *shape, 2), np.float32))
    for axis, ((down, right), side) in enumerate(zip(places, size, strict=True)):
        first = torch.from_numpy(((2 * down + 3) / (side + 2) - 1).astype(np.float32))
        second = torch.from_numpy((2 * right / (side + 2)).astype(np.float32))
        torch.add(first[:, None], second, out=grid[0, ..., 1 - axis])
    numbers: list[float] = []
    for down, right in places[::-1]:  # right before down, as Pillow has it; its pixels are centred on halves
        by_row, by_column = ((line[-1] - line[0]) / max(1, len(line) - 1) for line in (down, right))
        numbers += [by_column, by_row, down[0] + right[0] + 0.5 - (by_row + by_column) / 2]
    picture = Image.fromarray(np.ascontiguousarray(labels))
    method, nearest = Image.Transform.AFFINE, Image.Resampling.NEAREST
    seen = picture.transform((shape[1], shape[0]), method, numbers, nearest, fillcolor=ignore_index)
    return _read_image(image, grid, levels), np.array(seen)


def _read_image(image: Tensor, grid: Tensor, levels: tuple[int, ...] | None) -> Tensor:
    """Image (C, h, w) with (h, w, C) memory at the kernel's places (1, h, w, 2)."""
    channels, height, width = image.shape
    shape = grid.shape[1], grid.shape[2]
    frame = 0 if levels is None else 1  # one pixel of fill all around, which the kernel then repeats without end
    source = torch.from_numpy(
        _SCRATCH.array("source", (1, channels, height + 2 * frame, width + 2 * frame), np.float32)
    )
    if levels is not None:
        fill = torch.tensor(levels, dtype=torch.float32).view(-1, 1)
        source[0, :, 0] = source[0, :, -1] = source[0, :, :, 0] = source[0, :, :, -1] = fill
    source[0, :, frame : frame + height, frame : frame + width].copy_(image)
    padding = "reflection" if levels is None else "border"
    read_at = F.grid_sample(source, grid, mode="bilinear", padding_mode=padding, align_corners=levels is None)[0]
    read_at += 0.5
    planes = _SCRATCH.array("planes", (channels, *shape), np.uint8 if image.dtype == torch.uint8 else np.int32)
    torch.from_numpy(planes).copy_(read_at)
    out = np.empty((*shape, channels), dtype=planes.dtype)
    for channel, plane in enumerate(planes):
        out[..., channel] = plane
    return torch.from_numpy(out).permute(2, 0, 1)


def mirrored_span(low: float, high: float, size: int) -> tuple[int, int]:
    """First and last + 1 pixel of a side that places need, those beyond an edge after mirroring."""
    low, high = math.floor(low), math.ceil(high) + 1
    first, last = min(max(0, low), size - 1), max(min(size, high), 1)
    if low < 0:
        last = max(last, min(size, 1 - low))
    if high > size:
        first = min(first, max(0, 2 * size - high - 1))
    return first, last


def _grid(rows: NDArray[np.float32], columns: NDArray[np.float32], size: tuple[int, int], *, mirrored: bool) -> Tensor:
    """Places (1, h, w, 2) as the kernel wants them: right before down, -1 to 1 over the edges or the edge pixels."""
    grid = _SCRATCH.array("grid", (1, *rows.shape, 2), np.float32)
    scaled = _SCRATCH.array("scaled", rows.shape, np.float32)
    for axis, (places, side) in enumerate(((columns, size[1]), (rows, size[0]))):
        length = max(1, side - 1) if mirrored else side + 2  # the frame of the fill counts
        np.multiply(places, np.float32(2 / length), out=scaled)
        np.add(scaled, np.float32(-1 if mirrored else 3 / length - 1), out=grid[0, ..., axis])
    return torch.from_numpy(grid)


def _nearest(
    labels: NDArray[np.uint8],
    rows: NDArray[np.float32],
    columns: NDArray[np.float32],
    *,
    mirrored: bool,
    ignore_index: int,
) -> NDArray[np.uint8]:
    height, width = labels.shape
    framed = _SCRATCH.array("labels", (height + 2, width + 2), np.uint8)
    framed[0] = framed[-1] = framed[:, 0] = framed[:, -1] = ignore_index
    framed[1:-1, 1:-1] = labels
    index, right = (_SCRATCH.array(name, rows.shape, np.int32) for name in ("index", "right"))
    _whole(rows, height, index, mirrored=mirrored)
    _whole(columns, width, right, mirrored=mirrored)
    index *= np.int32(width + 2)
    index += right
    marked = torch.from_numpy(framed).view(-1)
    picked: NDArray[Any] = marked.index_select(0, torch.from_numpy(index).view(-1)).numpy()
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
