"""``perpixel data stats``: the counts of a data set, the weights that follow from them, and what they advise."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from perpixel.build.progress import ProgressCallback, Reporter
from perpixel.data import (
    ClassWeighting,
    DataSource,
    MaskEncoding,
    SegmentationDataset,
    class_weights,
    infer_labels,
    open_data,
    open_folders,
)
from perpixel.data.advice import advise
from perpixel.data.statistics import MOST_COLOR_IMAGES, DataStatistics, describe_data
from perpixel.errors import DataError, nearest
from perpixel.labels import LabelSpace

__all__ = ["data_statistics"]


def data_statistics(
    data: str | Path,
    masks: str | Path | None = None,
    *,
    labels: str | None = None,
    split: str | None = None,
    mask_encoding: MaskEncoding = "ids",
    color_images: int = MOST_COLOR_IMAGES,
    longest_crop: int = 512,
    on_progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Counts one split of a data set and advises how to train on it.

    Args:
        data: ``[format:]path``, or the folder of images when ``masks`` is given.
        masks: Folder of masks.
        labels: What `LabelSpace.load` takes; None takes those of the data.
        split: Which split; None takes the first of ``train``, ``all`` and what there is.
        mask_encoding: ``"ids"`` or ``"colors"``.
        color_images: Images whose colours are counted, spread evenly.
        longest_crop: Largest side of the crop that is advised, pixels.
        on_progress: Called after every image.

    Returns:
        Plain values: ``split``, ``splits``, ``labels``, ``notes``, what `DataStatistics.to_dict` holds, ``weights`` by
        rule, ``advice``.

    Raises:
        DataError: the data cannot be opened or read, or there is no such split.
        ConfigError: there is no such label space.
    """
    source = open_data(data) if masks is None else open_folders(data, masks)
    chosen = _chosen(source, split)
    items = source.splits[chosen]
    inferred = infer_labels(items, labels, given=source.labels, mask_encoding=mask_encoding)
    dataset = SegmentationDataset(items, inferred.labels, mask_encoding=mask_encoding)
    report = Reporter(f"counting {chosen}", on_progress)
    statistics = describe_data(dataset, color_images=color_images, on_image=lambda done: report(done, len(items)))
    return {
        "data": str(data),
        "format": source.format,
        "split": chosen,
        "splits": {name: len(part) for name, part in source.splits.items()},
        "labels": inferred.labels.name,
        "notes": [*source.notes, *inferred.notes],
        **statistics.to_dict(inferred.labels.names),
        **_conclusions(statistics, inferred.labels, longest_crop),
    }


def _chosen(source: DataSource, split: str | None) -> str:
    if split is None:
        return next((name for name in ("train", "all") if name in source.splits), next(iter(source.splits)))
    if split not in source.splits:
        known = ", ".join(source.splits)
        raise DataError(f"{source.root}: no split {split!r}{nearest(split, source.splits)}. There are: {known}.")
    return split


def _conclusions(statistics: DataStatistics, labels: LabelSpace, longest_crop: int) -> dict[str, Any]:
    """Weights and advice; nothing where no pixel is labelled."""
    summary = statistics.summary
    if not any(summary.pixels_per_class):
        return {"weights": {}, "advice": []}
    advice = advise(summary, labels, longest_crop=longest_crop)
    return {
        "weights": {method: list(class_weights(summary, method)) for method in get_args(ClassWeighting)},
        "advice": [
            {"what": a.what, "choice": a.choice, "reason": a.reason, "overrides": list(a.overrides)} for a in advice
        ],
    }
