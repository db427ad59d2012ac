"""Scores a network on a data set, at the original resolution and over the whole set at once.

Shapes: B batch, K classes, H W image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from perpixel.data.dataset import Sample
from perpixel.errors import DataError, InvalidValue
from perpixel.inference.segmenter import Segmenter
from perpixel.metrics.border_errors import border_error_counts
from perpixel.metrics.confusion import confusion_matrix
from perpixel.metrics.scores import Scores, scores

__all__ = ["Evaluation", "ImageScore", "SampleSource", "evaluate_network", "image_score"]


class SampleSource(Protocol):
    """Samples by number, such as a `SegmentationDataset`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """Scores of one image, NaN where it has no valid pixel; their mean is not the score of the data set."""

    name: str
    mean_iou: float
    pixel_accuracy: float
    pixels: int
    """Valid pixels."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Counts over a whole data set, and the scores of its images."""

    confusion: NDArray[np.int64]
    """(K, K), rows true and columns predicted class."""
    images: tuple[ImageScore, ...]
    seconds: float
    border_errors: NDArray[np.int64] | None = None
    """(K, 4): wrong near a true border, wrong inside, valid near, valid inside; None when not asked for."""
    border_width_px: float | None = None
    unpredicted: NDArray[np.int64] | None = None
    """(K,) valid pixels of saved masks that no class was predicted for, wrong predictions all; None where not asked."""

    def scores(self, names: Sequence[str] | None = None) -> Scores:
        """Returns the scores of the data set, with the number of images."""
        result = scores(self.confusion, names, unpredicted=self.unpredicted)
        result["images"] = len(self.images)
        return result


def evaluate_network(
    segmenter: Segmenter,
    dataset: SampleSource,
    *,
    border_width_px: float | None = None,
    batch_size: int = 1,
    on_image: Callable[[Sample, NDArray[np.uint8]], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Streams a data set through a network; only one batch and the counts are held in memory.

    Args:
        segmenter: Predicts, at the size of each image.
        dataset: Samples with targets, without augmentation.
        border_width_px: Counts errors near true borders and inside regions too, with this width in pixels.
        batch_size: Consecutive images of one size that go through the network together.
        on_image: Called with each sample and its prediction (H, W) uint8.
        on_progress: Called after each image with the number done and the number of all.

    Raises:
        DataError: the data set is empty, a sample has no target, or a file cannot be used.
        InvalidValue: the batch size is not positive, or a target holds labels that the network does not know.
    """
    if batch_size < 1:
        raise InvalidValue(f"batch_size must be at least 1, got {batch_size}")
    total = len(dataset)
    if not total:
        raise DataError("there are no images to evaluate; check the split")
    started = time.perf_counter()
    num_classes = segmenter.labels.num_classes
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    borders = None if border_width_px is None else np.zeros((num_classes, 4), dtype=np.int64)
    images: list[ImageScore] = []
    for batch in _batches(dataset, total, batch_size):
        predictions = segmenter.classes(torch.stack([sample.image for sample in batch])).cpu().numpy()
        for sample, prediction in zip(batch, predictions, strict=True):
            target = _target(sample)
            counts = _counted(sample.name, prediction, target, num_classes)
            confusion += counts
            images.append(image_score(sample.name, counts))
            if borders is not None and border_width_px is not None:
                borders += border_error_counts(prediction, target, num_classes, width_px=border_width_px)
            if on_image is not None:
                on_image(sample, prediction)
            if on_progress is not None:
                on_progress(len(images), total)
    return Evaluation(
        confusion=confusion,
        images=tuple(images),
        seconds=time.perf_counter() - started,
        border_errors=borders,
        border_width_px=border_width_px,
    )


def image_score(name: str, confusion: NDArray[np.int64], unpredicted: NDArray[np.int64] | None = None) -> ImageScore:
    """Returns the scores of one image from its own confusion matrix (K, K)."""
    values = scores(confusion, unpredicted=unpredicted)
    return ImageScore(
        name=name, mean_iou=values["mean_iou"], pixel_accuracy=values["pixel_accuracy"], pixels=values["pixels"]
    )


def _batches(dataset: SampleSource, total: int, batch_size: int) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    for index in range(total):
        sample = dataset[index]
        if batch and (len(batch) == batch_size or not _stackable(batch[0], sample)):
            yield batch
            batch = []
        batch.append(sample)
    yield batch


def _stackable(first: Sample, second: Sample) -> bool:
    return first.image.shape == second.image.shape and first.image.dtype == second.image.dtype


def _target(sample: Sample) -> NDArray[Any]:
    if sample.target is None:
        raise DataError(f"{sample.name}: the image has no mask, so nothing can be scored; leave it out of the split")
    target: NDArray[Any] = sample.target.numpy()
    return target


def _counted(name: str, prediction: NDArray[Any], target: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    try:
        return confusion_matrix(prediction, target, num_classes)
    except InvalidValue as error:
        raise InvalidValue(f"{name}: {error}") from error
