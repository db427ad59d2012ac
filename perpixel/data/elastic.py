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

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from perpixel.data.transforms import Augmentation, Window, apply
from perpixel.errors import InvalidValue

__all__ = ["deform", "draw_displacement", "rotation_displacement", "with_mirrored_border"]

_KEYS = -0.5


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
    spans = [_span(places[axis], window.scaled[axis]) for axis in range(2)]
    inside = window._replace(
        crop=(spans[0][1] - spans[0][0], spans[1][1] - spans[1][0]), corner=(spans[0][0], spans[1][0]), flip=False
    )
    source, labels = apply(inside, image, target, pad_value=(0.0,) * image.shape[0])
    read_at = np.stack([place - span[0] for place, span in zip(places, spans, strict=True)])
    out_image = np.empty((*window.crop, image.shape[0]), dtype=source.numpy().dtype)
    for channel, plane in enumerate(source.numpy()):
        read = ndimage.map_coordinates(plane, read_at, output=np.float32, order=1, mode="mirror")
        out_image[..., channel] = np.rint(read)
    out_target = ndimage.map_coordinates(labels.numpy(), read_at, order=0, mode="mirror")
    if window.flip:
        out_image, out_target = out_image[:, ::-1].copy(), out_target[:, ::-1].copy()
    return torch.from_numpy(out_image).permute(2, 0, 1), torch.from_numpy(out_target)


def with_mirrored_border(image: Tensor, target: Tensor, border: int) -> tuple[Tensor, Tensor]:
    """Extends a sample (C, H, W), (H, W) by ``border`` pixels on each side, mirrored about its edge pixels."""
    pixels = np.pad(image.permute(1, 2, 0).numpy(), ((border, border), (border, border), (0, 0)), mode="reflect")
    labels = np.pad(target.numpy(), border, mode="reflect")
    return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(labels)


def _span(places: NDArray[np.float64], size: int) -> tuple[int, int]:
    """First and last + 1 pixel of a side that the places need, those beyond an edge after mirroring."""
    low, high = math.floor(places.min()), math.ceil(places.max()) + 1
    first, last = min(max(0, low), size - 1), max(min(size, high), 1)
    if low < 0:
        last = max(last, min(size, 1 - low))
    if high > size:
        first = min(first, max(0, 2 * size - high - 1))
    return first, last


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
