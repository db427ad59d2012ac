"""Scores masks in files against targets in files.

Shapes: K classes, H W image.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from perpixel.data.image_files import IMAGE_SUFFIXES, read_mask
from perpixel.errors import DataError, InvalidValue
from perpixel.evaluation.evaluate import Evaluation, ImageScore, image_score
from perpixel.labels import LabelSpace
from perpixel.metrics.confusion import confusion_matrix

__all__ = ["MissingRule", "evaluate_masks"]

MissingRule = Literal["refuse", "wrong"]

_MASK_SUFFIXES = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in (".jpg", ".jpeg"))
_NAMED_FILES = 20
_WRONG_HINT = '; missing="wrong" (--missing wrong) counts such pixels as wrong'


def evaluate_masks(
    predictions_dir: str | Path,
    targets_dir: str | Path,
    labels: LabelSpace,
    *,
    missing: MissingRule = "refuse",
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Scores predicted masks against the targets of the same path below their folders, suffix aside.

    Both hold stored ids; predictions of a label space without ``train_to_stored`` hold train ids, as perpixel writes
    them. JPEG files (overlays) are passed over. With ``missing="wrong"`` all valid pixels of a target without
    prediction, or with one of another size, count as wrong, as do pixels predicted as ignored: they are in no column
    of the confusion matrix but in ``Evaluation.unpredicted``. Predictions without target are refused in either case.

    Raises:
        DataError: a folder is missing or holds no masks, files do not match in name or size, two masks share a name,
            a prediction ignores valid pixels, or a mask holds ids outside the label space.
        InvalidValue: ``missing`` is neither ``"refuse"`` nor ``"wrong"``.
    """
    if missing not in get_args(MissingRule):
        raise InvalidValue(f"missing is one of {', '.join(get_args(MissingRule))}, got {missing!r}")
    started = time.perf_counter()
    predictions, targets = _masks(Path(predictions_dir)), _masks(Path(targets_dir))
    _refuse("predictions have no target", [predictions[name] for name in sorted(predictions.keys() - targets.keys())])
    if missing == "refuse":
        absent = [targets[name] for name in sorted(targets.keys() - predictions.keys())]
        _refuse(f"targets have no prediction in {predictions_dir}", absent, hint=_WRONG_HINT)
    num_classes = labels.num_classes
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    unpredicted = np.zeros(num_classes, dtype=np.int64)
    images: list[ImageScore] = []
    mismatched: list[Path] = []
    for done, (name, target_path) in enumerate(sorted(targets.items()), start=1):
        target = labels.encode(read_mask(target_path), source=str(target_path))
        prediction = _prediction(predictions.get(name), labels)
        if prediction is not None and prediction.shape != target.shape:
            mismatched.append(predictions[name])
            prediction = None
        counts, without = _count(prediction, target, num_classes)
        if missing == "refuse" and prediction is not None and without.any():
            what = f"{int(without.sum())} pixels are predicted as ignored where the target is valid"
            raise DataError(f"{predictions[name]}: {what}{_WRONG_HINT}")
        confusion += counts
        unpredicted += without
        images.append(image_score(name, counts, without))
        if on_progress is not None:
            on_progress(done, len(targets))
    if missing == "refuse":
        _refuse("predictions differ from their targets in size", mismatched, hint=_WRONG_HINT)
    return Evaluation(
        confusion=confusion,
        images=tuple(images),
        seconds=time.perf_counter() - started,
        unpredicted=unpredicted if missing == "wrong" else None,
    )


def _masks(folder: Path) -> dict[str, Path]:
    """Returns the masks below a folder by their path without suffix."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _MASK_SUFFIXES or not path.is_file() or path.name.startswith("."):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DataError(f"{found[name]} and {path} share the name {name!r}; keep one mask per image")
        found[name] = path
    if not found:
        raise DataError(f"{folder}: the folder and its subfolders hold no mask ({', '.join(_MASK_SUFFIXES)})")
    return found


def _refuse(what: str, files: list[Path], *, hint: str = "") -> None:
    if not files:
        return
    listed = ", ".join(str(path) for path in files[:_NAMED_FILES])
    more = f" and {len(files) - _NAMED_FILES} more" if len(files) > _NAMED_FILES else ""
    raise DataError(f"{len(files)} {what}: {listed}{more}. Masks are matched by path without suffix{hint}")


def _prediction(path: Path | None, labels: LabelSpace) -> NDArray[Any] | None:
    """Returns predicted train ids, 255 where a pixel is predicted as ignored, or None without a file."""
    if path is None:
        return None
    stored = read_mask(path)
    if labels.train_to_stored is not None:
        return labels.encode(stored, source=str(path))
    outside = (stored >= labels.num_classes) & (stored != labels.ignore_index)
    if outside.any():
        row, column = (int(i) for i in np.argwhere(outside)[0])
        raise DataError(
            f"{path}: {int(outside.sum())} pixels hold ids outside 0..{labels.num_classes - 1}, the first "
            f"{int(stored[row, column])} at row {row}, column {column}; predictions for label space {labels.name!r} "
            "hold train ids"
        )
    return stored


def _count(
    prediction: NDArray[Any] | None, target: NDArray[np.uint8], num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the confusion matrix (K, K) and the valid pixels per class without a predicted class (K,)."""
    ignore = LabelSpace.ignore_index
    without = target != ignore if prediction is None else (target != ignore) & (prediction == ignore)
    unpredicted = np.bincount(target[without], minlength=num_classes).astype(np.int64)
    if prediction is None:
        return np.zeros((num_classes, num_classes), dtype=np.int64), unpredicted
    judged = np.where(without, np.uint8(ignore), target)
    return confusion_matrix(prediction, judged, num_classes), unpredicted
