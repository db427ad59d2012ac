"""Elastic deformation, rotation and mirrored borders of samples (Ronneberger et al. 2015, arXiv:1505.04597).

Displacement vectors are drawn on a coarse grid over the window, N(0, strength) pixels along each axis, and every pixel
moves by their bicubic interpolation (sections 2 and 3.1). The image is then read bilinearly, the label map by the
nearest pixel, and what lies outside the image is mirrored about its edge pixels. A rotation about the window's centre
is a displacement too, added to the others, so that pixels are interpolated once.

Not verified, since the paper does not say: that the outermost grid points lie on the window's corner pixels, and the
cubic kernel (Keys 1981, a = -1/2, the grid's edge repeated beyond it). The paper names rotations without a range.

Sizes are (height, width); C channels, G grid points per side.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from perpixel.data.augment.resample import mirrored_span
from perpixel.data.augment.scratch import Scratch
from perpixel.data.transforms import Augmentation, Window, apply
from perpixel.errors import InvalidValue
from perpixel.ops.normalize import FULL_SCALE

__all__ = ["deform", "draw_displacement", "rotation_displacement", "with_mirrored_border"]

_KEYS = -0.5
_MOST_DOUBT = 0.2  # levels; beyond it too many pixels would be read twice
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
    places = [
        displacement[axis] + np.expand_dims(np.arange(window.crop[axis]) + window.corner[axis], 1 - axis)
        for axis in range(2)
    ]
    spans = [
        mirrored_span(float(place.min()), float(place.max()), side)
        for place, side in zip(places, window.scaled, strict=True)
    ]
    inside = window._replace(
        crop=(spans[0][1] - spans[0][0], spans[1][1] - spans[1][0]), corner=(spans[0][0], spans[1][0]), flip=False
    )
    source, labels = apply(inside, image, target, pad_value=(0.0,) * image.shape[0])
    for place, span in zip(places, spans, strict=True):
        place -= span[0]
    out_image, out_target = _read_mirrored(source, labels.numpy(), places[0], places[1])
    if window.flip:
        out_image, out_target = out_image[:, ::-1].copy(), out_target[:, ::-1].copy()
    return torch.from_numpy(out_image).permute(2, 0, 1), torch.from_numpy(out_target)


def with_mirrored_border(image: Tensor, target: Tensor, border: int) -> tuple[Tensor, Tensor]:
    """Extends a sample (C, H, W), (H, W) by ``border`` pixels on each side, mirrored about its edge pixels."""
    pixels = np.pad(image.permute(1, 2, 0).numpy(), ((border, border), (border, border), (0, 0)), mode="reflect")
    labels = np.pad(target.numpy(), border, mode="reflect")
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(labels)


def _read_mirrored(
    image: Tensor, labels: NDArray[np.uint8], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Image (h, w, C) and labels (h, w) at places (h, w): bit for bit `scipy.ndimage.map_coordinates`, mode "mirror".

    A float32 kernel reads all pixels; those whose value is so close to the middle between two levels that its error
    could round them to the other one are read again in the arithmetic of SciPy.
    """
    channels, height, width = image.shape
    down, right = _mirrored(rows, height), _mirrored(columns, width)
    marked = torch.from_numpy(np.ascontiguousarray(labels)).view(-1)
    nearest = [(places + 0.5).astype(np.int32) for places in (down, right)]  # rounded down: no place is negative
    for pixels, side in zip(nearest, (height, width), strict=True):
        if pixels.max() >= side:
            pixels[pixels >= side] = max(0, side - 2)
    index = np.multiply(nearest[0], np.int32(width), out=nearest[0])
    index += nearest[1]
    out_labels = marked.index_select(0, torch.from_numpy(index).view(-1)).numpy().reshape(rows.shape)
    flat = image.permute(1, 2, 0).contiguous().view(-1)
    out = np.empty((*rows.shape, channels), image.numpy().dtype)
    # Rounding a place to float32, adding 1 and multiplying by half the side move it by at most 1.1e-7 of the side.
    doubt = FULL_SCALE[image.dtype] * (height + width) * 1.2e-7 + 1e-3
    if doubt > _MOST_DOUBT:
        for channel in range(channels):
            out[..., channel] = _exactly(flat, channel, image.shape, down.ravel(), right.ravel()).reshape(rows.shape)
        return out, out_labels
    quick = _quickly(image, down, right)
    whole, middle = (_SCRATCH.array(name, rows.shape, np.float32) for name in ("whole", "middle"))
    for channel, values in enumerate(quick):
        np.rint(values, out=whole)
        out[..., channel] = whole
        # The distance to the nearest whole number is almost 1/2 where it matters.
        np.abs(np.subtract(values, whole, out=middle), out=middle)
        again = np.flatnonzero(middle > np.float32(0.5 - doubt))
        out.reshape(-1, channels)[again, channel] = _exactly(
            flat, channel, image.shape, down.ravel()[again], right.ravel()[again]
        )
    return out, out_labels


def _quickly(image: Tensor, down: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float32]:
    """Values (C, h, w) at places inside the image, in float32."""
    channels, height, width = image.shape
    source = torch.from_numpy(_SCRATCH.array("source", (1, channels, height, width), np.float32))
    source[0].copy_(image)
    grid = _SCRATCH.array("grid", (1, *down.shape, 2), np.float32)
    scaled = _SCRATCH.array("scaled", down.shape, np.float64)
    for axis, (places, side) in enumerate(((right, width), (down, height))):
        np.multiply(places, 2 / max(1, side - 1), out=scaled)
        if scaled.max() > 2:  # between the last pixel and the next place the mirror goes back
            np.minimum(scaled, 4 - scaled, out=scaled)
        np.subtract(scaled, 1, out=grid[0, ..., axis], casting="same_kind")
    values: NDArray[np.float32] = F.grid_sample(
        source, torch.from_numpy(grid), mode="bilinear", padding_mode="border", align_corners=True
    )[0].numpy()
    return values


def _exactly(
    flat: Tensor, channel: int, shape: tuple[int, ...], down: NDArray[np.float64], right: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Whole levels of one channel at places (n,): float64 in SciPy's order, rounded to float32, then to a level.

    Args:
        flat: The image's levels, (H, W, C) flattened.
        channel: Which of them.
        shape: (C, H, W).
        down: Places after mirroring.
        right: Places after mirroring.
    """
    channels, height, width = shape
    above, left = np.floor(down), np.floor(right)
    upper, leftmost = 1 - (down - above), 1 - (right - left)
    total = np.zeros(down.shape)
    for line, vertical in ((above, upper), (_within(above + 1, height), 1 - upper)):
        for place, horizontal in ((left, leftmost), (_within(left + 1, width), 1 - leftmost)):
            value = _taken(flat, (line * width + place) * channels + channel) * vertical
            value *= horizontal
            total += value
    levels: NDArray[np.float32] = np.rint(total.astype(np.float32))
    return levels


def _within(pixels: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Pixel numbers up to ``size``, which is the one after the last: it is mirrored too."""
    within: NDArray[np.float64] = np.where(pixels >= size, max(0, size - 2), pixels)
    return within


def _taken(flat: Tensor, index: NDArray[np.float64]) -> NDArray[Any]:
    taken: NDArray[Any] = flat.index_select(0, torch.from_numpy(index.astype(np.int64)).view(-1)).numpy()
    return taken


def _mirrored(places: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Moves places beyond an edge to where a mirror about the edge pixels shows them, in the arithmetic of SciPy."""
    outside = (places < 0) | (places > size - 1)
    if not outside.any():
        return places
    moved = places.copy()
    if size == 1:
        moved[:] = 0
        return moved
    period = 2 * size - 2
    beyond = places[outside]
    low = period * np.trunc(-beyond / period) + beyond
    low = np.where(low <= 1 - size, low + period, -low)
    high = beyond - period * np.trunc(beyond / period)
    high = np.where(high >= size, period - high, high)
    moved[outside] = np.where(beyond < 0, low, high)
    return moved


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
