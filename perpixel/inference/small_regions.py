"""Connected regions of a label map that are too small to stand, given to what surrounds them.

Shapes: K classes, H W image.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from perpixel.errors import InvalidValue

__all__ = ["Connectivity", "remove_small_regions"]

Connectivity = Literal[4, 8]


def remove_small_regions(
    labels: NDArray[Any],
    min_pixels: int,
    *,
    connectivity: Connectivity = 4,
    scores: NDArray[Any] | None = None,
    ignore_index: int = 255,
) -> NDArray[Any]:
    """Gives every connected region of fewer than ``min_pixels`` pixels the class of its surroundings.

    The smallest region goes first (of equal ones that whose first pixel comes first, row by row) and melts into the
    neighbours whose class it takes, which may make them large enough. It takes the most frequent class among the
    pixels that touch it, each counted once, of equally frequent ones the lowest; or, where scores are given, that one
    of these classes whose scores over the region have the highest sum. Pixels of ``ignore_index`` are no region and
    have no say; a region that touches nothing else stays. Applying it again changes nothing.

    Args:
        labels: Classes (H, W), integers >= 0.
        min_pixels: Least size that stays, at least 1; 1 changes nothing.
        connectivity: 4 joins pixels by their sides, 8 by their corners too; it says as well which pixels touch.
        scores: Scores or probabilities (K, H, W), finite; None counts pixels.
        ignore_index: Value of pixels without a class.

    Returns:
        A new array of the same type.

    Raises:
        InvalidValue: an argument has another shape, type or range, or scores are not finite.
    """
    _check(labels, min_pixels, connectivity, scores, ignore_index)
    if min_pixels == 1 or labels.size == 0:
        return labels.copy()
    return _Regions(labels, min_pixels, connectivity, scores, ignore_index).cleaned()


class _Regions:
    """The regions of a label map as a forest: small ones know their pixels, all know their size.

    Positions are indices into the map with one pixel of ``ignore_index`` around it, so that neighbours need no test.
    """

    def __init__(
        self,
        labels: NDArray[Any],
        min_pixels: int,
        connectivity: Connectivity,
        scores: NDArray[Any] | None,
        ignore_index: int,
    ) -> None:
        height, width = labels.shape
        self.shape = (height + 2, width + 2)
        self.dtype = labels.dtype
        self.least = min_pixels
        self.ignore = ignore_index
        padded = np.pad(labels.astype(np.int32), 1, constant_values=ignore_index)
        component, count = _components(padded, connectivity, ignore_index)
        self.label = padded.reshape(-1)
        self.component = component.reshape(-1)
        self.scores = None if scores is None else scores.reshape(scores.shape[0], -1)
        self.parent = list(range(count + 1))
        self.size = np.bincount(self.component, minlength=count + 1)
        self.offsets = _offsets(width + 2, connectivity)
        self.pixels = self._pixels_of_small()

    def cleaned(self) -> NDArray[Any]:
        heap = [(len(pixels), int(pixels[0]), region) for region, pixels in self.pixels.items()]
        heapify(heap)
        while heap:
            size, _, region = heappop(heap)
            if region not in self.pixels or len(self.pixels[region]) != size:
                continue  # melted into another one meanwhile
            own = self.pixels.pop(region)
            around = self._around(own)
            if not around.size:
                continue
            merged = self._melt(region, own, around)
            if merged is not None:
                heappush(heap, (len(self.pixels[merged]), int(self.pixels[merged][0]), merged))
        inner = self.label.reshape(self.shape)[1:-1, 1:-1]
        return np.ascontiguousarray(inner.astype(self.dtype))

    def _pixels_of_small(self) -> dict[int, NDArray[np.intp]]:
        small = self.size < self.least
        small[0] = False  # pixels without a class
        found = np.flatnonzero(small[self.component])
        found = found[np.argsort(self.component[found], kind="stable")]
        regions = np.flatnonzero(small)
        parts = np.split(found, np.cumsum(self.size[regions])[:-1]) if len(regions) else []
        return {int(region): part for region, part in zip(regions, parts, strict=True)}

    def _around(self, own: NDArray[np.intp]) -> NDArray[np.intp]:
        """Returns the pixels of other classes that touch a region, each once."""
        around = np.unique((own[:, None] + self.offsets).reshape(-1))
        label = self.label[around]
        outer: NDArray[np.intp] = around[(label != self.label[own[0]]) & (label != self.ignore)]
        return outer

    def _melt(self, region: int, own: NDArray[np.intp], around: NDArray[np.intp]) -> int | None:
        """Gives a region its new class and joins it with its neighbours; returns it if it is still small."""
        taken = self._choice(own, around)
        touching = around[self.label[around] == taken]
        self.label[own] = taken
        roots = {self._root(int(component)) for component in np.unique(self.component[touching])}
        total = len(own) + sum(int(self.size[root]) for root in roots)
        parts = [self.pixels.pop(root) for root in roots if root in self.pixels]
        merged = max(roots, key=lambda root: (int(self.size[root]), root))
        for other in (*roots, region):
            self.parent[other] = merged
        self.size[merged] = total
        if total >= self.least:
            return None
        self.pixels[merged] = np.sort(np.concatenate([own, *parts]))
        return merged

    def _choice(self, own: NDArray[np.intp], around: NDArray[np.intp]) -> int:
        counts = np.bincount(self.label[around])
        if self.scores is None:
            return int(np.argmax(counts))
        rows, columns = np.divmod(own, self.shape[1])
        inner = (rows - 1) * (self.shape[1] - 2) + columns - 1
        classes = np.flatnonzero(counts)
        sums = self.scores[classes][:, inner].sum(axis=1, dtype=np.float64)
        return int(classes[np.argmax(sums)])

    def _root(self, region: int) -> int:
        while self.parent[region] != region:
            self.parent[region] = self.parent[self.parent[region]]
            region = self.parent[region]
        return region


def _components(padded: NDArray[np.int32], connectivity: int, ignore_index: int) -> tuple[NDArray[np.int32], int]:
    """Numbers the connected regions of equal class from 1; 0 is ``ignore_index``."""
    structure = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    component = np.zeros(padded.shape, dtype=np.int32)
    count = 0
    for value in np.flatnonzero(np.bincount(padded.reshape(-1))):
        if value == ignore_index:
            continue
        mask = padded == value
        found, number = ndimage.label(mask, structure)
        component[mask] = found[mask] + count
        count += int(number)
    return component, count


def _offsets(width: int, connectivity: int) -> NDArray[np.intp]:
    sides = [-width, -1, 1, width]
    corners = [-width - 1, -width + 1, width - 1, width + 1] if connectivity == 8 else []
    return np.array(sides + corners, dtype=np.intp)


def _check(
    labels: NDArray[Any], min_pixels: int, connectivity: int, scores: NDArray[Any] | None, ignore_index: int
) -> None:
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise InvalidValue(f"labels are whole numbers (H, W), got {labels.shape} {labels.dtype}")
    if labels.size and int(labels.min()) < 0:
        raise InvalidValue(f"labels are class numbers >= 0, got {int(labels.min())}")
    if min_pixels < 1:
        raise InvalidValue(f"min_pixels is at least 1, got {min_pixels}; 1 changes nothing")
    if connectivity not in get_args(Connectivity):
        raise InvalidValue(f"connectivity is 4 or 8, got {connectivity!r}")
    if ignore_index < 0:
        raise InvalidValue(f"ignore_index is a label >= 0, got {ignore_index}")
    if scores is None:
        return
    if scores.ndim != 3 or scores.shape[1:] != labels.shape or scores.dtype.kind != "f":
        raise InvalidValue(f"scores are floats (K, H, W) of labels {labels.shape}, got {scores.shape} {scores.dtype}")
    known = labels[labels != ignore_index]
    if known.size and int(known.max()) >= scores.shape[0]:
        raise InvalidValue(f"label {int(known.max())} has no scores; they are of {scores.shape[0]} classes")
    if not np.isfinite(scores).all():
        raise InvalidValue(f"{int((~np.isfinite(scores)).sum())} scores are not finite; look at what made them")
