"""Masks whose ids do not fit the label space or the other masks, and how each of them can be read all the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.data.formats.item import listed
from perpixel.data.inspection.case import Case
from perpixel.data.inspection.collector import Collector
from perpixel.data.inspection.encodings import covered_by, named_colors
from perpixel.data.inspection.known_ids import INSTANCE_DIVISORS, Known
from perpixel.data.inspection.places import Places, grid_ids, upside_down

__all__ = ["note_color_masks", "note_ids", "shift_of_all"]

_IGNORED = 255
_BINARY = frozenset({0, 255})
_RARE = 0.2
_LEAST_FOREGROUND = 0.01
_LEAST_GAIN = 0.8
"""By how many nats per point a shift must explain a mask better: on CamVid 1.6 where it is true, -1.6 where not."""
_LEAST_GAIN_TURNED = 1.5
_FEW_IDS = 3
_COVERED = 0.95


def note_color_masks(cases: Sequence[Case], known: Known, found: Collector, *, colors: bool) -> None:
    """Marks masks that hold colours among ids, or ids among colours."""
    for case in cases:
        mask = case.mask
        if case.fault is not None or mask is None or mask.problem is not None or mask.stored is None:
            continue
        if colors and not mask.colors and mask.distinct > 1 and mask.stored.mode in ("L", "P", "1"):
            _mark(case, found, "mixed_encoding", f"{case.mask_file}: ids {listed(sorted(case.ids), 6)} among colours")
            case.mend = {"as": "ids"}
        elif not colors and mask.colors:
            _mark(case, found, "mixed_encoding", f"{case.mask_file}: colours {named_colors(mask)} among class ids")
            if known.labels is not None and covered_by(mask, known.labels) >= _COVERED:
                case.mend = {"as": "colors"}


def shift_of_all(cases: Sequence[Case], known: Known) -> int:
    """Returns by how much all ids lie above those of the label space; 0 where they fit, or a shift does not help."""
    masks = [case for case in cases if case.ids and case.fault is None]
    union = frozenset({i for case in masks for i in case.ids})
    if not masks or not known.stored or union <= known.stored:
        return 0
    outside = sum(not known.stored.issuperset(case.ids) for case in masks)
    for shift in (1, -1):
        moved = {i - shift for i in union - {_IGNORED}} | (union & {_IGNORED})
        if known.stored.issuperset(moved) and 2 * outside > len(masks):
            return shift
    return 0


def note_ids(cases: Sequence[Case], known: Known, found: Collector) -> None:
    """Marks masks whose ids are outside the label space, shifted, multiplied, binary, instance numbers or misplaced."""
    masks = [case for case in cases if case.ids and case.fault is None]
    if known.labels is None:
        return
    binary = [case for case in masks if set(case.ids) == _BINARY or set(case.ids) == {_IGNORED}]
    if known.num_classes > 1 and known.ignored >= {_IGNORED} and masks and len(binary) > 0.8 * len(masks):
        for case in binary:
            _mark(case, found, "foreground_ignored", "")
        return
    rare = len(binary) < _RARE * len(masks) or not known.stored >= _BINARY
    sound = [case for case in masks if known.stored.issuperset(case.ids)]
    values = sorted(known.stored & {i for case in sound for i in case.ids} or {0})
    places = Places((case.mask.grid for case in sound if case.mask is not None), values)
    places.void = sum(_IGNORED in case.ids for case in sound) > 1
    inside = set(map(id, sound))
    for case in masks:
        ids = frozenset(case.ids)
        if case.mask_stored is not None and case.mask_stored.mode == "1" and known.num_classes > 2:
            _mark(case, found, "mixed_encoding", f"{case.mask_file}: one bit per pixel among class ids")
        elif known.num_classes > 2 and rare and ids == _BINARY and _foreground(case) >= _LEAST_FOREGROUND:
            _mark(case, found, "binary_mask", f"{case.mask_file}: {100 * _foreground(case):.0f} % are 255")
        elif id(case) in inside:
            _note_misplaced(case, places, known, found)
        else:
            _note_outside(case, ids, places, known, found)


def _note_outside(case: Case, ids: frozenset[int], places: Places, known: Known, found: Collector) -> None:
    """Explains ids outside the label space by the first simple rule that brings them inside."""
    assert case.mask is not None
    outside = sorted(ids - known.stored)
    said = f"{case.mask_file}: ids {listed(sorted(ids), 8)}"
    table = _multiplied(ids, known)
    shift = _shifted(case, ids, places, known)
    divisor = next((k for k in INSTANCE_DIVISORS if _are_instances(ids, k, known)), None)
    if table is not None:
        case.mend = {"ids": table}
        _mark(case, found, "scaled_mask", said)
    elif shift:
        case.mend = _unshifted(ids, shift, places, known)
        _mark(case, found, "off_by_one", f"{said}: one {'more' if shift > 0 else 'less'} than the others")
    elif divisor is not None:
        case.mend = {"divide": divisor}
        _mark(case, found, "instance_mask", f"{said}; the class is the number divided by {divisor}")
    else:
        pixels = case.ids
        parts = listed([f"{i} on {pixels[i]} pixels" for i in outside], 4)
        _mark(case, found, "unknown_ids", f"{case.mask_file}: {parts}")


def _note_misplaced(case: Case, places: Places, known: Known, found: Collector) -> None:
    """Masks whose ids are all known, and lie where a shift of ids or a half turn explains them far better."""
    assert case.mask is not None
    ids = frozenset(case.ids) - known.ignored
    if not places.tell or len(ids) < _FEW_IDS:
        return
    own = grid_ids(case.mask.grid)
    as_is = places.fit(own, own=own)
    gains = {shift: places.fit(_moved(own, shift, known), own=own) - as_is for shift in (1, -1)}
    shift = max(gains, key=lambda key: gains[key].mean())
    gain = gains[shift]
    # One class that is frequent everywhere must not explain a shift by itself.
    better = sum(gain[own == i].mean() > _LEAST_GAIN / 2 for i in ids if (own == i).any())
    turned = float((places.fit(upside_down(own), own=own) - as_is).mean())
    if gain.mean() >= max(_LEAST_GAIN, turned) and len(ids) > _FEW_IDS and better >= _FEW_IDS:
        case.mend = _unshifted(frozenset(case.ids), shift, places, known)
        said = f"the classes lie where those of ids one {'less' if shift > 0 else 'more'} lie in the other masks"
        _mark(case, found, "off_by_one", f"{case.mask_file}: {said}")
    elif turned >= _LEAST_GAIN_TURNED:
        found.add("turned_mask", case.mask_file)


def _unshifted(ids: frozenset[int], shift: int, places: Places, known: Known) -> dict[str, Any] | None:
    """Returns what shifted ids mean; None where one of them then means nothing, so that the mask is left out.

    255 is what 0 becomes in a file of bytes, unless masks beyond doubt hold it too.
    """
    void = places.void
    table = {i: i if void and i == _IGNORED else (i - shift) % 256 for i in sorted(ids)}
    return {"ids": table} if known.stored.issuperset(table.values()) else None


def _shifted(case: Case, ids: frozenset[int], places: Places, known: Known) -> int:
    """Returns by how much the ids lie above what they should be: 1, -1, or 0 where a shift does not explain them."""
    assert case.mask is not None
    grid = grid_ids(case.mask.grid)
    for shift in (1, -1):
        moved = {(i - shift) % 256 for i in ids} if _IGNORED not in known.stored else {i - shift for i in ids - {255}}
        if len(ids) < _FEW_IDS or not known.stored.issuperset(moved):
            continue
        gain = places.fit(_moved(grid, shift, known)) - places.fit(grid)
        if places.tell and gain.mean() < _LEAST_GAIN / 2:
            continue
        return shift
    return 0


def _moved(grid: NDArray[np.int64], shift: int, known: Known) -> NDArray[np.int64]:
    """Shifts ids down; 255 stays where it is an id of the label space."""
    moved = grid - shift
    return np.where(grid == _IGNORED, grid, moved) if _IGNORED in known.stored else moved % 256


def _multiplied(ids: frozenset[int], known: Known) -> dict[int, int] | None:
    """Returns how ids that were multiplied or stretched over 0..255 become those of the label space."""
    if max(ids) > _IGNORED and known.stored.issuperset(i / 256 for i in ids):
        return {i: i // 256 for i in sorted(ids)}  # bytes written as the upper half of 16 bits
    if len(ids - {0}) < _FEW_IDS:
        return None
    highest = max(known.stored - {_IGNORED})
    for factor in range(2, 1 + min(ids - {0})):
        if all(i % factor == 0 for i in ids) and known.stored.issuperset(i // factor for i in ids):
            return {i: i // factor for i in sorted(ids)} if factor > _FEW_IDS or len(ids) > _FEW_IDS else None
    for count in (highest, known.num_classes - 1, known.num_classes):
        for step in (round, int):
            table = {step(k * 255 / max(count, 1)): k for k in range(count + 1)}
            if ids <= set(table) and known.stored.issuperset(table[i] for i in ids):
                return {i: table[i] for i in sorted(ids)}
    return None


def _are_instances(ids: frozenset[int], divisor: int, known: Known) -> bool:
    high = [i for i in ids if i >= divisor]
    # 65535 is void in 16 bits, and no instance of what 255 means: some numbers must be of classes.
    of_classes = any(i // divisor in known.classes for i in high)
    return of_classes and all((i // divisor if i >= divisor else i) in known.stored for i in ids)


def _foreground(case: Case) -> float:
    pixels = case.ids
    return pixels.get(_IGNORED, 0) / max(1, sum(pixels.values()))


def _mark(case: Case, found: Collector, kind: str, detail: str) -> None:
    case.fault = kind
    found.add(kind, case.mask_file, detail)
