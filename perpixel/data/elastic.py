"""Elastic deformation, rotation and mirrored borders of samples (Ronneberger et al. 2015, arXiv:1505.04597).

Displacement vectors are drawn on a coarse grid over the window, N(0, strength) pixels along each axis, and every pixel
moves by their bicubic interpolation (sections 2 and 3.1). The image is then read bilinearly, the label map by the
nearest pixel, and what lies outside the image is mirrored about its edge pixels. A rotation about the window's centre
is a displacement too, added to the others, and a window that enlarges the image reads it where the displaced pixels
lie in it: all is interpolated once. One that shrinks it reads an antialiased copy of that size.

Not verified, since the paper does not say: that the outermost grid points lie on the window's corner pixels, and the
cubic kernel (Keys 1981, a = -1/2, the grid's edge repeated beyond it). The paper names rotations without a range.

Sizes are (height, width); C channels, G grid points per side.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perpixel.data.augment.resample import bands, blended, mirrored_span, to_float, to_levels
from perpixel.data.augment.scratch import Scratch
from perpixel.data.transforms import Augmentation, Window, check_sample, part_inside
from perpixel.errors import InvalidValue
from perpixel.ops.normalize import FULL_SCALE

__all__ = ["deform", "draw_displacement", "rotation_displacement", "with_mirrored_border"]

_KEYS = -0.5
_MOST_DOUBT = 0.2  # levels; beyond it too many pixels would be read twice
_MANY = 1 << 15  # values that are read again at once
_SCRATCH = Scratch()


def draw_displacement(augmentation: Augmentation, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draws (2, *crop_size): how far each pixel of the window looks down and right, in pixels.

    The grid is drawn first, and an angle after it only where there is a rotation, so that neither changes the other.
    """
    grid = augmentation.elastic * rng.standard_normal((2, augmentation.elastic_grid, augmentation.elastic_grid))
    rows, columns = (_interpolation(side, augmentation.elastic_grid) for side in augmentation.crop_size)
    field: NDArray[np.float64] = rows @ grid @ columns.T
    if augmentation.rotation:
        field += rotation_displacement(augmentation.rotation * (2 * rng.random() - 1), augmentation.crop_size)
    return field


def rotation_displacement(degrees: float, size: tuple[int, int]) -> NDArray[np.float64]:
    """Returns (2, *size): the displacement that turns a window about its centre, counter-clockwise as it is seen."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    down, right = (np.arange(side) - (side - 1) / 2 for side in size)
    down = down[:, None]
    return np.stack([(cosine - 1) * down + sine * right, -sine * down + (cosine - 1) * right])


def deform(window: Window, displacement: NDArray[np.float64], image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cuts the window out of a sample as `transforms.apply` does, with every pixel displaced first.

    Args:
        window: Drawn for this sample's size. Where it leaves the image, the image is mirrored instead of padded.
        displacement: (2, *window.crop): pixel (y, x) of the result shows (y, x) + displacement, before mirroring.
        image: (C, H, W) uint8, or int32 for 16-bit values.
        target: (H, W) uint8 train ids.

    Returns:
        Image (C, *crop) with (H, W, C) memory and target (*crop), both new.

    Raises:
        InvalidValue: the displacement is of another size; and as `transforms.apply`.
    """
    if displacement.shape != (2, *window.crop):
        raise InvalidValue(f"the displacement is (2, *{window.crop}), got {displacement.shape}")
    shrinks = window.step[0] > window.step[1]
    step = 1.0 if shrinks else window.step[0] / window.step[1]
    sizes = window.scaled if shrinks else (image.shape[1], image.shape[2])
    down, right = (_Axis.of(window, displacement[axis], axis, step, sizes[axis]) for axis in range(2))
    if shrinks:
        inside = window._replace(crop=(down.size, right.size), corner=(down.start, right.start), flip=False)
        source, labels = part_inside(inside, image, target)
    else:
        check_sample(window, image, target)
        rows, columns = (slice(axis.start, axis.start + axis.size) for axis in (down, right))
        source, labels = image[:, rows, columns], target[rows, columns].numpy()
    pixels, seen = _read_mirrored(
        source, labels, displacement[..., ::-1] if window.flip else displacement, (down, right)
    )
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(seen)


def with_mirrored_border(image: Tensor, target: Tensor, border: int) -> tuple[Tensor, Tensor]:
    """Extends a sample (C, H, W), (H, W) by ``border`` pixels on each side, mirrored about its edge pixels."""
    pixels = np.pad(image.permute(1, 2, 0).numpy(), ((border, border), (border, border), (0, 0)), mode="reflect")
    labels = np.pad(target.numpy(), border, mode="reflect")
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(labels)


class _Axis(NamedTuple):
    """Places along one axis: what is known of them before any pixel is read."""

    line: NDArray[np.float64]
    """(h, 1) or (w,): places in the scaled image where nothing is displaced, plus 1/2 where ``step`` is not 1."""
    step: float
    """Pixels of what is read per pixel of the scaled image."""
    start: int
    """First pixel that is read; places count from it."""
    size: int
    """Pixels that are read."""
    is_mirrored: bool
    """Whether any place lies beyond an edge."""

    @classmethod
    def of(cls, window: Window, field: NDArray[np.float64], axis: int, step: float, size: int) -> _Axis:
        """The axis of a window with this displacement (*window.crop) along it, in an image with a side of ``size``."""
        half = 0.0 if step == 1 else 0.5
        line: NDArray[np.float64] = np.arange(window.crop[axis], dtype=np.float64) + (window.corner[axis] + half)
        extremes = (field.min(1 - axis) + line).min(), (field.max(1 - axis) + line).max()
        low, high = (float(place) * step - half for place in extremes)
        start, stop = mirrored_span(low, high, size)
        if axis and window.flip:
            line = line[::-1]
        return cls(line if axis else line[:, None], step, start, stop - start, low < start or high > stop - 1)

    def places(self, field: NDArray[np.float64], band: slice, name: str) -> NDArray[np.float64]:
        """Places of a band after the mirror; overwritten when the name is used again."""
        places = _SCRATCH.array(name, field[band].shape, np.float64)
        np.add(field[band], self.line if self.line.ndim == 1 else self.line[band], out=places)
        if self.step == 1:
            places -= self.start
        else:
            places *= self.step
            places -= 0.5 + self.start
        if self.is_mirrored:
            _mirror(places, self.size)
        return places

    def nearest(self, places: NDArray[np.float64], name: str) -> NDArray[np.int32]:
        """Pixels next to places; overwritten when the name is used again."""
        pixels = _SCRATCH.array(name, places.shape, np.int32)
        moved = np.add(places, 0.5, out=_SCRATCH.array("scaled", places.shape, np.float64))
        np.copyto(pixels, moved, casting="unsafe")  # rounded down: no place is negative
        if self.is_mirrored:
            pixels[pixels >= self.size] = max(0, self.size - 2)
        return pixels

    def between(self, places: NDArray[np.float64], first: int, last: int, out: NDArray[np.float32]) -> None:
        """Writes places as the kernel wants them: -1 for the first pixel, 1 for the last one of those it gets."""
        scaled = _SCRATCH.array("scaled", places.shape, np.float64)
        end = self.size - 1
        if self.is_mirrored:  # between the last pixel and the next place the mirror goes back
            places = np.minimum(places, 2 * end - places, out=scaled)
        factor = 2 / max(1, last - first)
        np.multiply(places, factor, out=scaled)
        scaled -= first * factor + 1
        out[:] = scaled


def _read_mirrored(
    image: Tensor, labels: NDArray[np.uint8], displacement: NDArray[np.float64], axes: tuple[_Axis, _Axis]
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Image (h, w, C) and labels (h, w): bit for bit `scipy.ndimage.map_coordinates`, mode "mirror".

    A float32 kernel reads all pixels; those whose value is so close to the middle between two levels that its error
    could round them to the other one are read again in the arithmetic of SciPy.
    """
    down, right = axes
    shape, channels = displacement.shape[1:], image.shape[0]
    levels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    source = to_float(torch.from_numpy(levels).permute(2, 0, 1), None)
    marked = torch.from_numpy(np.ascontiguousarray(labels)).view(-1)
    out = np.empty((*shape, channels), levels.dtype)
    out_labels = np.empty(shape, np.uint8)
    doubted: list[tuple[NDArray[Any], ...]] = []
    for band in bands(shape):
        rows, columns = down.places(displacement[0], band, "down"), right.places(displacement[1], band, "right")
        index = down.nearest(rows, "index")
        index *= np.int32(right.size)
        index += right.nearest(columns, "nearest")
        out_labels[band] = marked.index_select(0, torch.from_numpy(index).view(-1)).numpy().reshape(rows.shape)
        first, last = int(rows.min()), min(int(rows.max()) + 1, down.size - 1)
        grid = _SCRATCH.array("grid", (2, *rows.shape), np.float32)
        right.between(columns, 0, right.size - 1, grid[0])
        down.between(rows, first, last, grid[1])
        again = _quickly(source[:, :, first : last + 1], grid, FULL_SCALE[image.dtype], out[band])
        channel = again // rows.size
        again -= channel * rows.size
        places = rows.reshape(-1).take(again), columns.reshape(-1).take(again)
        doubted.append((*places, channel, (again + band.start * shape[1]) * channels + channel))
        if sum(len(part[0]) for part in doubted) >= _MANY or band.stop == shape[0]:
            lines, places_right, channel, position = (np.concatenate(part) for part in zip(*doubted, strict=True))
            out.reshape(-1)[position] = _exactly(levels, channel, lines, places_right)
            doubted = []
    return out, out_labels


def _quickly(source: Tensor, grid: NDArray[np.float32], full_scale: float, out: NDArray[Any]) -> NDArray[np.intp]:
    """Writes levels (h, w, C) at the kernel's places; returns which of (C, h, w) may be one off."""
    # Rounding a place to float32, adding 1 and multiplying by half the side move it by at most 1.1e-7 of the side.
    doubt = full_scale * ((source.shape[2] + source.shape[3]) * 1.2e-7 + 4e-6)
    if doubt > _MOST_DOUBT:
        return np.arange(out.size)
    values = blended(source, grid, mirrored=False)
    whole = _SCRATCH.array("whole", values.shape, np.float32)
    np.rint(values, out=whole)
    to_levels(whole, out)
    # The distance to the nearest whole number is almost 1/2 where it matters.
    whole -= values
    np.abs(whole, out=whole)
    return np.flatnonzero(whole > np.float32(0.5 - doubt))


def _exactly(
    levels: NDArray[Any], channel: NDArray[np.intp], down: NDArray[np.float64], right: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Whole levels at places (n,) after the mirror: float64 in SciPy's order, rounded to float32, then to a level.

    Args:
        levels: (H, W, C), contiguous.
        channel: Which of them to read (n,).
        down: Places.
        right: Places.
    """
    height, width, channels = levels.shape
    above, left = down.astype(np.intp), right.astype(np.intp)
    upper, leftmost = 1 - (down - above), 1 - (right - left)
    corner = (above * width + left) * channels + channel
    below, beside = _to_next(above, height) * (width * channels), _to_next(left, width) * channels
    flat = levels.reshape(-1)
    total = np.zeros(down.shape)
    for line, vertical in ((corner, upper), (corner + below, 1 - upper)):
        for place, horizontal in ((line, leftmost), (line + beside, 1 - leftmost)):
            value = flat.take(place) * vertical
            value *= horizontal
            total += value
    whole: NDArray[np.float32] = np.rint(total.astype(np.float32))
    return whole


def _to_next(pixels: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Steps to the next pixels of a side; behind the last one the mirror goes back."""
    return np.where(pixels == size - 1, -min(1, size - 1), 1)


def _mirror(places: NDArray[np.float64], size: int) -> None:
    """Moves places beyond an edge to where a mirror about the edge pixels shows them, in the arithmetic of SciPy."""
    low, high = float(places.min()), float(places.max())
    if size == 1:
        places[:] = 0
        return
    period = 2 * size - 2
    if low > 1 - size and high < period:
        if low < 0:
            np.abs(places, out=places)
        if high >= size:
            np.copyto(places, period - places, where=places >= size)
        return
    outside = (places < 0) | (places > size - 1)
    beyond = places[outside]
    down = period * np.trunc(-beyond / period) + beyond
    down = np.where(down <= 1 - size, down + period, -down)
    up = beyond - period * np.trunc(beyond / period)
    up = np.where(up >= size, period - up, up)
    places[outside] = np.where(beyond < 0, down, up)


@lru_cache(maxsize=16)
def _interpolation(length: int, points: int) -> NDArray[np.float64]:
    """Matrix (length, points) that interpolates values at evenly spaced points, the outer ones on the end pixels."""
    positions = np.linspace(0, points - 1, length) if length > 1 else np.array([(points - 1) / 2])
    base = np.floor(positions).astype(int)
    matrix = np.zeros((length, points))
    for neighbour in range(-1, 3):
        weights = _keys(np.abs(positions - base - neighbour))
        np.add.at(matrix, (np.arange(length), np.clip(base + neighbour, 0, points - 1)), weights)
    matrix.flags.writeable = False
    return matrix


def _keys(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    near = ((_KEYS + 2) * distance - (_KEYS + 3)) * distance**2 + 1
    far = _KEYS * (((distance - 5) * distance + 8) * distance - 4)
    weights: NDArray[np.float64] = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    return weights
