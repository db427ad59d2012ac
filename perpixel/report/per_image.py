"""The counts of each image, from which two runs on the same images are compared.

Shapes: N images, K classes.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue
from perpixel.metrics.confusion import confusion_matrix
from perpixel.metrics.image_counts import image_counts
from perpixel.report.pictures import load_image, load_mask
from perpixel.report.read_run import RunRecord

__all__ = ["COUNTS_FILE", "PerImage", "per_image"]

COUNTS_FILE = "predictions/counts.npz"
"""Arrays ``names`` (N,) of text and ``counts`` (N, K, 3) int64."""


@dataclass(frozen=True, kw_only=True)
class PerImage:
    """Right, true and predicted pixels per image and class."""

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    """(N, K, 3)."""
    recounted: bool
    """Whether they were counted again from the saved masks."""


def per_image(run: RunRecord) -> PerImage | str:
    """Returns the counts of a run's images, or a sentence that says why there are none.

    A run without ``COUNTS_FILE`` is counted again from the masks that predictions/images.json names.
    """
    path = run.path / COUNTS_FILE
    if not path.is_file():
        return _from_masks(run)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names, counts = arrays["names"], arrays["counts"]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        return f"{COUNTS_FILE} of {run.name} is damaged: {error}."
    if counts.ndim != 3 or counts.shape[2] != 3 or names.shape != counts.shape[:1] or counts.dtype.kind not in "iu":
        return (
            f"{COUNTS_FILE} of {run.name} holds names {names.shape} and counts {counts.shape} {counts.dtype} where "
            "(N,) and (N, K, 3) whole numbers belong."
        )
    return PerImage(names=tuple(map(str, names)), counts=counts.astype(np.int64), recounted=False)


def _from_masks(run: RunRecord) -> PerImage | str:
    """Counts the saved masks against the targets that predictions/images.json names."""
    without = f"{run.name} has no {COUNTS_FILE}"
    if not run.images or run.labels is None:
        reason = run.missing.get("predictions/images.json") or run.missing.get("data.json") or "No image is listed."
        return f"{without}, and its masks cannot be counted again: {reason}"
    names, counts = [], []
    for entry in run.images:
        name, problems = str(entry.get("name", "unnamed")), list[str]()
        _, head = load_image(run.path, entry, [])
        truth = load_mask(run, run.labels, entry, "target", head, problems)
        prediction = load_mask(run, run.labels, entry, "prediction", None, problems)
        if truth is None or prediction is None:
            return f"{without}, and its masks cannot be counted again: {name}: {problems[0]}"
        try:
            confusion = confusion_matrix(prediction, truth, run.labels.num_classes)
        except InvalidValue as error:
            return f"{without}, and its masks cannot be counted again: {name}: {error}."
        names.append(name)
        counts.append(image_counts(confusion))
    return PerImage(names=tuple(names), counts=np.stack(counts), recounted=True)
