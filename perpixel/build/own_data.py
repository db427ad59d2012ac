"""Somebody's own data before a plan is made for it: opened, checked by the detective, counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perpixel.build.progress import ProgressCallback, Reporter
from perpixel.build.sources import open_source
from perpixel.config import DataChoice
from perpixel.data import Item, SegmentationDataset, SplitSummary, infer_labels, summarise
from perpixel.data.inspection.finding import Finding
from perpixel.data.inspection.inspect import Inspection, inspect_data
from perpixel.errors import ConfigError, DataError
from perpixel.labels import LabelSpace

__all__ = ["OwnData", "look_at"]

_SHOWN = 8
_FILES = 3


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """What a plan is made from."""

    items: Sequence[Item]
    """Of the training part, or all where the data is undivided."""
    labels: LabelSpace
    summary: SplitSummary
    check: str
    """What the check said, in one line."""


def look_at(
    choice: DataChoice, labels: str | None, *, check: bool = True, on_progress: ProgressCallback | None = None
) -> OwnData:
    """Checks data file by file and counts the masks of its training part.

    With a mapping file in ``choice.fixes`` the check is left out: what it found is mended there.

    Args:
        choice: Which data, and how it is read.
        labels: What `LabelSpace.load` takes; None takes the data's own or what the masks suggest.
        check: Whether the detective looks at every file first.
        on_progress: Called while files are read.

    Raises:
        DataError: the check found errors, or the data cannot be read.
        ConfigError: the choice names no files, or there is no such label space.
    """
    said = "left out as asked" if choice.fixes is None else f"left out, since {choice.fixes} mends the data"
    if check and choice.fixes is None:
        said = _checked(choice, labels, on_progress)
    source = open_source(choice)
    if source is None:
        raise ConfigError("a plan is made for files; generated scenes have recipes of their own")
    items = source.splits.get(choice.train_split) or next(iter(source.splits.values()))
    items = items[: choice.limit]
    space = infer_labels(items, labels, given=source.labels, mask_encoding=choice.mask_encoding).labels
    dataset = SegmentationDataset(items, space, mask_encoding=choice.mask_encoding, max_pixels=choice.max_pixels)
    return OwnData(items=items, labels=space, summary=summarise(dataset), check=said)


def _checked(choice: DataChoice, labels: str | None, on_progress: ProgressCallback | None) -> str:
    first, second = choice.images or choice.source or "", choice.masks
    found = inspect_data(
        first,
        second,
        labels=labels,
        mask_encoding=choice.mask_encoding if choice.mask_encoding == "colors" else None,
        max_pixels=choice.max_pixels,
        on_progress=Reporter("check", on_progress),
    )
    named = f"{first} {second}" if second else first
    allowed = ("class_missing",) if choice.allow_absent_classes else ()
    errors = [entry for entry in found.findings if entry.severity == "error" and entry.kind not in allowed]
    if errors:
        raise DataError(_refusal(found, errors, named))
    warnings = [entry for entry in found.findings if entry.severity == "warning"]
    if not warnings:
        return f"no errors and no warnings in {sum(found.splits.values())} pairs"
    titles = "; ".join(f"{entry.title} ({entry.count})" for entry in warnings[:_SHOWN])
    return f"no errors; to look at: {titles}. `perpixel data check {named}` lists the files"


def _files(found: Inspection, entry: Finding) -> str:
    """Names the first files that the message has not named yet."""
    missing = [file for file in entry.files[:_FILES] if file not in entry.message]
    if not missing:
        return ""
    more = f" and {len(entry.files) - _FILES} more" if len(entry.files) > _FILES else ""
    return f" ({', '.join(str(found.root / file) for file in missing)}{more})"


def _refusal(found: Inspection, errors: Sequence[Finding], named: str) -> str:
    lines = [f"  {entry.message}{_files(found, entry)}\n    way out: {entry.fix}" for entry in errors[:_SHOWN]]
    more = f"\n  and {len(errors) - _SHOWN} more kinds" if len(errors) > _SHOWN else ""
    kinds = "a fault" if len(errors) == 1 else f"{len(errors)} kinds of faults"
    return (
        f"the data has {kinds} that would stop or spoil the training:\n"
        + "\n".join(lines)
        + f"{more}\n`perpixel data check {named}` names every file and its repair; with --fix it writes a mapping file "
        "for data.fixes=FILE, which leaves out or mends what can be. --no-check trains without looking first."
    )
