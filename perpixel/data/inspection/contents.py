"""What masks hold: nothing, one class, the mask of another image; and which classes are missing, rare or thin.

Shapes: K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from perpixel.data.formats.item import listed
from perpixel.data.inspection.case import Case
from perpixel.data.inspection.collector import Collector
from perpixel.data.inspection.duplicates import alike, repeated
from perpixel.data.inspection.encodings import color_table
from perpixel.data.inspection.known_ids import Known
from perpixel.labels import LabelSpace

__all__ = ["class_pixels", "note_contents"]

_RARE_MASKS = 0.2
_RARE_CLASS = 0.01
_THIN = 0.5
_LEAST_REGIONS = 10
_LISTED_CLASSES = 12
_SPECKLED, _LEAST_SPECKLES = 20, 500
"""So many times the usual regions, and at least so many: CamVid's masks have up to 8.6 times the usual."""


def note_contents(
    cases: Sequence[Case], known: Known, found: Collector, *, stride: int, size: tuple[int, int] | None
) -> None:
    """Notes empty, ignored and repeated masks, and classes that are missing, rare or lost at the network's stride.

    Args:
        cases: All pairs; masks with another fault are passed over.
        known: The ids that count.
        found: Takes the findings.
        stride: Of the score map, pixels of the training image.
        size: Height and width of the training image; None is the image's own.
    """
    _note_same_masks(cases, found)
    _note_speckles(cases, found)
    labels = known.labels
    if labels is None:
        return
    per_split: dict[str, Counter[int]] = {}
    ignored: list[Case] = []
    single: list[tuple[Case, int]] = []
    sound: list[Case] = []
    for case in cases:
        pixels = class_pixels(case, labels)
        if pixels is None:
            continue
        sound.append(case)
        per_split.setdefault(case.pair.split, Counter()).update(pixels)
        classes = [k for k in pixels if k != labels.ignore_index]
        if not classes:
            ignored.append(case)
        elif len(classes) == 1:
            single.append((case, classes[0]))
    for case in ignored:
        found.add("all_ignored", case.mask_file)
    _note_empty(single, len(sound), labels, found)
    _note_missing(per_split, labels, found)
    _note_rare(per_split, labels, found)
    _note_thin(sound, labels, found, stride, size)


def class_pixels(case: Case, labels: LabelSpace) -> dict[int, int] | None:
    """Returns train id (255 ignored) -> pixels of a mask without fault; None for others."""
    mask = case.mask
    if mask is None or mask.problem is not None or case.fault is not None:
        return None
    table: Mapping[int, int] = labels.stored_to_train
    stored = mask.counts
    if mask.colors:
        table, stored = color_table(labels) or {}, mask.colors
    pixels: Counter[int] = Counter()
    for value, count in stored:
        if value not in table:
            return None
        pixels[table[value]] += count
    return dict(pixels)


def _note_empty(single: Sequence[tuple[Case, int]], masks: int, labels: LabelSpace, found: Collector) -> None:
    """Notes masks of one class, with that class; many of them are no surprise."""
    if not single or labels.num_classes < 2:
        return
    usual = labels.num_classes == 2 or len(single) > _RARE_MASKS * masks
    which = Counter(labels.names[k] for _, k in single)
    said = listed([f"{count} hold only {name!r}" for name, count in which.most_common()], 4)
    found.make(
        "empty_mask",
        [case.mask_file for case, _ in single],
        f"{len(single)} of {masks} masks hold one class only: {said}",
        severity="note" if usual else None,
    )


def _note_same_masks(cases: Sequence[Case], found: Collector) -> None:
    for group in repeated(cases, _digest):
        first = group[0]
        others = [c for c in group[1:] if c.pair.mask_file != first.pair.mask_file and not alike(first.image, c.image)]
        if others:
            files = [case.mask_file for case in (first, *others)]
            found.add("same_mask", files, listed(files, 3))


def _digest(case: Case) -> bytes | None:
    mask = case.mask
    return None if mask is None or mask.problem is not None or mask.distinct < 2 or case.image is None else mask.digest


def _note_speckles(cases: Sequence[Case], found: Collector) -> None:
    """Notes the few masks with many times the regions of the others."""
    sound = [case for case in cases if case.fault is None and case.mask is not None and case.mask.packed_regions]
    regions = [sum(row[1] for row in case.mask.regions) for case in sound if case.mask is not None]
    usual = sorted(regions)[len(regions) // 2] if regions else 0
    least = max(_LEAST_SPECKLES, _SPECKLED * usual)
    speckled = [(case, count) for case, count in zip(sound, regions, strict=True) if count > least]
    for case, count in speckled if len(speckled) <= _RARE_MASKS * len(sound) else ():
        found.add("speckled_mask", case.mask_file, f"{case.mask_file}: {count} regions, usually {usual}")


def _note_missing(per_split: Mapping[str, Counter[int]], labels: LabelSpace, found: Collector) -> None:
    for split, pixels in per_split.items():
        absent = [name for k, name in enumerate(labels.names) if not pixels[k]]
        if not absent or len(absent) == labels.num_classes:
            continue
        learned = split.startswith("train") or split == "all"
        found.make(
            "class_missing",
            [],
            f"split {split!r} has no pixel of {len(absent)} of {labels.num_classes} classes: {listed(absent)}",
            count=len(absent),
            severity="error" if learned else "warning",
        )


def _note_rare(per_split: Mapping[str, Counter[int]], labels: LabelSpace, found: Collector) -> None:
    pixels = per_split.get("train") or sum(per_split.values(), Counter())
    total = sum(count for k, count in pixels.items() if k != labels.ignore_index)
    shares = {k: pixels[k] / total for k in range(labels.num_classes) if total and pixels[k]}
    rare = sorted((share, k) for k, share in shares.items() if share < _RARE_CLASS)
    if rare and labels.num_classes > 1:
        names = [f"{labels.names[k]} {100 * share:.2g} %" for share, k in rare]
        most = max(shares.values())
        said = f"the commonest has {100 * most:.0f} %, {most / rare[0][0]:.0f} times the rarest"
        found.make(
            "class_imbalance",
            [],
            f"{len(rare)} classes with less than 1 % of the pixels: {listed(names, _LISTED_CLASSES)}; {said}",
            count=len(rare),
        )


def _note_thin(
    cases: Sequence[Case], labels: LabelSpace, found: Collector, stride: int, size: tuple[int, int] | None
) -> None:
    totals = np.zeros((256, 2), dtype=np.int64)
    for case in cases:
        for stored, regions, missed in () if case.mask is None else case.mask.regions:
            totals[labels.stored_to_train.get(stored, labels.ignore_index)] += regions, missed
    lost = [
        (missed / regions, regions, labels.names[k])
        for k, (regions, missed) in enumerate(totals[: labels.num_classes].tolist())
        if regions >= _LEAST_REGIONS and missed > _THIN * regions
    ]
    if lost:
        names = [f"{name} {100 * share:.0f} % of {regions}" for share, regions, name in sorted(lost, reverse=True)]
        at = "their own size" if size is None else f"{size[0]} x {size[1]}"
        found.make(
            "thin_objects",
            [],
            f"at stride {stride} and {at}, more than half of the regions vanish: {listed(names, _LISTED_CLASSES)}",
            count=len(lost),
        )
