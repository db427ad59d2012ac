"""Images that are there twice: equal pixel by pixel, or nearly, within a split or across splits.

Nearly equal images are sought by a perceptual hash: signs of random projections of the grey thumbnail (Charikar, STOC
2002). Images whose thumbnails correlate by 0.985 differ in 5.5 % of the signs, so that one of 16 tables of 16 signs has
both in one bucket in 99.97 of 100 cases; only buckets are compared, pair by pair. Shapes: N images, P = 16 x 16 pixels.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from perpixel.data.formats.item import listed
from perpixel.data.inspection.case import Case
from perpixel.data.inspection.collector import Collector
from perpixel.data.inspection.records import THUMBNAIL, ImageRecord

__all__ = ["alike", "most_alike_elsewhere", "note_duplicates", "repeated"]

_TABLES, _SIGNS = 16, 16
_ALIKE = 0.985
_SIMILAR = 0.97
_CLOSER = 0.001
_LEAST_CONTRAST = 3.0
_BLOCK, _WIDE_BLOCK = 256, 2048


def note_duplicates(cases: Sequence[Case], found: Collector) -> dict[str, str]:
    """Notes equal and nearly equal images.

    Returns:
        Image file -> the equal one that stays, for files that --fix leaves out.
    """
    spare: dict[str, str] = {}
    for same in repeated(cases, _digest):
        group = {case.pair.image_file: case for case in same}
        files = list(group)
        if len(files) < 2:
            continue
        splits = {case.pair.split for case in group.values()}
        found.add("leaked_image" if len(splits) > 1 else "duplicate_image", files, " = ".join(files[:3]))
        kept = next((f for f in files if not group[f].pair.split.startswith("train")), files[0])
        spare |= {f: kept for f in files if f != kept and (len(splits) == 1 or group[f].pair.split.startswith("train"))}
    _note_near(cases, found)
    return spare


def repeated(cases: Sequence[Case], digest: Callable[[Case], bytes | None]) -> list[list[Case]]:
    """Groups cases with equal digests, two or more each, in their order; those without a digest are passed over.

    Eight bytes of each are kept to find the digests that occur again.
    """
    places, beginnings = array("q"), array("Q")
    for place, case in enumerate(cases):
        known = digest(case)
        if known is not None:
            places.append(place)
            beginnings.append(int.from_bytes(known[:8], "little"))
    keys = np.frombuffer(beginnings, dtype=np.uint64) if beginnings else np.zeros(0, dtype=np.uint64)
    values, counts = np.unique(keys, return_counts=True)
    again = np.flatnonzero(np.isin(keys, values[counts > 1])).tolist()
    groups: dict[bytes | None, list[Case]] = {}
    for case in (cases[places[number]] for number in again):
        groups.setdefault(digest(case), []).append(case)
    return [group for group in groups.values() if len(group) > 1]


def alike(first: ImageRecord | None, second: ImageRecord | None) -> bool:
    """Tells whether two images are equal or similar enough to share a mask."""
    if first is None or second is None or not (first.thumbnail and second.thumbnail):
        return False
    a, b = (_normalised(np.frombuffer(record.thumbnail, dtype=np.uint8)[None]) for record in (first, second))
    return first.digest == second.digest or float((a @ b.T)[0, 0]) >= _SIMILAR


def most_alike_elsewhere(
    thumbnails: NDArray[np.uint8], splits: NDArray[np.int64], *, mirrored: bool = False
) -> list[tuple[int, int, float]]:
    """Finds the images of other splits that are most alike, where their correlation is 0.985 or more.

    Of a chain of neighbouring video frames only the closest are given: a pair is left out when one of the two has a
    partner that is closer by more than 0.001.

    Args:
        thumbnails: (N, P) luminance.
        splits: (N,) number of the split of each.
        mirrored: Compares with the mirror images of the others.

    Returns:
        (image, other image, correlation), each pair once.
    """
    others = thumbnails.reshape(-1, THUMBNAIL, THUMBNAIL)[:, :, ::-1] if mirrored else thumbnails
    best = np.zeros(len(thumbnails), dtype=np.float32)
    partner = np.full(len(thumbnails), -1)
    planes = np.random.default_rng(0).normal(size=(_TABLES, thumbnails.shape[1], _SIGNS)).astype(np.float32)
    table = _codes(thumbnails, planes)
    other_table = _codes(others, planes) if mirrored else table
    for codes, other_codes in zip(table.T, other_table.T, strict=True):
        for left, right in _buckets(codes, other_codes, splits):
            for rows, columns in product(_parts(left, _BLOCK), _parts(right, _WIDE_BLOCK)):
                similar = _normalised(thumbnails[rows]) @ _normalised(others[columns]).T
                similar[splits[rows][:, None] == splits[columns][None]] = 0
                place = similar.argmax(1)
                value = similar[np.arange(len(rows)), place]
                better = value > best[rows]
                best[rows[better]], partner[rows[better]] = value[better], columns[place[better]]
    pairs: dict[tuple[int, ...], float] = {}
    closest = best >= np.maximum(_ALIKE, best[partner] - _CLOSER)
    for index in np.flatnonzero(closest & (partner >= 0)).tolist():
        pairs.setdefault(tuple(sorted((index, int(partner[index])))), float(best[index]))
    return [(pair[0], pair[1], value) for pair, value in pairs.items()]


def _codes(thumbnails: NDArray[np.uint8], planes: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Returns the signs of all tables (N, tables): some thumbnails at a time, whose vectors are 4 times their size."""
    weights = 1 << np.arange(_SIGNS)
    codes = np.zeros((len(thumbnails), len(planes)), dtype=np.uint16)
    for start in range(0, len(thumbnails), _BLOCK):
        vectors = _normalised(thumbnails[start : start + _BLOCK])
        for number, plane in enumerate(planes):
            codes[start : start + _BLOCK, number] = (vectors @ plane > 0) @ weights
    return codes


def _buckets(
    codes: NDArray[np.uint16], others: NDArray[np.uint16], splits: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yields the images of each code that occurs on both sides, where they are of several splits."""
    order, other_order = np.argsort(codes, kind="stable"), np.argsort(others, kind="stable")
    values = np.intersect1d(codes, others)
    ends = [np.searchsorted(codes[order], values, side) for side in ("left", "right")]
    other_ends = [np.searchsorted(others[other_order], values, side) for side in ("left", "right")]
    for a, b, c, d in zip(*ends, *other_ends, strict=True):
        left, right = order[a:b], other_order[c:d]
        if np.unique(splits[np.concatenate([left, right])]).size > 1:
            yield left, right


def _parts(places: NDArray[np.intp], length: int) -> list[NDArray[np.intp]]:
    return [places[start : start + length] for start in range(0, len(places), length)]


def _normalised(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Brings thumbnails (N, P) or (N, T, T) to vectors of mean 0 and length 1; those without contrast to length 0."""
    vectors = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    vectors -= vectors.mean(1, keepdims=True)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    flat = length < _LEAST_CONTRAST * vectors.shape[1] ** 0.5
    scaled: NDArray[np.float32] = np.where(flat, 0, vectors / np.maximum(length, 1e-6)).astype(np.float32)
    return scaled


def _digest(case: Case) -> bytes | None:
    image = case.image
    return None if image is None or image.problem is not None or image.blank else image.digest


def _note_near(cases: Sequence[Case], found: Collector) -> None:
    if len({case.pair.split for case in cases}) < 2:
        return
    chosen: list[Case] = []
    thumbnails = np.empty((len(cases), THUMBNAIL * THUMBNAIL), dtype=np.uint8)
    for case in cases:
        if case.image is not None and case.image.thumbnail and not case.image.blank:
            thumbnails[len(chosen)] = np.frombuffer(case.image.thumbnail, dtype=np.uint8)
            chosen.append(case)
    names = sorted({case.pair.split for case in chosen})
    if len(names) < 2:
        return
    thumbnails = thumbnails[: len(chosen)]
    splits = np.array([names.index(case.pair.split) for case in chosen])
    told: set[tuple[int, int]] = set()
    for mirrored in (False, True):
        for first, second, value in most_alike_elsewhere(thumbnails, splits, mirrored=mirrored):
            a, b = chosen[first], chosen[second]
            equal = a.image is not None and b.image is not None and a.image.digest == b.image.digest
            if equal or (first, second) in told:
                continue
            told.add((first, second))
            files = (a.pair.image_file, b.pair.image_file)
            word = "mirrored, " if mirrored else ""
            found.add("near_duplicate", files, f"{listed(files)} ({word}correlation {value:.3f})")
