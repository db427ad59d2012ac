"""Splits the wrong pixels of each class into those near a true border and those inside regions.

Shapes: B batch, H W image, K classes. A border pixel has a 4-neighbour with another valid label; where a region meets
ignored pixels or the edge of the image there is no border. Distances are Euclidean, in pixels, from pixel centre to
the centre of the nearest border pixel, so that both pixels beside an edge are at distance 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue
from perpixel.metrics.confusion import confusion_matrix
from perpixel.metrics.tensors import Tensor, host_labels
from perpixel.metrics.trimap import trimap_confusion

__all__ = ["border_error_counts"]


def border_error_counts(
    prediction: NDArray[Any] | Tensor,
    target: NDArray[Any] | Tensor,
    num_classes: int,
    *,
    width_px: float,
    ignore_index: int = 255,
) -> NDArray[np.int64]:
    """Counts per true class the wrong and the valid pixels near a true border and inside regions.

    Args:
        prediction: Predicted train ids (H, W) or (B, H, W), in [0, K) on valid pixels.
        target: True train ids of the same shape, each in [0, K) or equal to ``ignore_index``.
        num_classes: K.
        width_px: Largest distance from a border, in pixels, that still counts as near; at least 0.
        ignore_index: Target value that is left out.

    Returns:
        Counts (K, 4) int64: wrong near, wrong inside, valid near, valid inside. An image without border is all inside.

    Raises:
        InvalidValue: shapes differ or are not 2- or 3-dimensional, the width is negative, or a label is out of range.
    """
    if not width_px >= 0:
        raise InvalidValue(f"width_px is a distance in pixels, at least 0, got {width_px}")
    guess, truth = host_labels(prediction, "prediction"), host_labels(target, "target")
    near = trimap_confusion(guess, truth, num_classes, width_px=width_px, ignore_index=ignore_index)
    inside = confusion_matrix(guess, truth, num_classes, ignore_index=ignore_index) - near
    valid = [counts.sum(axis=1) for counts in (near, inside)]
    wrong = [total - np.diag(counts) for total, counts in zip(valid, (near, inside), strict=True)]
    return np.stack([*wrong, *valid], axis=1)
