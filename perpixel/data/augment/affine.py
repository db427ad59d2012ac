"""One random affine map of the training window, together with elastic displacements, in one resampling.

Rotation, shear, stretch and shift are one inverse map: which place of the image each pixel of the window shows. It is
composed with the window's own scale and flip (and with `data.elastic`'s field where that is on), so that pixels are
interpolated once. A window that shrinks the image is read from an antialiased copy of that size, since a bilinear
reading alone would skip pixels.

Sources: Simard et al. 2003 (Best practices for convolutional neural networks applied to visual document analysis,
ICDAR: affine maps and elastic fields as displacements); Ronneberger et al. 2015 (arXiv:1505.04597) for segmentation.
Neither states ranges or a probability.

Sizes are (height, width); places are (down, right), pixel centres on whole numbers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perpixel.data.augment.resample import LARGEST_PLACE, mirrored_span, read, read_affine
from perpixel.data.augment.settings import Augment, Border
from perpixel.data.transforms import Window, apply
from perpixel.errors import InvalidValue
from perpixel.ops.normalize import FULL_SCALE

__all__ = ["AffineMap", "draw_affine", "warp"]


class AffineMap(NamedTuple):
    """Pixel ``centre + d`` of the window shows ``centre + matrix (d - shift)``, centre the window's middle."""

    matrix: tuple[tuple[float, float], tuple[float, float]]
    shift: tuple[float, float]
    """Pixels down and to the right by which the content moves."""

    @classmethod
    def identity(cls) -> AffineMap:
        """The map that changes nothing."""
        return cls(((1.0, 0.0), (0.0, 1.0)), (0.0, 0.0))


def draw_affine(augment: Augment, size: tuple[int, int], rng: np.random.Generator) -> AffineMap:
    """Draws angle, shear, stretch and shift of a window of this size; always five numbers."""
    turn, lean, ratio, down, right = (2 * rng.random(5) - 1).tolist()
    angle, slope = math.radians(turn * augment.rotate), math.tan(math.radians(lean * augment.shear))
    tall = math.sqrt(augment.stretch**ratio)
    cosine, sine = math.cos(angle), math.sin(angle)
    # Inverses of stretch (y tall, x / tall), shear (x + slope y) and counter-clockwise turn, the last one undone first.
    first = ((cosine, sine), (-sine, cosine))
    second = (first[0], (first[1][0] - slope * first[0][0], first[1][1] - slope * first[0][1]))
    matrix = (
        (second[0][0] / tall, second[0][1] / tall),
        (second[1][0] * tall, second[1][1] * tall),
    )
    return AffineMap(matrix, (down * augment.translate * size[0], right * augment.translate * size[1]))


def warp(
    window: Window,
    affine: AffineMap,
    displacement: NDArray[np.float64] | None,
    image: Tensor,
    target: Tensor,
    *,
    border: Border,
    pad_value: tuple[float, ...],
) -> tuple[Tensor, Tensor]:
    """Cuts the window out of a sample as `transforms.apply` does, seen through the map.

    Args:
        window: Drawn for this sample's size.
        affine: Acts about the window's middle.
        displacement: (2, *window.crop) pixels of the scaled image, added to the places; None adds nothing.
        image: (C, H, W) uint8, or int32 for 16-bit values.
        target: (H, W) uint8 train ids.
        border: What lies outside the image: filled (labels 255) or mirrored.
        pad_value: Fill per channel as a fraction of the full scale.

    Returns:
        Image (C, *crop) with (H, W, C) memory and target (*crop), both new.

    Raises:
        InvalidValue: the displacement is of another size, or a place lies absurdly far from the image.
    """
    if displacement is not None and displacement.shape != (2, *window.crop):
        raise InvalidValue(f"the displacement is (2, *{window.crop}), got {displacement.shape}")
    shrinks = window.step[0] > window.step[1]
    step = 1.0 if shrinks else window.step[0] / window.step[1]
    sizes = window.scaled if shrinks else (image.shape[1], image.shape[2])
    lines = [_Line.of(window, affine, axis, step) for axis in range(2)]
    fields = [None, None] if displacement is None else [step * field for field in displacement]
    spans = [_span(line, field, size, border) for line, field, size in zip(lines, fields, sizes, strict=True)]
    (top, bottom), (left, right) = spans
    if shrinks:
        inside = window._replace(crop=(bottom - top, right - left), corner=(top, left), flip=False)
        source, labels = apply(inside, image, target, pad_value=pad_value)
    else:
        source, labels = image[:, top:bottom, left:right], target[top:bottom, left:right]
    levels = tuple(round(value * FULL_SCALE[image.dtype]) for value in pad_value)
    if displacement is None and border == "fill":
        ends = [line.from_start(start, mirrored=window.flip) for line, (start, _) in zip(lines, spans, strict=True)]
        pixels, seen = read_affine(source, labels.numpy(), (ends[0], ends[1]), levels=levels)
    else:
        rows, columns = (
            _places(line, field, start, mirrored=window.flip)
            for line, field, (start, _) in zip(lines, fields, spans, strict=True)
        )
        pixels, seen = read(source, labels.numpy(), rows, columns, levels=levels if border == "fill" else None)
    return pixels, torch.from_numpy(seen)


class _Line(NamedTuple):
    """Places along one axis: ``down[i] + right[j]`` for pixel (i, j) of the window before it is flipped."""

    down: NDArray[np.float64]
    right: NDArray[np.float64]

    @classmethod
    def of(cls, window: Window, affine: AffineMap, axis: int, step: float) -> _Line:
        """The line of a window; ``step`` pixels of what is read per pixel of the scaled image."""
        half = [(side - 1) / 2 for side in window.crop]
        offsets = [np.arange(side, dtype=np.float64) - middle for side, middle in zip(window.crop, half, strict=True)]
        down, right = (
            step * factor * (offset - shift)
            for factor, offset, shift in zip(affine.matrix[axis], offsets, affine.shift, strict=True)
        )
        centre = window.corner[axis] + half[axis]
        return cls(down + (step * (centre + 0.5) - 0.5), right)

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest place."""
        return float(self.down.min() + self.right.min()), float(self.down.max() + self.right.max())

    def from_start(self, start: int, *, mirrored: bool) -> _Line:
        """The line that counts from ``start``, flipped left to right where asked."""
        return _Line(self.down - start, self.right[::-1].copy() if mirrored else self.right)


def _span(line: _Line, field: NDArray[np.float64] | None, size: int, border: Border) -> tuple[int, int]:
    """First and last + 1 pixel of a side that the places need; at least one."""
    low, high = line.extremes()
    if field is not None:
        low, high = low + float(field.min()), high + float(field.max())
    if max(-low, high) >= LARGEST_PLACE:
        raise InvalidValue(
            f"a warped window shows places {low:.0f} to {high:.0f} along one side, and the largest is {LARGEST_PLACE}; "
            "use a smaller crop, or less shear, translate or elastic"
        )
    if border == "mirror":
        return mirrored_span(low, high, size)
    first = min(max(0, math.floor(low)), size - 1)
    return first, max(first + 1, min(size, math.ceil(high) + 1))


def _places(line: _Line, field: NDArray[np.float64] | None, start: int, *, mirrored: bool) -> NDArray[np.float32]:
    """Places from ``start`` on, flipped left to right where asked."""
    down, right = (part.astype(np.float32) for part in line.from_start(start, mirrored=mirrored))
    places: NDArray[np.float32] = down[:, None] + right
    if field is not None:
        places += field[:, ::-1] if mirrored else field
    return places
