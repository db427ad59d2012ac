"""Splits the wrong pixels of each class into those near a true border and those inside regions.

Shapes: B batch, H W image, K classes. A border pixel has a 4-neighbour with another valid label; where a region meets
ignored pixels or the edge of the image there is no border. Distances are Euclidean, in pixels, from pixel centre to
the centre of the nearest border pixel, so that both pixels beside an edge are at distance 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from perpixel.errors import InvalidValue
from perpixel.metrics.confusion import refuse_bad_labels

__all__ = ["border_error_counts"]


def border_error_counts(
    prediction: NDArray[Any], target: NDArray[Any], num_classes: int, *, width_px: float, ignore_index: int = 255
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
    if prediction.shape != target.shape or target.ndim not in (2, 3):
        raise InvalidValue(
            f"prediction {prediction.shape} and target {target.shape} must share one shape, (H, W) or (B, H, W)"
        )
    if not width_px >= 0:
        raise InvalidValue(f"width_px is a distance in pixels, at least 0, got {width_px}")
    refuse_bad_labels(prediction, target, num_classes, ignore_index=ignore_index)
    counts = np.zeros((num_classes, 4), dtype=np.int64)
    pairs = [(prediction, target)] if target.ndim == 2 else zip(prediction, target, strict=True)
    for guess, truth in pairs:
        valid = truth != ignore_index
        near = valid & _near_border(truth, valid, width_px)
        inside = valid & ~near
        wrong = guess != truth
        for column, chosen in enumerate((wrong & near, wrong & inside, near, inside)):
            counts[:, column] += np.bincount(truth[chosen].astype(np.int64), minlength=num_classes)
    return counts


def _near_border(truth: NDArray[Any], valid: NDArray[np.bool_], width_px: float) -> NDArray[np.bool_]:
    border = np.zeros(truth.shape, dtype=bool)
    down = (truth[1:] != truth[:-1]) & valid[1:] & valid[:-1]
    border[1:] |= down
    border[:-1] |= down
    right = (truth[:, 1:] != truth[:, :-1]) & valid[:, 1:] & valid[:, :-1]
    border[:, 1:] |= right
    border[:, :-1] |= right
    if not border.any():
        return border
    near: NDArray[np.bool_] = distance_transform_edt(~border) <= width_px
    return near
