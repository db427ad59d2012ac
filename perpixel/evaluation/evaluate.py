"""Scores a network on a data set, at the original resolution and over the whole set at once.

Shapes: B batch, K classes, H W image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perpixel.data.dataset import Sample
from perpixel.errors import DataError, InvalidValue, RunError
from perpixel.evaluation.gather import gather_totals
from perpixel.evaluation.measures import ImageRecord, Measures
from perpixel.evaluation.pixel_measures import measure
from perpixel.evaluation.totals import Evaluation, Totals
from perpixel.inference.out_of_memory import explained_out_of_memory
from perpixel.inference.segmenter import Segmenter
from perpixel.metrics.calibration import Calibration

__all__ = ["SampleSource", "evaluate_network"]

_MEMORY_WAY_OUT = (
    "Take one image at once (evaluation.batch_size=1 in training), smaller windows (--tile 512), or tiles that fit: "
    "`perpixel evaluate MODEL --data DATA --memory 2GB`"
)


class SampleSource(Protocol):
    """Samples by number, such as a `SegmentationDataset`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


def evaluate_network(
    segmenter: Segmenter,
    dataset: SampleSource,
    *,
    border_width_px: float | None = None,
    measures: Measures | None = None,
    batch_size: int = 1,
    rank: int = 0,
    world_size: int = 1,
    classes_of: Callable[[Tensor], NDArray[np.uint8]] | None = None,
    on_image: Callable[[Sample, NDArray[np.uint8]], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Streams a data set through a network; only one batch and the counts are held in memory.

    Args:
        segmenter: Predicts, at the size of each image.
        dataset: Samples with targets, without augmentation.
        border_width_px: Counts errors near true borders and inside regions too, with this width in pixels.
        measures: What else to measure; ``border_width_px`` goes before what it says of that.
        batch_size: Consecutive images of one size that go through the network together.
        rank: Which of ``world_size`` processes this is: it takes every ``world_size``-th image from its own on.
        world_size: Processes of torch.distributed; all return the evaluation of the whole set.
        classes_of: Predicts a raw image (C, H, W) in place of the segmenter, such as `TiledClasses`.
        on_image: Called with each sample and its prediction (H, W) uint8.
        on_progress: Called after each image with the number done and the number of all, of this process.

    Raises:
        DataError: the data set is empty, a sample has no target, or a file cannot be used.
        RunError: scores are not finite; names the image.
        InvalidValue: the batch size is not positive, the rank is not below the world size, a target holds labels that
            the network does not know, or calibration is wanted of ``classes_of``, which gives no probabilities.
    """
    if batch_size < 1:
        raise InvalidValue(f"batch_size must be at least 1, got {batch_size}")
    if not 0 <= rank < world_size:
        raise InvalidValue(f"rank is one of 0..{world_size - 1}, got {rank}")
    if classes_of is not None and measures is not None and measures.calibration:
        raise InvalidValue("calibration needs the probabilities of whole images; leave it or the memory out")
    if not len(dataset):
        raise DataError("there are no images to evaluate; check the split")
    started = time.perf_counter()
    num_classes = segmenter.labels.num_classes
    chosen = Measures() if measures is None else measures
    if border_width_px is not None:
        chosen = replace(chosen, border_width_px=border_width_px)
    totals = Totals(num_classes, chosen)
    mine = range(rank, len(dataset), world_size)
    failure: Exception | None = None
    try:
        for batch in _batches(dataset, mine, batch_size):
            try:
                with explained_out_of_memory(segmenter.device, "scoring", _MEMORY_WAY_OUT):
                    predictions = _predicted(segmenter, batch, totals.calibration, classes_of)
            except RunError as error:
                raise RunError(f"{', '.join(sample.name for _, sample in batch)}: {error}") from error
            for (index, sample), prediction in zip(batch, predictions, strict=True):
                totals.add(_measured(index, sample, prediction, num_classes, chosen))
                if on_image is not None:
                    on_image(sample, prediction)
                if on_progress is not None:
                    on_progress(len(totals), len(mine))
    except Exception as error:
        if world_size == 1:
            raise
        failure = error
    if world_size > 1:
        totals = gather_totals(totals, failure)
    without = bool(totals.unpredicted.any())
    return Evaluation(totals=totals, seconds=time.perf_counter() - started, counts_unpredicted=without)


def _predicted(
    segmenter: Segmenter,
    batch: list[tuple[int, Sample]],
    calibration: Calibration | None,
    classes_of: Callable[[Tensor], NDArray[np.uint8]] | None,
) -> NDArray[np.uint8]:
    """Returns the classes (B, H, W), and adds the probabilities where their calibration is wanted."""
    if classes_of is not None:
        return np.stack([classes_of(sample.image) for _, sample in batch])
    images = torch.stack([sample.image for _, sample in batch])
    if calibration is None:
        classes: NDArray[np.uint8] = segmenter.classes(images).cpu().numpy()
        return classes
    logits = segmenter.logits(images)
    for scores, (_, sample) in zip(logits, batch, strict=True):
        if sample.target is not None:
            calibration.add(torch.softmax(scores, dim=0), sample.target)
    plain = segmenter.postprocessing is None or segmenter.postprocessing.is_empty
    found: NDArray[np.uint8] = (logits.argmax(1).to(torch.uint8) if plain else segmenter.classes(images)).cpu().numpy()
    return found


def _batches(dataset: SampleSource, indices: range, batch_size: int) -> Iterator[list[tuple[int, Sample]]]:
    batch: list[tuple[int, Sample]] = []
    for index in indices:
        sample = dataset[index]
        if batch and (len(batch) == batch_size or not _stackable(batch[0][1], sample)):
            yield batch
            batch = []
        batch.append((index, sample))
    if batch:
        yield batch


def _stackable(first: Sample, second: Sample) -> bool:
    return first.image.shape == second.image.shape and first.image.dtype == second.image.dtype


def _measured(
    index: int, sample: Sample, prediction: NDArray[Any], num_classes: int, measures: Measures
) -> ImageRecord:
    if sample.target is None:
        raise DataError(f"{sample.name}: the image has no mask, so nothing can be scored; leave it out of the split")
    target: NDArray[Any] = sample.target.numpy()
    try:
        return measure(prediction, target, num_classes, measures, index=index, name=sample.name)
    except InvalidValue as error:
        raise InvalidValue(f"{sample.name}: {error}") from error
