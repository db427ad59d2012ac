"""What ``--fix`` writes: the pairs to leave out, and how single masks are to be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perpixel.data.inspection.case import Case
from perpixel.data.inspection.finding import Finding
from perpixel.labels import LabelSpace

__all__ = ["Mending", "label_keys", "mending_of"]

_LEFT_OUT = ("blank_image", "odd_aspect", "tiny_image", "all_ignored")
"""Kinds without a fault of the files' encoding whose pairs are left out all the same."""


@dataclass(frozen=True, kw_only=True)
class Mending:
    """The content of a mapping file; empty parts are left out of it."""

    labels: Mapping[str, Any] | None
    """Keys of a label file."""
    mask_encoding: str | None
    exclude: tuple[str, ...]
    """Image files, relative to the root of the data."""
    masks: Mapping[str, Mapping[str, Any]]
    """Mask file -> how it is to be read."""

    def to_dict(self) -> dict[str, Any]:
        """Returns what the file holds."""
        parts = {
            "labels": None if self.labels is None else dict(self.labels),
            "mask_encoding": self.mask_encoding,
            "exclude": list(self.exclude),
            "masks": {file: dict(how) for file, how in self.masks.items()},
        }
        return {key: value for key, value in parts.items() if value}


def mending_of(
    cases: Sequence[Case],
    findings: Sequence[Finding],
    spare: Mapping[str, str],
    *,
    labels: LabelSpace | None,
    colors: bool,
) -> Mending:
    """Gathers what a mapping file needs so that the data can be trained on.

    Args:
        cases: All pairs.
        findings: What was found about them.
        spare: Images that are there twice.
        labels: A label space that the file should state.
        colors: Whether masks are to be read as colours.
    """
    left_out = {file for found in findings if found.kind in _LEFT_OUT for file in found.files}
    labelled = {case.pair.split for case in cases if case.pair.mask_file is not None}
    exclude: dict[str, None] = {}
    masks: dict[str, dict[str, Any]] = {}
    faults = Counter(case.fault for case in cases)
    whole = {
        fault for fault, count in faults.items() if 2 * count > len(cases)
    }  # leaving these out would leave nothing
    for case in cases:
        lacking = not case.pair.sound and case.pair.split in labelled
        unread = any(record is not None and record.problem is not None for record in (case.image, case.mask))
        faulty = case.fault is not None and case.mend is None and case.fault not in whole
        odd = case.pair.image_file in left_out or case.mask_file in left_out
        if lacking or unread or faulty or odd or case.pair.image_file in spare:
            exclude[case.pair.image_file] = None
        elif case.mend is not None and case.pair.mask_file is not None:
            masks[case.pair.mask_file] = case.mend
    return Mending(
        labels=None if labels is None else label_keys(labels),
        mask_encoding="colors" if colors else None,
        exclude=tuple(exclude),
        masks=masks,
    )


def label_keys(labels: LabelSpace) -> dict[str, Any]:
    """Returns a label space as the keys of a label file."""
    classes = {i: labels.names[k] for i, k in labels.stored_to_train.items() if k != labels.ignore_index}
    return {
        "name": labels.name,
        "names": list(labels.names),
        "colors": [list(color) for color in labels.colors],
        "stored": classes,
        "ignore": list(labels.ignored_ids),
        "ignore_color": list(labels.ignore_color),
    }
