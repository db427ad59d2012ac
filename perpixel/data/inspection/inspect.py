"""The detective's round: the layout, then every image and mask once in worker processes, then the findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from perpixel.data.decoding import MAX_PIXELS
from perpixel.data.formats.item import listed
from perpixel.data.inspection.case import Case
from perpixel.data.inspection.collector import Collector
from perpixel.data.inspection.contents import note_contents
from perpixel.data.inspection.duplicates import note_duplicates
from perpixel.data.inspection.encodings import (
    find_color_space,
    note_shuffled_palettes,
    note_unreadable_encodings,
    note_whole_encoding,
)
from perpixel.data.inspection.finding import Finding, in_order
from perpixel.data.inspection.ids import note_color_masks, note_ids, shift_of_all
from perpixel.data.inspection.images import note_images
from perpixel.data.inspection.known_ids import Known, known_ids
from perpixel.data.inspection.layout import Layout, scan_data, scan_folders
from perpixel.data.inspection.mending import Mending, mending_of
from perpixel.data.inspection.pairing import Pair
from perpixel.data.inspection.placement import note_placement, note_stray
from perpixel.data.inspection.reading import PairReader
from perpixel.data.inspection.records import PairRecord
from perpixel.data.inspection.spool import RecordSpool
from perpixel.data.worker_pool import available_cores, map_in_processes
from perpixel.errors import DataError, InvalidValue, nearest
from perpixel.labels import LabelSpace

__all__ = ["Inspection", "inspect_data"]

_CHUNK = 8
_WORTH_PROCESSES = 160
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
}
Entry = TypeVar("Entry")


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was looked at, and what was found."""

    root: Path
    format: str
    splits: dict[str, int]
    """Pairs of each split."""
    labels: LabelSpace | None
    """The label space that the masks were held against."""
    findings: tuple[Finding, ...]
    """Errors first."""
    pairs: tuple[Pair, ...]
    mending: Mending
    """What --fix writes."""

    def count(self, severity: Literal["error", "warning", "note"]) -> int:
        """Returns how many findings have a severity."""
        return sum(found.severity == severity for found in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Returns what `data check --json` writes."""
        return {
            "root": str(self.root),
            "format": self.format,
            "splits": self.splits,
            "labels": None if self.labels is None else self.labels.to_dict(),
            "findings": [found.to_dict() for found in self.findings],
        }


def inspect_data(
    data: str | Path,
    masks: str | Path | None = None,
    *,
    labels: str | None = None,
    mask_encoding: Literal["ids", "colors"] | None = None,
    splits: Sequence[str] = (),
    stride: int = 8,
    size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Looks at every file of a data set and says what will go wrong; nothing stops it, and nothing is written.

    Args:
        data: ``[format:]path``, or the folder of images together with ``masks``.
        masks: The folder of masks.
        labels: What `LabelSpace.load` takes; None takes the data set's own, or what the masks suggest.
        mask_encoding: What masks are meant to hold; None finds out.
        splits: Only these; all without.
        stride: Of the network's score map, pixels.
        size: Height and width to which images are resized for training; None is their own.
        max_pixels: Larger files are not decoded.
        workers: Processes; None takes all cores where there is enough to do.
        on_progress: Called with the pairs that were read and the number of all.

    Raises:
        DataError: there is no such data, or no such split.
        ConfigError: ``labels`` names no label space.
        InvalidValue: the stride, size or number of workers is not positive.
    """
    if stride < 1 or (size is not None and min(size) < 1) or (workers is not None and workers < 1):
        raise InvalidValue(f"stride, size and workers are positive, got {stride}, {size} and {workers}")
    found = Collector()
    layout = scan_data(data, found) if masks is None else scan_folders(data, masks, found)
    pairs = _chosen(layout, splits)
    given = layout.labels if labels is None else LabelSpace.load(labels)
    reader = PairReader(max_pixels=max_pixels, stride=stride, size=size)
    cases = _read(pairs, reader, workers, on_progress)
    _note_problems(cases, found)
    known = _note_masks(cases, given, mask_encoding, found)
    note_images(cases, found, stride=stride)
    spare = note_duplicates(cases, found)
    note_contents(cases, known.known, found, stride=stride, size=size)
    note_stray(cases, found)
    if layout.refusal is not None:
        found.explain(layout.refusal)
    findings = in_order(found.findings())
    return Inspection(
        root=layout.root,
        format=layout.format,
        splits=dict(Counter(pair.split for pair in pairs)),
        labels=known.known.labels,
        findings=findings,
        pairs=pairs,
        mending=mending_of(
            cases, findings, spare, labels=known.mended, colors=known.colors and known.mended is not None
        ),
    )


@dataclass(frozen=True)
class _Understood:
    """What the masks were taken for."""

    known: Known
    colors: bool
    mended: LabelSpace | None
    """A label space that the mapping file should state."""


def _note_masks(cases: Sequence[Case], given: LabelSpace | None, encoding: str | None, found: Collector) -> _Understood:
    """Finds out how the masks are encoded and which of them are not as the others."""
    painted = sum(case.mask is not None and bool(case.mask.colors) for case in cases)
    readable = sum(case.mask_stored is not None for case in cases)
    colors = 2 * painted > readable if encoding is None else encoding == "colors"
    note_unreadable_encodings(cases, found, colors=colors)
    note_placement(cases, found)
    mended = None
    if colors:
        known, mended = _colors_of(cases, given, found, asked=encoding == "colors")
    else:
        known = known_ids([case for case in cases if not (case.mask and case.mask.colors)], given)
    note_color_masks(cases, known, found, colors=colors)
    if not colors and known.labels is not None:
        note_shuffled_palettes(cases, known, found)
        shift = shift_of_all(cases, known)
        if shift:
            mended = _shifted(known.labels, shift)
            what = f"the ids of all masks lie one {'above' if shift > 0 else 'below'} those of {known.labels.name!r}"
            files = [case.mask_file for case in cases if case.ids]
            found.make("off_by_one", files, what, fix="Give a label file with the stored ids; --fix writes one.")
            known = Known(labels=mended, inferred=False, evidence=what)
        note_ids(cases, known, found)
        if any(case.fault == "foreground_ignored" for case in cases):
            mended = known_ids([Case(c.pair, c.image, c.mask) for c in cases], None).labels
    if known.too_many:
        found.make("many_ids", [], known.evidence, count=1)
        mended = known.labels
    if known.from_one:
        found.make("ids_from_one", [], known.evidence, count=1)
        mended = known.labels
    note_whole_encoding(cases, known, found, colors=colors)
    return _Understood(known, colors, mended)


def _colors_of(
    cases: Sequence[Case], given: LabelSpace | None, found: Collector, *, asked: bool
) -> tuple[Known, LabelSpace | None]:
    """Names the classes of colour masks: by the label space that has these colours, else by the colours themselves."""
    pixels: Counter[int] = Counter()
    files = []
    for case in cases:
        if case.mask is not None and case.mask.colors and case.fault is None:
            pixels.update(dict(case.mask.colors))
            files.append(case.mask_file)
    own = given if given is not None and asked else find_color_space(cases)
    space = own if own is not None else _painted(pixels)
    name = "no known label space has them" if own is None else f"they are those of {own.name!r}"
    evidence = f"{len(pixels)} colours; {name}"
    if not asked and files:
        said = f"{len(files)} masks hold colours instead of ids: {evidence}"
        found.make("color_mask", files, said)
    return Known(labels=space, inferred=own is None, evidence=evidence), None if asked or not files else space


def _painted(pixels: Counter[int]) -> LabelSpace | None:
    """Makes a class of each colour, where there are few."""
    colors = sorted(pixels)
    if not 1 <= len(colors) <= 64:
        return None
    return LabelSpace(
        name="colours of the masks",
        names=tuple(f"color {c:06x}" for c in colors),
        colors=tuple((c >> 16, c >> 8 & 255, c & 255) for c in colors),
        stored_to_train={k: k for k in range(len(colors))},
        ignore_color=next((c, c, c) for c in range(256) if c * 0x10101 not in pixels),
    )


def _shifted(labels: LabelSpace, shift: int) -> LabelSpace:
    """Returns the label space with all stored ids but 255 moved by ``shift``."""
    stored = {i if i == 255 else i + shift: k for i, k in labels.stored_to_train.items()}
    return LabelSpace(
        name=f"{labels.name} {shift:+d}",
        names=labels.names,
        colors=labels.colors,
        stored_to_train=stored,
        ignore_color=labels.ignore_color,
    )


def _chosen(layout: Layout, splits: Sequence[str]) -> tuple[Pair, ...]:
    there = dict.fromkeys(pair.split for pair in layout.pairs)
    for split in splits:
        if split not in there:
            near = nearest(split, there, end=".")
            raise DataError(f"{layout.root} has no split {split!r}{near} It has: {listed(list(there)) or 'none'}.")
    return tuple(pair for pair in layout.pairs if not splits or pair.split in splits)


def _read(
    pairs: Sequence[Pair], reader: PairReader, workers: int | None, on_progress: Callable[[int, int], None] | None
) -> list[Case]:
    """Reads every pair, in this process where that is quicker than to start others."""
    count = workers or (1 if len(pairs) < _WORTH_PROCESSES else available_cores())
    tasks = ([(pair.image, pair.mask) for pair in chunk] for chunk in _chunks(pairs))
    results: Iterator[list[PairRecord]] = (
        map(reader, tasks) if count == 1 else map_in_processes(reader, tasks, workers=count)
    )
    cases: list[Case] = []
    spool = RecordSpool()
    for records in results:
        for record in records:
            cases.append(Case.spooled(pairs[len(cases)], record, spool))
        if on_progress is not None:
            on_progress(len(cases), len(pairs))
    return cases


def _chunks(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    remaining = iter(pairs)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk


def _note_problems(cases: Sequence[Case], found: Collector) -> None:
    """Notes files that cannot be read, and those with a misleading extension."""
    for case in cases:
        image = case.image
        for record, file in ((image, case.pair.image_file), (case.mask, case.mask_file)):
            if record is None:
                continue
            if record.problem is not None:
                detail = f"{file}: {record.problem.detail}" if record.problem.detail else file
                found.add(record.problem.kind, file, detail)
                continue
            stored = record.stored
            if stored is None or stored.suffix in _SUFFIXES.get(stored.format, (stored.suffix,)):
                continue
            if record is image or stored.format != "JPEG":  # that a mask is a JPEG is said, and matters more
                found.add("wrong_suffix", file, f"{file} is {stored.format}")
