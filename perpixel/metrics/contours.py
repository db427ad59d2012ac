"""What every boundary metric starts from: a checked pair of label maps, contours of its classes, and nearest contours.

Shapes: H W image, K classes, N contour pixels. All classes are treated in one pass: a contour map holds the class of
each contour pixel, so that "a contour of the same class nearby" is a comparison of labels, not a map per class.
Void pixels are those whose target is ``ignore_index``; the truth's void is copied into the prediction, so that both
maps have the same pixels and what was predicted under void has no effect.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue
from perpixel.metrics.confusion import refuse_bad_labels
from perpixel.metrics.tensors import Tensor, host_labels

__all__ = [
    "ContourPixels",
    "LabelPair",
    "contour_mask",
    "contour_pixels",
    "edge_mask",
    "label_pairs",
    "near_contour",
    "offsets_within",
    "row_bands",
]

_MAX_CLASSES = (1 << 16) - 1
_BLOCK_BITS = 64
_COARSE_FROM_PX = 6.0
_GATHERED_AT_ONCE = 1 << 16
_BAND_PIXELS = 1 << 17

Labels = NDArray[Any]
Mask = NDArray[np.bool_]


class LabelPair(NamedTuple):
    """One image's prediction and target (H, W), unsigned, in [0, K); pixels void in the target are ``void`` in both."""

    prediction: Labels
    target: Labels
    void: int


class ContourPixels(NamedTuple):
    """Contour pixels of one map, row by row: place (N,) in the flattened padded map, class (N,), and that map itself.

    The padded map holds the class at contour pixels and ``void`` elsewhere, with a margin of ``margin`` void pixels.
    """

    place: NDArray[np.int64]
    label: Labels
    padded: Labels
    margin: int


def label_pairs(
    prediction: Labels | Tensor, target: Labels | Tensor, num_classes: int, *, ignore_index: int, batched: bool = True
) -> list[LabelPair]:
    """Returns each image's checked pair, in the smallest type that holds K, with ``void`` its largest value.

    A target that is so already is not copied: nothing is to be written into a pair.

    Args:
        prediction: Predicted train ids (H, W) or (B, H, W), in [0, K) on valid pixels, anything on others.
        target: True train ids of the same shape, each in [0, K) or equal to ``ignore_index``.
        num_classes: K, from 1 to 65535.
        ignore_index: Target value that is void; may itself lie in [0, K).
        batched: Whether (B, H, W) is accepted too.

    Raises:
        InvalidValue: K, a shape, a type or a label is not as said; the message names the values.
    """
    if not 1 <= num_classes <= _MAX_CLASSES:
        raise InvalidValue(f"num_classes must be from 1 to {_MAX_CLASSES}, got {num_classes}")
    guess, truth = host_labels(prediction, "prediction"), host_labels(target, "target")
    if guess.shape != truth.shape or truth.ndim not in ((2, 3) if batched else (2,)):
        layout = "(H, W) or (B, H, W)" if batched else "(H, W): one image at a time"
        raise InvalidValue(f"prediction {guess.shape} and target {truth.shape} must share one shape, {layout}")
    if not truth.size:
        raise InvalidValue(f"prediction and target hold no pixel: shape {truth.shape}")
    pairs = zip(guess, truth, strict=True) if truth.ndim == 3 else [(guess, truth)]
    return [_label_pair(one, other, num_classes, ignore_index) for one, other in pairs]


def contour_mask(
    labels: Labels, void: int, *, connectivity: int = 4, border_is_contour: bool = False, drop_beside_void: bool = False
) -> Mask:
    """Marks the pixels of each class that have a neighbour outside the class: the inner contours of all classes.

    Args:
        labels: Class indices (H, W); ``void`` where there is none.
        void: Value that belongs to no class; such a neighbour is outside every class.
        connectivity: 4 or 8 neighbours; with 8 the contour is thicker.
        border_is_contour: Whether pixels on the image's border have a neighbour outside.
        drop_beside_void: Leave out the pixels that have a void neighbour.

    Raises:
        InvalidValue: the connectivity is neither 4 nor 8.
    """
    if connectivity not in (4, 8):
        raise InvalidValue(f"connectivity is the number of neighbours, 4 or 8, got {connectivity}")
    contour = np.empty(labels.shape, dtype=np.bool_)
    for rows, around, inner in row_bands(labels.shape, halo=1):
        part = _contour_in(labels[around], void, connectivity, drop_beside_void=drop_beside_void)
        contour[rows] = part[inner]
    if border_is_contour:
        valid = labels != void
        if drop_beside_void:
            valid &= ~_beside(~valid, connectivity)
        for line in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
            contour[line] = valid[line]
    return contour


def edge_mask(labels: Labels, void: int) -> Mask:
    """Marks the pixels (H, W) that have a 4-neighbour of another class; void and the image's border make no edge."""
    edges = np.empty(labels.shape, dtype=np.bool_)
    for rows, around, inner in row_bands(labels.shape, halo=1):
        part = labels[around]
        valid = part != void
        found = np.zeros(part.shape, dtype=np.bool_)
        for one, other in _neighbours(4):
            differs = part[one] != part[other]
            differs &= valid[one]
            differs &= valid[other]
            found[one] |= differs
            found[other] |= differs
        edges[rows] = found[inner]
    return edges


def row_bands(shape: tuple[int, ...], halo: int = 0) -> Iterator[tuple[slice, slice, slice]]:
    """Cuts the rows of (H, W) into bands that stay in the cache, so that a chain of steps makes no map of image size.

    Yields the band's rows, the same with ``halo`` more on each side where the image has them, and where the band lies
    in the latter.
    """
    height, width = shape
    count = max(1, _BAND_PIXELS // width)
    for top in range(0, height, count):
        end = min(height, top + count)
        first = max(0, top - halo)
        yield slice(top, end), slice(first, min(height, end + halo)), slice(top - first, end - first)


def contour_pixels(labels: Labels, contour: Mask, void: int, margin: int) -> ContourPixels:
    """Returns the pixels that ``contour`` (H, W) marks in ``labels`` (H, W), with room for offsets up to ``margin``."""
    height, width = labels.shape
    padded = np.full((height + 2 * margin, width + 2 * margin), void, dtype=labels.dtype)
    index = np.flatnonzero(contour)
    label = labels.reshape(-1)[index]
    # Each row above adds both its margins to the place.
    place = index + (index // width) * (2 * margin) + margin * (padded.shape[1] + 1)
    padded.reshape(-1)[place] = label
    return ContourPixels(place, label, padded, margin)


def offsets_within(tolerance_px: float, *, strict: bool) -> NDArray[np.int64]:
    """Returns the pixel offsets (M, 2), nearest first, at a distance <= the tolerance, or < where ``strict``."""
    reach = math.floor(tolerance_px)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    distance = np.sqrt(rows * rows + columns * columns)
    order = np.argsort(distance, kind="stable")
    within = distance[order] < tolerance_px if strict else distance[order] <= tolerance_px
    offsets: NDArray[np.int64] = np.stack([rows, columns], axis=1)[order[within]]
    return offsets


def near_contour(pixels: ContourPixels, other: ContourPixels, offsets: NDArray[np.int64]) -> Mask:
    """Tells for each contour pixel (N,) whether the other map has a contour pixel of its class at one of the offsets.

    Where the offsets reach far, blocks of pixels settle most of it: a class that occurs in a block wholly within reach
    is found, one that occurs in no block within reach is not, and only the rest is searched pixel by pixel.

    Args:
        pixels: Contour pixels of one map.
        other: Those of the other map of the same image, padded alike.
        offsets: Rows and columns (M, 2) of a disc, (0, 0) among them, at most ``margin`` each.
    """
    found: Mask = other.padded.reshape(-1)[pixels.place] == pixels.label
    rest = np.flatnonzero(~found)
    offsets = offsets[offsets.any(axis=1)]
    reach = math.sqrt(float((offsets * offsets).sum(axis=1).max(initial=0)))
    if reach >= _COARSE_FROM_PX and rest.size:
        size = 1 << max(1, int(math.log2(reach / 4)))
        surely, possibly = _block_reach(offsets, size)
        blocks = _Blocks(other, size)
        sure = blocks.hold(surely, pixels, rest)
        found[rest[sure]] = True
        rest = rest[~sure]
        rest = rest[blocks.hold(possibly, pixels, rest)]
        offsets = offsets[~_between_blocks(offsets, surely, size)]
    steps = offsets[:, 0] * other.padded.shape[1] + offsets[:, 1]
    _search(found, rest, pixels, other, steps)
    return found


def _label_pair(guess: Labels, truth: Labels, num_classes: int, ignore_index: int) -> LabelPair:
    dtype = np.min_scalar_type(num_classes)
    void = int(np.iinfo(dtype).max)
    as_it_is = truth.dtype == dtype and ignore_index == void
    prediction, target = np.empty(truth.shape, dtype), truth if as_it_is else np.empty(truth.shape, dtype)
    for rows, _, _ in row_bands(truth.shape):
        is_void = truth[rows] == ignore_index
        for labels in (truth[rows], guess[rows]):
            outside = labels >= num_classes
            if labels.dtype.kind == "i":
                outside |= labels < 0
            if np.greater(outside, is_void).any():
                refuse_bad_labels(guess, truth, num_classes, ignore_index=ignore_index)
        all_bits = np.negative(is_void.astype(dtype))
        np.bitwise_or(guess[rows].astype(dtype, copy=False), all_bits, out=prediction[rows])
        if not as_it_is:
            np.bitwise_or(truth[rows].astype(dtype, copy=False), all_bits, out=target[rows])
    return LabelPair(prediction, target, void)


def _contour_in(labels: Labels, void: int, connectivity: int, *, drop_beside_void: bool) -> Mask:
    contour = np.zeros(labels.shape, dtype=np.bool_)
    for one, other in _neighbours(connectivity):
        differs = labels[one] != labels[other]
        contour[one] |= differs
        contour[other] |= differs
    is_void = labels == void
    contour &= ~is_void
    if drop_beside_void and is_void.any():
        contour &= ~_beside(is_void, connectivity)
    return contour


def _beside(mask: Mask, connectivity: int) -> Mask:
    """Marks the pixels that have a marked neighbour."""
    beside = np.zeros(mask.shape, dtype=np.bool_)
    for one, other in _neighbours(connectivity):
        beside[one] |= mask[other]
        beside[other] |= mask[one]
    return beside


def _neighbours(connectivity: int) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Slices of a map and of itself moved, one per pair of opposite neighbours."""
    whole, first, second = slice(None), slice(None, -1), slice(1, None)
    pairs = [((whole, first), (whole, second)), ((first, whole), (second, whole))]
    if connectivity == 8:
        pairs += [((first, first), (second, second)), ((first, second), (second, first))]
    return pairs


def _block_reach(offsets: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Steps between blocks (M, 2): those whose pixels are all within reach of each other, those of which some are."""
    reach = int(np.abs(offsets).max())
    within = np.zeros((2 * reach + 2 * size + 1,) * 2, dtype=np.bool_)
    centre = reach + size
    within[centre, centre] = True
    within[centre + offsets[:, 0], centre + offsets[:, 1]] = True
    far = reach // size + 1
    surely, possibly = [], []
    for down in range(-far, far + 1):
        for right in range(-far, far + 1):
            top, left = centre + down * size, centre + right * size
            # Offsets between a pixel of one block and a pixel of the other differ by up to size - 1 either way.
            rows = slice(max(0, top - size + 1), max(0, top + size))
            columns = slice(max(0, left - size + 1), max(0, left + size))
            part = within[rows, columns]
            if part.any():
                possibly.append((down, right))
            if part.size == (2 * size - 1) ** 2 and part.all():
                surely.append((down, right))
    return np.array(surely, dtype=np.int64).reshape(-1, 2), np.array(possibly, dtype=np.int64).reshape(-1, 2)


def _between_blocks(offsets: NDArray[np.int64], steps: NDArray[np.int64], size: int) -> Mask:
    """Marks the offsets (M,) that lead from any pixel of a block into a block that is one of the steps away."""
    far = int(np.abs(offsets).max()) // size + 2
    listed = np.zeros((2 * far + 1,) * 2, dtype=np.bool_)
    listed[far + steps[:, 0], far + steps[:, 1]] = True
    low, high = offsets // size + far, -(-offsets // size) + far
    inside: Mask = listed[low[:, 0], low[:, 1]] & listed[low[:, 0], high[:, 1]]
    inside &= listed[high[:, 0], low[:, 1]] & listed[high[:, 0], high[:, 1]]
    return inside


class _Blocks:
    """Which classes have contour pixels in each block of size x size pixels: 64 classes to a word of bits."""

    def __init__(self, pixels: ContourPixels, size: int) -> None:
        num_classes = int(pixels.label.max(initial=0)) + 1
        height, width = pixels.padded.shape
        self._shift, self._padded_width = size.bit_length() - 1, width
        self._shape = (-(-height // size), -(-width // size))
        self._word = np.dtype(np.uint32 if num_classes <= 32 else np.uint64)
        self._words = [np.zeros(self._shape, dtype=self._word) for _ in range(-(-num_classes // _BLOCK_BITS))]
        block = self._block(pixels.place)
        for index, word in enumerate(self._words):
            chosen = pixels.label // _BLOCK_BITS == index if len(self._words) > 1 else slice(None)
            bits = self._word.type(1) << (pixels.label[chosen] % _BLOCK_BITS).astype(self._word)
            np.bitwise_or.at(word.reshape(-1), block[chosen], bits)

    def _block(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        row = place // self._padded_width
        column = place - row * self._padded_width
        block: NDArray[np.int64] = (row >> self._shift) * self._shape[1] + (column >> self._shift)
        return block

    def hold(self, steps: NDArray[np.int64], pixels: ContourPixels, chosen: NDArray[np.int64]) -> Mask:
        """Tells for each chosen pixel whether a block that is one of the steps away holds its class."""
        place, label = self._block(pixels.place[chosen]), pixels.label[chosen]
        held = np.zeros(chosen.shape, dtype=np.bool_)
        for index, word in enumerate(self._words):
            grown = _grow(word, steps).reshape(-1)
            mine = (grown[place] >> (label % _BLOCK_BITS).astype(self._word)) & self._word.type(1)
            held |= (mine != 0) & (label // _BLOCK_BITS == index)
        return held


def _grow(words: NDArray[Any], steps: NDArray[np.int64]) -> NDArray[Any]:
    """ORs the words (h, w) that are the given steps away: rows of steps share their run of columns."""
    grown = np.zeros_like(words)
    height, width = words.shape
    spread = {0: words}
    for reach in range(1, int(np.abs(steps[:, 1]).max(initial=0)) + 1):
        wider = spread[reach - 1].copy()
        if reach < width:
            wider[:, reach:] |= words[:, :-reach]
            wider[:, :-reach] |= words[:, reach:]
        spread[reach] = wider
    for down in np.unique(steps[:, 0]).tolist():
        run = spread[int(np.abs(steps[steps[:, 0] == down, 1]).max())]
        if abs(down) < height:
            grown[max(0, -down) : height - max(0, down)] |= run[max(0, down) : height + min(0, down)]
    return grown


def _search(
    found: Mask, rest: NDArray[np.int64], pixels: ContourPixels, other: ContourPixels, steps: NDArray[np.int64]
) -> None:
    """Looks at the steps in order, several at once when few pixels are left, and drops what is found."""
    labels = other.padded.reshape(-1)
    place, label = pixels.place[rest], pixels.label[rest]
    start = 0
    while rest.size and start < len(steps):
        count = max(1, _GATHERED_AT_ONCE // rest.size)
        hit = (labels[steps[start : start + count, None] + place] == label).any(axis=0)
        found[rest[hit]] = True
        kept = ~hit
        rest, place, label = rest[kept], place[kept], label[kept]
        start += count
