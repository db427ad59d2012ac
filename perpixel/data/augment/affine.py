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

from perpixel.data.augment.resample import LARGEST_PLACE, Slope, mirrored_span, read, read_affine
from perpixel.data.augment.settings import Augment, Border
from perpixel.data.transforms import Window, check_sample, part_inside
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
        InvalidValue: displacement or window are not of this sample's size, or a place lies absurdly far from the image.
    """
    if displacement is not None and displacement.shape != (2, *window.crop):
        raise InvalidValue(f"the displacement is (2, *{window.crop}), got {displacement.shape}")
    shrinks = window.step[0] > window.step[1]
    step = 1.0 if shrinks else window.step[0] / window.step[1]
    sizes = window.scaled if shrinks else (image.shape[1], image.shape[2])
    lines = [_slope(window, affine, axis, step) for axis in range(2)]
    fields = [None, None] if displacement is None else [step * field for field in displacement]
    spans = [
        _span(line, window.crop, field, size, border) for line, field, size in zip(lines, fields, sizes, strict=True)
    ]
    (top, bottom), (left, right) = spans
    if shrinks:
        inside = window._replace(crop=(bottom - top, right - left), corner=(top, left), flip=False)
        source, labels = part_inside(inside, image, target)
    else:
        check_sample(window, image, target)
        source, labels = image[:, top:bottom, left:right], target[top:bottom, left:right].numpy()
    levels = tuple(round(value * FULL_SCALE[image.dtype]) for value in pad_value)
    # The map turns about the middle column, so that a flip only runs along the rows the other way.
    ends = [
        Slope(line.middle - start, line.down, -line.right if window.flip else line.right)
        for line, (start, _) in zip(lines, spans, strict=True)
    ]
    if displacement is None and border == "fill":
        pixels, seen = read_affine(source, labels, (ends[0], ends[1]), window.crop, levels=levels)
    else:
        rows, columns = (
            _places(line, window.crop, field, mirrored=window.flip) for line, field in zip(ends, fields, strict=True)
        )
        pixels, seen = read(source, labels, rows, columns, levels=levels if border == "fill" else None)
    return pixels, torch.from_numpy(seen)


def _slope(window: Window, affine: AffineMap, axis: int, step: float) -> Slope:
    """Places along an axis before the window is flipped, ``step`` source pixels per pixel of the scaled image."""
    (down, right), (lower, further) = affine.matrix[axis], affine.shift
    centre = window.corner[axis] + (window.crop[axis] - 1) / 2 - down * lower - right * further
    return Slope(step * (centre + 0.5) - 0.5, step * down, step * right)


def _span(
    line: Slope, crop: tuple[int, int], field: NDArray[np.float64] | None, size: int, border: Border
) -> tuple[int, int]:
    """First and last + 1 pixel of a side that the places need; at least one."""
    low, high = line.extremes(crop)
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


def _places(
    line: Slope, crop: tuple[int, int], field: NDArray[np.float64] | None, *, mirrored: bool
) -> NDArray[np.float32]:
    down, right = line.sides(crop, 1.0, 0.0)
    places: NDArray[np.float32] = down + right
    if field is not None:
        places += field[:, ::-1] if mirrored else field
    return places
