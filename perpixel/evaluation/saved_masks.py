"""Scores masks in files against targets in files, whatever tool wrote them.

Shapes: K classes, H W image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from perpixel.data.decoding import image_size
from perpixel.errors import DataError, InvalidValue
from perpixel.evaluation.mask_folders import MaskFiles, MissingRule, match_masks, shortened
from perpixel.evaluation.mask_pairs import MaskEncoding, PairOutcome, PairReader, Problem
from perpixel.evaluation.mask_pixels import add_pixels
from perpixel.evaluation.measures import Measures
from perpixel.evaluation.totals import Evaluation, Totals, UnreadFile
from perpixel.evaluation.workers import available_cores, map_in_processes
from perpixel.labels import LabelSpace
from perpixel.metrics.cityscapes import CITYSCAPES_IDS

__all__ = ["MissingRule", "evaluate_masks"]

_PIXELS_WORTH_PROCESSES = 150_000_000
"""Pixels of all targets from which processes, half a second to start, are faster than this one alone."""
_COST_OF_PIXEL_MEASURES = 4
"""How much longer an image takes when boundaries and the like are measured too."""
_KINDS = {
    "target": "targets hold ids outside the label space",
    "outside": "predictions hold ids outside the classes on valid pixels",
    "ignored": "predictions ignore valid pixels",
    "size": "predictions differ from their targets in size",
    "file": "masks cannot be used",
}


def evaluate_masks(
    predictions_dir: str | Path,
    targets_dir: str | Path,
    labels: LabelSpace,
    *,
    pattern: str | None = None,
    missing: MissingRule = "refuse",
    mask_encoding: MaskEncoding = "ids",
    measures: Measures | None = None,
    instances_dir: str | Path | None = None,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Scores predicted masks against the targets of the same path below their folders, suffix aside, or by a pattern.

    Both hold stored ids; predictions of a label space without ``train_to_stored`` hold train ids, as perpixel writes
    them. JPEG files (overlays) are passed over. What a prediction holds where the target is ignored does not matter.
    With ``missing="wrong"`` all valid pixels of a target without prediction, or with one that is damaged or of another
    size, count as wrong, as do pixels predicted as ignored or as an id that is no class: they are in no column of the
    confusion matrix but in ``Evaluation.unpredicted``. Predictions without target are refused in either case.
    Damaged files are left out and named in ``Evaluation.unread``; everything else that is wrong is refused, after all
    files were looked at. The number of processes changes no number.

    Args:
        predictions_dir: Folder of predicted masks.
        targets_dir: Folder of true masks.
        labels: What the ids mean.
        pattern: As `perpixel.evaluation.mask_folders.match_masks` takes it.
        missing: ``"refuse"`` or ``"wrong"``.
        mask_encoding: ``"colors"`` where the colours of both sides are the labels.
        measures: What to measure besides the confusion matrix. With conventions asked for, masks with ids outside the
            classes are not refused but have no scores of ours: ``Evaluation.refused`` says why.
        instances_dir: Folder of Cityscapes instance numbers, for its iIoU.
        workers: Processes; None takes all cores where that is faster, 1 none beside this one.
        on_progress: Called after each image with the number done and the number of all.

    Raises:
        DataError: a folder is missing or holds no masks, files do not match in name or size, two masks share a name,
            a prediction ignores valid pixels, a mask holds ids outside the label space or colours, or no pair could be
            read.
        InvalidValue: an option is not as said, or Cityscapes' scores are asked for masks with other ids.
    """
    chosen = Measures() if measures is None else measures
    _check_options(labels, chosen, mask_encoding, instances_dir, workers)
    started = time.perf_counter()
    matched = match_masks(
        Path(predictions_dir),
        Path(targets_dir),
        pattern=pattern,
        missing=missing,
        instances_dir=None if instances_dir is None else Path(instances_dir),
    )
    reader = PairReader(
        labels=labels,
        measures=chosen,
        missing=missing,
        mask_encoding=mask_encoding,
        finish=add_pixels if chosen.of_pixels else None,
    )
    totals, findings = Totals(labels.num_classes, chosen), _Findings()
    for done, outcome in enumerate(_outcomes(reader, matched.images, workers), start=1):
        findings.note(outcome)
        if outcome.record is not None:
            totals.add(outcome.record)
        if on_progress is not None:
            on_progress(done, len(matched.images))
    if findings.unread and not len(totals):
        raise DataError(f"no pair could be read; the first of {len(findings.unread)}: {findings.unread[0].reason}")
    refused = findings.refusal()
    if refused is not None and not (chosen.conventions and findings.only_foreign_ids):
        raise DataError(refused)
    return Evaluation(
        totals=totals,
        seconds=time.perf_counter() - started,
        counts_unpredicted=missing == "wrong",
        unread=tuple(findings.unread),
        refused=refused,
        notes=(*matched.notes, *findings.notes(len(matched.images)), *_nothing_valid(totals, labels)),
    )


def _nothing_valid(totals: Totals, labels: LabelSpace) -> list[str]:
    if totals.counts.any():
        return []
    ids = ", ".join(str(i) for i in labels.ignored_ids)
    return [
        f"no target holds a pixel that is scored: all are of ids that label space {labels.name!r} ignores ({ids}); "
        "are the masks of another label space?"
    ]


def _check_options(
    labels: LabelSpace,
    measures: Measures,
    mask_encoding: str,
    instances_dir: str | Path | None,
    workers: int | None,
) -> None:
    if mask_encoding not in get_args(MaskEncoding):
        raise InvalidValue(f"mask_encoding is one of {', '.join(get_args(MaskEncoding))}, got {mask_encoding!r}")
    if workers is not None and workers < 1:
        raise InvalidValue(f"workers must be at least 1, got {workers}")
    if instances_dir is not None and not measures.cityscapes:
        raise InvalidValue("instances are for Cityscapes' scores; ask for these too")
    foreign = [i for i in labels.stored_to_train if i >= len(CITYSCAPES_IDS) and i != LabelSpace.ignore_index]
    if measures.cityscapes and (mask_encoding != "ids" or labels.train_to_stored is None or foreign):
        raise InvalidValue(
            f"Cityscapes' scores need masks of Cityscapes' ids 0..{len(CITYSCAPES_IDS) - 1}, label space "
            f"{labels.name!r} has others; use --labels cityscapes with *_gtFine_labelIds.png"
        )


def _outcomes(reader: PairReader, images: tuple[MaskFiles, ...], workers: int | None) -> Iterator[PairOutcome]:
    count = _processes_for(images, reader.measures) if workers is None else workers
    if count == 1:
        return map(reader, images)
    return map_in_processes(reader, images, workers=min(count, len(images)))


def _processes_for(images: tuple[MaskFiles, ...], measures: Measures) -> int:
    """All cores, when the first target's size says that there is work for more than a moment."""
    try:
        height, width = image_size(images[0].target)
    except DataError:
        return 1
    work = height * width * len(images) * (_COST_OF_PIXEL_MEASURES if measures.of_pixels else 1)
    return available_cores() if work >= _PIXELS_WORTH_PROCESSES else 1


@dataclass
class _Findings:
    """What was wrong or odd, in the order of the files."""

    unread: list[UnreadFile] = field(default_factory=list)
    problems: dict[str, list[Problem]] = field(default_factory=dict)
    palettes: list[str] = field(default_factory=list)

    def note(self, outcome: PairOutcome) -> None:
        problem = outcome.problem
        if problem is not None and problem.kind == "damaged":
            scored = outcome.record is not None
            self.unread.append(UnreadFile(file=problem.file, reason=problem.message, counts_as_wrong=scored))
        elif problem is not None:
            self.problems.setdefault(problem.kind, []).append(problem)
        if outcome.palette_differs is not None:
            self.palettes.append(f"{outcome.files.prediction}: {outcome.palette_differs}")

    @property
    def only_foreign_ids(self) -> bool:
        """Whether nothing but ids that are no class was found, which other toolkits may take."""
        return self.problems.keys() <= {"target", "outside", "ignored"}

    def refusal(self) -> str | None:
        """One message about everything that is refused."""
        parts = [_summary(kind, self.problems[kind]) for kind in _KINDS if kind in self.problems]
        return "; ".join(parts) if parts else None

    def notes(self, images: int) -> list[str]:
        if not self.palettes:
            return []
        return [
            f"{len(self.palettes)} of {images} predictions carry another palette than their target, the first "
            f"{self.palettes[0]}; ids were compared, colours were not looked at"
        ]


def _summary(kind: str, problems: list[Problem]) -> str:
    if kind == "size":
        hint = '; missing="wrong" (--missing wrong) counts such pixels as wrong'
        return f"{len(problems)} {_KINDS[kind]}: {shortened(problem.message for problem in problems)}{hint}"
    if len(problems) == 1:
        return problems[0].message
    pixels = sum(problem.pixels for problem in problems)
    on = f" ({pixels} pixels)" if pixels else ""
    others = shortened(problem.file for problem in problems[1:])
    first = problems[0].message
    return f"{len(problems)} {_KINDS[kind]}{on}: {first}{'' if first.endswith('.') else '.'} The same in {others}"
