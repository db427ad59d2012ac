"""Which images two sets of predictions differ on: each image's own mean IoU on both sides.

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perpixel.metrics.image_counts import scores_of_counts

__all__ = ["ImageChange", "image_changes"]


@dataclass(frozen=True, kw_only=True)
class ImageChange:
    """Mean IoU of one image on both sides, fractions in [0, 1]."""

    name: str
    first: float
    second: float

    @property
    def change(self) -> float:
        """How far the first side lies above the second."""
        return self.first - self.second


def image_changes(
    names: Sequence[str], first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[tuple[ImageChange, ...], int]:
    """Returns the images by falling change, and how many have no score on a side.

    Args:
        names: Of the N images.
        first: (N, K, 3) right, true and predicted pixels (`image_counts`).
        second: The same of the other side.
    """
    means = (scores_of_counts(counts)["mean_iou"].tolist() for counts in (first, second))
    changes = [ImageChange(name=name, first=a, second=b) for name, a, b in zip(names, *means, strict=True)]
    defined = [image for image in changes if not np.isnan(image.change)]
    return tuple(sorted(defined, key=lambda image: (-image.change, image.name))), len(changes) - len(defined)
