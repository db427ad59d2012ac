"""Transforms that put pixels and labels of other samples into a window.

CutMix (Yun et al. 2019, arXiv:1905.04899: rectangle of area 1 - lambda, lambda from Beta(alpha, alpha), its centre
uniform; for segmentation French et al. 2020, arXiv:1906.01916). ClassMix (Olsson et al. 2021, arXiv:2007.07936: half
the classes of one image over another; there predicted classes, here true ones). Copy-paste (Ghiasi et al. 2021,
arXiv:2012.07177: instances; here all pixels of chosen classes, in place). Mosaic (Bochkovskiy et al. 2020,
arXiv:2004.10934, section 3.3: four images around a point; where the point lies is not stated there).

Labels always move with their pixels, so nothing gets an id that neither sample has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.data.augment.packed import pack, unpack

__all__ = ["chosen_classes", "draw_cells", "draw_rectangle", "half_of_classes", "pasted"]

Part = tuple[slice, slice]
_POINT = (0.25, 0.75)  # where mosaics have their point, as a share of each side


def draw_rectangle(size: tuple[int, int], alpha: float, rng: np.random.Generator) -> Part:
    """Draws the rectangle of CutMix; it is empty where its sides round to nothing."""
    side_share = np.sqrt(1 - rng.beta(alpha, alpha))
    parts = []
    for side, place in zip(size, rng.random(2).tolist(), strict=True):
        half = side * side_share / 2
        centre = place * side
        parts.append(slice(max(0, round(centre - half)), min(side, round(centre + half))))
    return parts[0], parts[1]


def draw_cells(size: tuple[int, int], rng: np.random.Generator) -> list[Part]:
    """Draws the four parts of a mosaic; the first is never empty, the others are along a side of one pixel."""
    low, high = _POINT
    places = rng.random(2).tolist()
    row, column = (max(1, int(side * (low + (high - low) * place))) for side, place in zip(size, places, strict=True))
    halves = (slice(0, row), slice(row, size[0])), (slice(0, column), slice(column, size[1]))
    return [(rows, columns) for rows in halves[0] for columns in halves[1]]


def half_of_classes(labels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Returns (256,): true for half the classes that occur, rounded up; never for 255."""
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[:255])
    table = np.zeros(256, dtype=bool)
    table[rng.permutation(present)[: -(-len(present) // 2)]] = True
    return table


def chosen_classes(classes: tuple[int, ...]) -> NDArray[np.bool_]:
    """Returns (256,): true for these train ids."""
    table = np.zeros(256, dtype=bool)
    table[list(classes)] = True
    return table


def pasted(
    pixels: NDArray[Any],
    labels: NDArray[np.uint8],
    other: NDArray[Any],
    other_labels: NDArray[np.uint8],
    classes: NDArray[np.bool_],
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Returns image (H, W, C) and labels (H, W) where pixels of the other sample's classes cover this one's.

    Args:
        pixels: uint8, or int32 for 16-bit values; as all arrays of the size of the window.
        labels: Train ids.
        other: Of the sample that is pasted.
        other_labels: Of the sample that is pasted.
        classes: (256,) true for the ids that are pasted.
    """
    found = other_labels.tobytes().translate(classes.tobytes())
    covered = np.frombuffer(found, dtype=bool).reshape(labels.shape)
    new_labels = np.where(covered, other_labels, labels)
    if pixels.dtype != np.uint8 or pixels.shape[2] != 3:
        return np.where(covered[..., None], other, pixels), new_labels
    words = np.where(covered, pack(other), pack(pixels))
    return unpack(words, 3), new_labels
