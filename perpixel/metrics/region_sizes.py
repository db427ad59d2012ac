"""Recall by the size of true regions: whether small things are found as well as large ones.

Shapes: K classes, S size classes, H W image. A region is a connected set of pixels of one class in the truth; ignored
pixels part regions and belong to none. Its size is its number of pixels. With thresholds a_1 < … < a_{S-1}, size class
s holds the regions with a_s <= size < a_{s+1}. The default, 32² and 96² pixels, is COCO's for objects (cocoeval's
"small", "medium", "large", which count object areas); it is not scaled with the image.
Recall of a size class = recalled pixels / pixels of its regions. There is no precision, since a wrong prediction
belongs to no true region.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue
from perpixel.label_regions import label_regions
from perpixel.metrics.contours import label_pairs
from perpixel.metrics.tensors import Tensor

__all__ = [
    "DEFAULT_SIZE_THRESHOLDS",
    "ClassSizes",
    "RegionSizeScores",
    "SizeClass",
    "region_size_counts",
    "region_size_scores",
]

DEFAULT_SIZE_THRESHOLDS = (32**2, 96**2)
"""Pixels: from which size a region is medium, and from which large."""
_NAMES = {1: ("all",), 2: ("small", "large"), 3: ("small", "medium", "large")}
_REGIONS, _PIXELS, _RECALLED = range(3)


class SizeClass(TypedDict):
    """Regions of one range of sizes."""

    name: str
    from_pixels: int
    to_pixels: int | None
    """Exclusive; None is open."""
    regions: int
    pixels: int
    recalled: int
    recall: float
    """Fraction of the pixels; NaN without a region."""


class ClassSizes(TypedDict):
    """Regions of one class by size."""

    name: str
    bins: list[SizeClass]


class RegionSizeScores(TypedDict):
    """Regions by size, small to large, of all classes together and of each; the keys are those of metrics.json."""

    bins: list[SizeClass]
    per_class: list[ClassSizes]


def region_size_counts(
    prediction: NDArray[Any] | Tensor,
    target: NDArray[Any] | Tensor,
    num_classes: int,
    *,
    thresholds: Sequence[int] = DEFAULT_SIZE_THRESHOLDS,
    connectivity: Literal[4, 8] = 8,
    ignore_index: int = 255,
) -> NDArray[np.int64]:
    """Counts one image's true regions, their pixels and the recalled ones, by class and size.

    Args:
        prediction: Predicted train ids (H, W), in [0, K) on valid pixels.
        target: True train ids (H, W), in [0, K) or ``ignore_index``.
        num_classes: K.
        thresholds: S-1 sizes in pixels, rising, at least 1: where the next size class begins.
        connectivity: 8 joins pixels that touch at a corner, 4 only those that share an edge.
        ignore_index: Target value that is left out.

    Returns:
        (K, S, 3) int64: regions, pixels, recalled pixels. Sum it over images.

    Raises:
        InvalidValue: shapes differ or are not (H, W), there is no pixel, a label is no integer or out of range,
            thresholds do not rise, or the connectivity is another.

    Example:
        >>> target = np.array([[1, 1, 0, 1]])
        >>> region_size_counts(np.array([[1, 0, 0, 1]]), target, 2, thresholds=(2,)).tolist()
        [[[1, 1, 1], [0, 0, 0]], [[1, 1, 1], [1, 2, 1]]]
    """
    limits = _limits(thresholds)
    if connectivity not in (4, 8):
        raise InvalidValue(f"connectivity is 4 or 8, got {connectivity}")
    (pair,) = label_pairs(prediction, target, num_classes, ignore_index=ignore_index, batched=False)
    counts = np.zeros((num_classes, len(limits) + 1, 3), dtype=np.int64)
    found = label_regions(pair.target, connectivity=connectivity)
    right = (pair.prediction == pair.target).reshape(-1)
    hits = np.add.reduceat(right, found.starts, dtype=np.int64)
    # bincount sums weights in float64: exact, as an image has fewer than 2**53 pixels.
    recalled = np.bincount(found.region, weights=hits, minlength=len(found.sizes)).astype(np.int64)
    valid = found.labels != pair.void
    place = (found.labels[valid], np.searchsorted(limits, found.sizes[valid], side="right"))
    for column, values in ((_REGIONS, 1), (_PIXELS, found.sizes[valid]), (_RECALLED, recalled[valid])):
        np.add.at(counts[..., column], place, values)
    return counts


def region_size_scores(
    counts: NDArray[np.int64],
    names: Sequence[str] | None = None,
    *,
    thresholds: Sequence[int] = DEFAULT_SIZE_THRESHOLDS,
) -> RegionSizeScores:
    """Turns summed counts into recall by size.

    Args:
        counts: (K, S, 3) as `region_size_counts` gives them, summed over images.
        names: One name per class; None numbers them.
        thresholds: Those that the counts were made with.

    Raises:
        InvalidValue: shapes do not fit the thresholds or the names.
    """
    limits = _limits(thresholds)
    if counts.ndim != 3 or counts.shape[1:] != (len(limits) + 1, 3):
        raise InvalidValue(f"counts of shape {counts.shape} do not fit thresholds {tuple(thresholds)}: (K, S, 3)")
    names = [f"class {k}" for k in range(len(counts))] if names is None else names
    if len(names) != len(counts):
        raise InvalidValue(f"{len(names)} class names for counts of {len(counts)} classes")
    return {
        "bins": _size_classes(counts.sum(axis=0), limits),
        "per_class": [
            {"name": str(name), "bins": _size_classes(rows, limits)} for name, rows in zip(names, counts, strict=True)
        ],
    }


def _limits(thresholds: Sequence[int]) -> list[int]:
    limits = list(thresholds)
    if any(limit < 1 for limit in limits) or any(b <= a for a, b in pairwise(limits)):
        raise InvalidValue(f"thresholds are sizes in pixels, at least 1 and rising, got {tuple(thresholds)}")
    return limits


def _size_classes(rows: NDArray[np.int64], limits: list[int]) -> list[SizeClass]:
    names = _NAMES.get(len(rows), tuple(f"size {s + 1}" for s in range(len(rows))))
    bounds = [1, *limits, None]
    return [
        {
            "name": names[s],
            "from_pixels": bounds[s] or 1,
            "to_pixels": bounds[s + 1],
            "regions": regions,
            "pixels": pixels,
            "recalled": recalled,
            "recall": recalled / pixels if pixels else math.nan,
        }
        for s, (regions, pixels, recalled) in enumerate(rows.tolist())
    ]
