"""Dense-CRF numbers for a model, chosen on part of a split and checked on images that the search has not seen."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from perpixel.build.crf_choice import choose_crf, write_crf
from perpixel.build.progress import ProgressCallback, Reporter
from perpixel.build.scoring import load, open_scored
from perpixel.data import SegmentationDataset
from perpixel.errors import InvalidValue
from perpixel.evaluation.crf_search import (
    CRFGrid,
    CRFTrial,
    StoredScores,
    count_pixels,
    mean_iou,
    search_dense_crf,
)
from perpixel.inference import Segmenter
from perpixel.inference.dense_crf import DenseCRF
from perpixel.metrics.statistics import paired_test
from perpixel.models import Network

__all__ = ["search_crf"]

_SEARCHED = ("bilateral_weight", "bilateral_width", "color_width")


def search_crf(
    model: str | Path | Segmenter,
    data: str | Path,
    *,
    split: str = "val",
    images: int = 100,
    unseen: int | None = None,
    method: Literal["coordinate", "grid"] = "coordinate",
    grid: CRFGrid | None = None,
    start: bool | str | DenseCRF = True,
    labels: str | None = None,
    mask_encoding: str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    confidence: float = 0.95,
    out: str | Path | None = None,
    on_progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Searches the bilateral kernel of a dense CRF on some images of a split, and measures the gain on others.

    The network runs once per image; its scores lie in a temporary folder meanwhile. A CRF of a loaded model is left
    aside. The images are spread evenly over the split; the unseen ones over the rest of it.

    Args:
        model: As in `evaluate`.
        data: As in `evaluate`.
        split: Whose images are taken; never the one that results are reported on.
        images: How many to search on, at least 1; all where the split has fewer.
        unseen: How many of the others to measure the gain on; None takes as many as are searched on.
        method: ``coordinate`` (one number at a time) or ``grid`` (every combination).
        grid: Values to try; None takes DeepLab's ranges.
        start: Where the search begins, as `load` takes ``crf``.
        labels: As in `evaluate`.
        mask_encoding: As in `evaluate`.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``fp32``, ``auto``, ``bf16`` or ``fp16``.
        confidence: Of the intervals, in (0, 1).
        out: YAML file for the best numbers, which ``--crf-set`` takes.
        on_progress: Receives `Progress` of the phases ``score`` and ``crf-search``.

    Returns:
        ``crf`` (the best numbers), ``searched`` and ``unseen`` (each ``images``, ``mean_iou {without, with}`` and
        ``gain {difference, low, high, p_value, confidence, words}``; unseen is None without further images), ``start``
        and ``trials`` (numbers with their mean IoU), ``notes``, ``method, model, split``. Fractions in [0, 1].

    Raises:
        DataError: the data, the split or a mask cannot be used.
        InvalidValue: a number is out of range.
    """
    if images < 1 or (unseen is not None and unseen < 0):
        beside = "" if unseen is None else f" and {unseen}"
        raise InvalidValue(f"the search takes at least 1 image and 0 unseen ones, got {images}{beside}")
    segmenter = model if isinstance(model, Segmenter) else load(model, device=device, precision=precision)
    begin = choose_crf(cast("Network", segmenter.network), start)
    dataset, shown_split = open_scored(segmenter, data, split=split, labels=labels, mask_encoding=mask_encoding)
    chosen = _spread(range(len(dataset)), images)
    others = _spread(sorted(set(range(len(dataset))) - set(chosen)), len(chosen) if unseen is None else unseen)
    with tempfile.TemporaryDirectory(prefix="perpixel-crf-") as folder:
        seen = _stored(segmenter, dataset, chosen, Path(folder) / "searched", on_progress)
        found = search_dense_crf(seen, begin, grid, method=method, on_progress=Reporter("crf-search", on_progress))
        searched = _gain(count_pixels(seen, None), found.counts, segmenter, confidence)
        measured = None
        if others:
            held = _stored(segmenter, dataset, others, Path(folder) / "unseen", on_progress)
            measured = _gain(count_pixels(held, None), count_pixels(held, found.best.crf), segmenter, confidence)
    if out is not None:
        write_crf(out, found.best.crf)
    return {
        "model": segmenter.name,
        "split": shown_split,
        "method": method,
        "crf": asdict(found.best.crf),
        "searched": searched,
        "unseen": measured,
        "start": _row(found.start),
        "trials": [_row(trial) for trial in found.trials],
        "notes": _notes(found.best.crf, grid or CRFGrid()),
    }


def _spread(indices: Sequence[int], count: int) -> list[int]:
    """Returns ``count`` of the indices, evenly spread, or all where there are fewer."""
    if count >= len(indices):
        return list(indices)
    return [indices[(2 * place + 1) * len(indices) // (2 * count)] for place in range(count)]


def _stored(
    segmenter: Segmenter,
    dataset: SegmentationDataset,
    indices: list[int],
    folder: Path,
    on_progress: ProgressCallback | None,
) -> StoredScores:
    return StoredScores.of(segmenter, dataset, indices, folder, on_progress=Reporter("score", on_progress))


def _gain(
    without: NDArray[np.int64], refined: NDArray[np.int64], segmenter: Segmenter, confidence: float
) -> dict[str, Any]:
    test = paired_test(refined, without, names=segmenter.labels.names, confidence=confidence)
    return {
        "images": test.images,
        "mean_iou": {"without": mean_iou(without), "with": mean_iou(refined)},
        "gain": {
            "difference": test.difference,
            "low": test.low,
            "high": test.high,
            "p_value": test.p_value,
            "confidence": test.confidence,
            "words": test.words,
        },
    }


def _notes(best: DenseCRF, grid: CRFGrid) -> list[str]:
    """Says which numbers lie at the end of what was tried, where better ones may lie beyond."""
    notes = []
    for name in _SEARCHED:
        tried, value = getattr(grid, name), getattr(best, name)
        if len(tried) > 1 and value in (min(tried), max(tried)):
            end = "least" if value == min(tried) else "largest"
            notes.append(f"{name} {value:g} is the {end} that was tried; a wider range may hold better ones")
    return notes


def _row(trial: CRFTrial) -> dict[str, float]:
    return {name: getattr(trial.crf, name) for name in _SEARCHED} | {"mean_iou": trial.mean_iou}
