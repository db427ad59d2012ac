"""Measuring one pair of label maps, pixel by pixel.

Shapes: H W image, K classes. Pixels for which no class was predicted become a class of their own, so that nothing
counts as right by being absent.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue
from perpixel.evaluation.measures import IGNORED, ImageRecord, Measures
from perpixel.metrics.border_errors import border_error_counts
from perpixel.metrics.confusion import confusion_matrix
from perpixel.metrics.convention_rules import joint_counts
from perpixel.metrics.neuron_segmentation import neuron_segmentation_scores
from perpixel.metrics.region_sizes import region_size_counts
from perpixel.metrics.trimap import trimap_confusions

__all__ = ["measure", "with_pixels"]

_MOST_CLASSES = 254


def measure(
    prediction: NDArray[Any],
    target: NDArray[Any],
    num_classes: int,
    measures: Measures,
    *,
    index: int = 0,
    name: str = "image",
) -> ImageRecord:
    """Measures one pair of label maps.

    Args:
        prediction: Predicted train ids (H, W); 255 where a valid pixel has no predicted class.
        target: True train ids (H, W), 255 where ignored.
        num_classes: K.
        measures: What to measure.
        index: Place of the image in the data set.
        name: Of the image.

    Raises:
        InvalidValue: shapes differ or a label is out of range.
    """
    without = (target != IGNORED) & (prediction == IGNORED)
    unpredicted = np.bincount(target[without], minlength=num_classes).astype(np.int64)
    judged = np.where(without, np.uint8(IGNORED), target) if without.any() else target
    confusion = confusion_matrix(prediction, judged, num_classes)
    pairs = joint_counts(prediction, target) if measures.conventions else None
    return with_pixels(
        ImageRecord(index=index, name=name, confusion=confusion, unpredicted=unpredicted, pairs=pairs),
        prediction,
        target,
        measures,
    )


def with_pixels(record: ImageRecord, prediction: NDArray[Any], target: NDArray[Any], measures: Measures) -> ImageRecord:
    """Adds to a record what needs the train ids (H, W) of every pixel; 255 means the same as in `measure`.

    Raises:
        InvalidValue: there are more classes than train ids leave room for a class "not predicted".
    """
    if not measures.of_train_ids:
        return record
    num_classes = len(record.confusion)
    labels = num_classes
    if record.unpredicted.any():
        if num_classes > _MOST_CLASSES:
            raise InvalidValue(
                f"{record.name}: pixels without a predicted class and {num_classes} classes; boundaries can be "
                f"measured for up to {_MOST_CLASSES} classes then"
            )
        prediction = np.where(prediction == IGNORED, np.uint8(num_classes), prediction)
        labels += 1
    found: dict[str, Any] = {}
    if measures.border_width_px is not None:
        errors = border_error_counts(prediction, target, labels, width_px=measures.border_width_px)
        found["border_errors"] = errors[:num_classes]
    if measures.boundary:
        found["bf_scores"] = measures.boundary_options.bf_scores(prediction, target, labels)[:num_classes]
        found["boundary_iou"] = measures.boundary_options.boundary_iou(prediction, target, labels)[:num_classes]
    if measures.trimap_px:
        bands = trimap_confusions(prediction, target, labels, widths_px=measures.trimap_px)
        found["trimaps"] = np.zeros((len(bands), num_classes, num_classes + 1), dtype=np.int64)
        found["trimaps"][:, :, :labels] = bands[:, :num_classes]
    if measures.region_sizes:
        found["region_sizes"] = region_size_counts(prediction, target, labels)[:num_classes]
    if measures.neurons:
        # Pixels without a class become membrane, each a segment of its own: as a cell they would be right by chance.
        cells = np.where(prediction < num_classes, prediction, np.uint8(0))
        found["neurons"] = neuron_segmentation_scores(cells, target)
    return replace(record, **found)
