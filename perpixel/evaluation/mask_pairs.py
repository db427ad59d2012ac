"""One pair of mask files, read and measured: what worker processes do. Nothing here needs torch.

Shapes: H W image, K classes. Where both files hold bytes, which pairs of stored ids occur is counted first and mapped
to classes afterwards, so that no pixel is translated unless a measure needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perpixel.data.decoding import DamagedFile, MaskFile, read_color_mask, read_mask_file
from perpixel.errors import DataError, InvalidValue
from perpixel.evaluation.mask_folders import WRONG_HINT, MaskFiles, MissingRule
from perpixel.evaluation.measures import IGNORED, ImageRecord, Measures
from perpixel.labels import LabelSpace
from perpixel.metrics.convention_rules import JointCounts
from perpixel.metrics.pair_counts import BYTE_VALUES, pair_counts

__all__ = ["MaskEncoding", "PairOutcome", "PairReader", "Problem"]

MaskEncoding = Literal["ids", "colors"]
ProblemKind = Literal["damaged", "size", "ignored", "outside", "target", "file"]
Lookup: TypeAlias = NDArray[np.int16]

_LOOKUP_SIZE = 1 << 16
_UNKNOWN = -1


Finish: TypeAlias = "Callable[[PairReader, ImageRecord, MaskFiles, MaskFile | None, MaskFile], ImageRecord]"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a pair has no scores, or none that can be trusted."""

    kind: ProblemKind
    file: str
    message: str
    pixels: int = 0


@dataclass(frozen=True, kw_only=True)
class PairOutcome:
    """What became of one pair."""

    files: MaskFiles
    record: ImageRecord | None = None
    """None when nothing could be counted."""
    problem: Problem | None = None
    palette_differs: str | None = None
    """The first id that has another colour in the prediction's palette than in the target's."""


@dataclass(frozen=True, kw_only=True)
class PairReader:
    """Reads and measures pairs; called in worker processes with the files of one image after another."""

    labels: LabelSpace
    measures: Measures
    missing: MissingRule = "refuse"
    mask_encoding: MaskEncoding = "ids"
    finish: Finish | None = None
    """Adds to a record what needs the maps themselves: `perpixel.evaluation.mask_pixels.add_pixels`, which takes longer
    to load than many images to count."""

    def __call__(self, files: MaskFiles) -> PairOutcome:
        """Returns the record of one image, or what is wrong with its files."""
        try:
            target = self._read(files.target)
        except DataError as error:
            return self._refused(files, str(files.target), error)
        prediction, damage = None, None
        if files.prediction is not None:
            try:
                prediction = self._read(files.prediction)
            except DataError as error:
                outcome = self._refused(files, str(files.prediction), error)
                if self.missing == "refuse" or not isinstance(error, DamagedFile):
                    return outcome
                damage = outcome.problem
        if prediction is not None and prediction.ids.shape != target.ids.shape:
            if self.missing == "refuse":
                return PairOutcome(files=files, problem=_size_problem(files, prediction, target))
            prediction = None
        try:
            outcome = self._measured(files, prediction, target)
        except (DataError, InvalidValue) as error:
            return self._refused(files, _named_by(error, files), error)
        return outcome if damage is None else replace(outcome, problem=damage)

    def _read(self, path: Any) -> MaskFile:
        if self.mask_encoding == "ids":
            return read_mask_file(path)
        return MaskFile(ids=self.labels.encode_colors(read_color_mask(path), source=str(path)), palette=None)

    def _refused(self, files: MaskFiles, file: str, error: Exception) -> PairOutcome:
        kind: ProblemKind = "damaged" if isinstance(error, DamagedFile) else "file"
        message = str(error).replace("data.mask_encoding=colors", "--mask-encoding colors")
        return PairOutcome(files=files, problem=Problem(kind=kind, file=file, message=message))

    def _measured(self, files: MaskFiles, prediction: MaskFile | None, target: MaskFile) -> PairOutcome:
        counted = self._counted(files, prediction, target)
        problem = self._problem(files, prediction, target, counted)
        unpredicted = counted.unpredicted(self.labels.num_classes)
        record = ImageRecord(
            index=files.index,
            name=files.name,
            confusion=counted.confusion(self.labels.num_classes),
            unpredicted=unpredicted,
            pairs=counted.raw(self.labels.num_classes) if self.measures.conventions else None,
        )
        if problem is None and self.finish is not None:
            record = self.finish(self, record, files, prediction, target)
        differs = None
        if prediction is not None and self._ids_agree:
            differs = _palette_difference(prediction.palette, target.palette, counted)
        return PairOutcome(files=files, record=record, problem=problem, palette_differs=differs)

    def _counted(self, files: MaskFiles, prediction: MaskFile | None, target: MaskFile) -> _Counted:
        target_bytes, target_ids = _as_bytes(target.ids, files.target)
        if prediction is None:
            pixels = np.bincount(target_bytes.reshape(-1), minlength=BYTE_VALUES)
            stored = target_ids[np.flatnonzero(pixels)]
            nothing = np.full(stored.shape, IGNORED, dtype=np.int64)
            return _Counted(stored, nothing, pixels[pixels > 0], self.target_lookup[stored], nothing.astype(np.int16))
        prediction_bytes, prediction_ids = _as_bytes(prediction.ids, files.prediction)
        table = pair_counts(prediction_bytes, target_bytes)
        assert table is not None  # both are bytes
        cells = np.flatnonzero(table)
        stored, guessed = target_ids[cells >> 8], prediction_ids[cells & (BYTE_VALUES - 1)]
        pixels = table.reshape(-1)[cells]
        return _Counted(stored, guessed, pixels, self.target_lookup[stored], self.prediction_lookup[guessed])

    def _problem(
        self, files: MaskFiles, prediction: MaskFile | None, target: MaskFile, counted: _Counted
    ) -> Problem | None:
        unknown = int(counted.pixels[counted.truth == _UNKNOWN].sum())
        if unknown:
            message = _message_of(self.labels, target.ids, str(files.target))
            return Problem(kind="target", file=str(files.target), message=message, pixels=unknown)
        if prediction is None or self.missing == "wrong":
            return None
        valid = counted.truth != IGNORED
        outside = int(counted.pixels[valid & (counted.guess == _UNKNOWN)].sum())
        if outside:
            message = self._outside_message(prediction.ids, str(files.prediction))
            return Problem(kind="outside", file=str(files.prediction), message=message + WRONG_HINT, pixels=outside)
        ignored = int(counted.pixels[valid & (counted.guess == IGNORED)].sum())
        if ignored:
            what = f"{ignored} pixels are predicted as ignored where the target is valid"
            message = f"{files.prediction}: {what}{WRONG_HINT}"
            return Problem(kind="ignored", file=str(files.prediction), message=message, pixels=ignored)
        return None

    def _outside_message(self, stored: NDArray[Any], source: str) -> str:
        if self.same_ids:
            return _message_of(self.labels, stored, source)
        outside = self.prediction_lookup[stored] == _UNKNOWN
        row, column = (int(i) for i in np.argwhere(outside)[0])
        return (
            f"{source}: {int(outside.sum())} pixels hold ids outside 0..{self.labels.num_classes - 1}, the first "
            f"{int(stored[row, column])} at row {row}, column {column}; predictions for label space "
            f"{self.labels.name!r} hold train ids"
        )

    @property
    def same_ids(self) -> bool:
        """Whether predictions hold the same ids as targets, not train ids."""
        return self.mask_encoding == "ids" and self.labels.train_to_stored is not None

    @cached_property
    def _ids_agree(self) -> bool:
        """Whether a class has one id on both sides, so that its colours should be one too."""
        classes = slice(self.labels.num_classes)
        alike = np.array_equal(self.target_lookup[classes], self.prediction_lookup[classes])
        return self.mask_encoding == "ids" and (self.same_ids or alike)

    @cached_property
    def target_lookup(self) -> Lookup:
        """Train id, 255 or -1 of each id in a target."""
        return self._train_ids() if self.mask_encoding == "colors" else _lookup(self.labels.stored_to_train)

    @cached_property
    def prediction_lookup(self) -> Lookup:
        return self.target_lookup if self.same_ids else self._train_ids()

    def _train_ids(self) -> Lookup:
        return _lookup({**{k: k for k in range(self.labels.num_classes)}, IGNORED: IGNORED})


@dataclass(frozen=True)
class _Counted:
    """The distinct pairs of ids of one image, all (P,): as stored, their pixels, as train ids (255, or -1 unknown)."""

    stored: NDArray[np.int64]
    guessed: NDArray[np.int64]
    pixels: NDArray[np.int64]
    truth: Lookup
    guess: Lookup

    def confusion(self, num_classes: int) -> NDArray[np.int64]:
        """(K, K) of the valid pixels with a predicted class."""
        matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
        scored = _is_class(self.truth, num_classes) & _is_class(self.guess, num_classes)
        np.add.at(matrix, (self.truth[scored], self.guess[scored]), self.pixels[scored])
        return matrix

    def unpredicted(self, num_classes: int) -> NDArray[np.int64]:
        """(K,) valid pixels that are predicted as ignored, or as an id that is no class."""
        counts = np.zeros(num_classes, dtype=np.int64)
        without = _is_class(self.truth, num_classes) & ~_is_class(self.guess, num_classes)
        np.add.at(counts, self.truth[without], self.pixels[without])
        return counts

    def raw(self, num_classes: int) -> JointCounts:
        """The pairs as other toolkits see them: train ids, and stored ids that are no class as they are."""
        truth = np.where(self.truth == _UNKNOWN, np.maximum(self.stored, num_classes), self.truth)
        guess = np.where(self.guess == _UNKNOWN, np.maximum(self.guessed, num_classes), self.guess)
        return JointCounts(truth.astype(np.int64), guess.astype(np.int64), self.pixels)


def _is_class(train: Lookup, num_classes: int) -> NDArray[np.bool_]:
    return (train >= 0) & (train < num_classes)


def _lookup(mapping: Any) -> Lookup:
    table = np.full(_LOOKUP_SIZE, _UNKNOWN, dtype=np.int16)
    for stored, train in mapping.items():
        table[stored] = train
    return table


def _as_bytes(ids: NDArray[Any], source: Path | None) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns a mask as bytes, and the stored id of each byte.

    Raises:
        DataError: a 16-bit mask holds more different ids than there are bytes; names the file.
    """
    if ids.dtype == np.uint8:
        return ids, np.arange(BYTE_VALUES)
    present = np.flatnonzero(np.bincount(ids.reshape(-1), minlength=_LOOKUP_SIZE))
    if present.size > BYTE_VALUES:
        raise DataError(
            f"{source}: a 16-bit file with {present.size} different ids is no mask of classes (depth, or instance "
            "numbers?); give the folder of the label ids"
        )
    rank = np.zeros(_LOOKUP_SIZE, dtype=np.uint8)
    rank[present] = np.arange(present.size, dtype=np.uint8)
    return rank[ids], np.pad(present, (0, BYTE_VALUES - present.size)).astype(np.int64)


def _named_by(error: Exception, files: MaskFiles) -> str:
    """Returns the file that a message begins with; the target where it names none."""
    beside = (files.prediction, files.instances)
    return next((str(path) for path in beside if str(error).startswith(f"{path}: ")), str(files.target))


def _message_of(labels: LabelSpace, stored: NDArray[Any], source: str) -> str:
    try:
        labels.encode(stored, source=source)
    except DataError as error:
        return str(error)
    return f"{source}: ids outside label space {labels.name!r}"


def _size_problem(files: MaskFiles, prediction: MaskFile, target: MaskFile) -> Problem:
    sizes = " and ".join("x".join(str(n) for n in mask.ids.shape) for mask in (prediction, target))
    return Problem(kind="size", file=str(files.prediction), message=f"{files.prediction} ({sizes}, height x width)")


def _palette_difference(first: bytes | None, second: bytes | None, counted: _Counted) -> str | None:
    if first is None or second is None or first == second:
        return None
    valid = counted.truth != IGNORED
    for stored in np.unique(np.concatenate([counted.stored[valid], counted.guessed[valid]])).tolist():
        place = slice(3 * stored, 3 * stored + 3)
        if len(first) >= place.stop and len(second) >= place.stop and first[place] != second[place]:
            return f"id {stored} is {tuple(first[place])} there and {tuple(second[place])} in the target"
    return None
