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
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from perpixel.errors import InvalidValue
from perpixel.metrics.confusion import refuse_bad_labels

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
    prediction: NDArray[Any],
    target: NDArray[Any],
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
        InvalidValue: shapes differ or are not (H, W), a label is out of range, thresholds do not rise, or the
            connectivity is another.

    Example:
        >>> target = np.array([[1, 1, 0, 1]])
        >>> region_size_counts(np.array([[1, 0, 0, 1]]), target, 2, thresholds=(2,)).tolist()
        [[[1, 1, 1], [0, 0, 0]], [[1, 1, 1], [1, 2, 1]]]
    """
    limits = _limits(thresholds)
    if connectivity not in (4, 8):
        raise InvalidValue(f"connectivity is 4 or 8, got {connectivity}")
    if prediction.shape != target.shape or target.ndim != 2:
        raise InvalidValue(f"prediction {prediction.shape} and target {target.shape} must share one shape (H, W)")
    refuse_bad_labels(prediction, target, num_classes, ignore_index=ignore_index)
    counts = np.zeros((num_classes, len(limits) + 1, 3), dtype=np.int64)
    truth = np.where(target == ignore_index, num_classes, target)
    labels, sizes, recalled = _regions(truth, prediction == target, connectivity)
    valid = labels != num_classes
    place = (labels[valid], np.searchsorted(limits, sizes[valid], side="right"))
    for column, values in ((_REGIONS, 1), (_PIXELS, sizes[valid]), (_RECALLED, recalled[valid])):
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


def _regions(
    truth: NDArray[Any], right: NDArray[np.bool_], connectivity: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns label, size and right pixels of every region of equal labels.

    Rows are cut into runs of one label; runs that touch are joined. Two runs of one label that overlap do so from where
    one of them begins, and two that meet at a corner only, one ends where the other begins.
    """
    first = np.ones(truth.shape, dtype=bool)
    first[:, 1:] = truth[:, 1:] != truth[:, :-1]
    run = (np.cumsum(first) - 1).reshape(truth.shape)
    starts = np.flatnonzero(first)
    if not starts.size:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, empty
    touching = [(slice(None), slice(None), first[1:] | first[:-1])]
    if connectivity == 8:
        both = first[1:, 1:] & first[:-1, 1:]
        left, shifted = slice(None, -1), slice(1, None)
        touching += [(left, shifted, both), (shifted, left, both)]
    pairs = []
    for above, below, where in touching:
        chosen = where & (truth[:-1, above] == truth[1:, below])
        pairs.append(np.stack([run[:-1, above][chosen], run[1:, below][chosen]]))
    edges = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(edges.shape[1], dtype=bool), (edges[0], edges[1])), shape=(starts.size, starts.size))
    number, region = connected_components(graph, directed=False)
    lengths = np.diff(starts, append=truth.size)
    labels = np.zeros(number, dtype=np.int64)
    labels[region] = truth.reshape(-1)[starts]
    # bincount sums weights in float64: exact, as an image has fewer than 2**53 pixels.
    hits = np.add.reduceat(right.reshape(-1), starts, dtype=np.int64)
    sizes, recalled = (np.bincount(region, weights=w, minlength=number).astype(np.int64) for w in (lengths, hits))
    return labels, sizes, recalled


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
