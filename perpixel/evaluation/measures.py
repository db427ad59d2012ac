"""What is measured on each image, and what is kept of it: sums that add up over images, processes and ranks.

Shapes: H W image, K classes, N images, W trimap widths. A network's masks and any tool's saved masks go through the
same code. Pixels for which no class was predicted are a column of their own, so that nothing counts as right by
being absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue, nearest
from perpixel.metrics.bf_score import bf_score
from perpixel.metrics.boundary_iou import boundary_iou_counts
from perpixel.metrics.cityscapes import CityscapesScores
from perpixel.metrics.convention_rules import JointCounts
from perpixel.metrics.conventions import CONVENTIONS
from perpixel.metrics.image_counts import image_counts

if TYPE_CHECKING:
    from perpixel.metrics.neuron_segmentation import NeuronScores

__all__ = ["IGNORED", "BoundaryOptions", "ImageRecord", "ImageScore", "Measures"]

Counts: TypeAlias = NDArray[np.int64]

IGNORED = 255


@dataclass(frozen=True, kw_only=True)
class BoundaryOptions:
    """How contours and bands are compared: the arguments of `bf_score`, and ``dilation_ratio`` of Boundary IoU.

    Raises:
        InvalidValue: an option is not as these two take it.
    """

    tolerance_px: float | None = None
    tolerance_diagonal: float = 0.0075
    strict: bool = False
    connectivity: int = 4
    border_is_contour: bool = False
    void: Literal["copied", "dropped"] = "copied"
    matching: Literal["nearest", "one_to_one"] = "nearest"
    dilation_ratio: float = 0.02

    def __post_init__(self) -> None:
        pixel = np.zeros((1, 1), np.uint8)
        self.bf_scores(pixel, pixel, 1)
        self.boundary_iou(pixel, pixel, 1)

    def bf_scores(self, prediction: NDArray[Any], target: NDArray[Any], num_classes: int) -> NDArray[np.float64]:
        """Returns the BF scores (K,) of one pair of train ids (H, W)."""
        return bf_score(
            prediction,
            target,
            num_classes,
            tolerance_px=self.tolerance_px,
            tolerance_diagonal=self.tolerance_diagonal,
            strict=self.strict,
            connectivity=self.connectivity,
            border_is_contour=self.border_is_contour,
            void=self.void,
            matching=self.matching,
        )

    def boundary_iou(self, prediction: NDArray[Any], target: NDArray[Any], num_classes: int) -> Counts:
        """Returns intersections and unions (K, 2) of one pair of train ids (H, W)."""
        counts = boundary_iou_counts(prediction, target, num_classes, dilation_ratio=self.dilation_ratio)
        return np.stack(counts, axis=1)


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What is measured besides the confusion matrix.

    Raises:
        InvalidValue: a width is negative or given twice, or there is no such convention.
    """

    border_width_px: float | None = None
    """Errors near true borders and inside regions, with this width in pixels."""
    boundary: bool = False
    """BF score and Boundary IoU."""
    boundary_options: BoundaryOptions = BoundaryOptions()
    trimap_px: tuple[float, ...] = ()
    """Widths of the bands around true borders that are scored alone, pixels."""
    region_sizes: bool = False
    """Recall of true regions by their size."""
    neurons: bool = False
    """ISBI's V_Rand and V_Info, class 0 being the membrane."""
    calibration: bool = False
    """Calibration of the probabilities; networks alone."""
    conventions: tuple[str, ...] = ()
    """Keys of `perpixel.metrics.conventions.CONVENTIONS`: what these toolkits would print."""
    cityscapes: bool = False
    """Cityscapes' iIoU and categories; saved masks with Cityscapes' ids alone."""

    def __post_init__(self) -> None:
        for name, width in (("border_width_px", self.border_width_px), *(("trimap_px", w) for w in self.trimap_px)):
            if width is not None and not width >= 0:
                raise InvalidValue(f"{name} is a distance in pixels, at least 0, got {width}")
        if len({f"{width:g}" for width in self.trimap_px}) < len(self.trimap_px):  # as the keys of the JSON have it
            raise InvalidValue(f"trimap_px holds a width twice: {', '.join(f'{w:g}' for w in self.trimap_px)}")
        for name in self.conventions:
            if name not in CONVENTIONS:
                known = ", ".join(CONVENTIONS)
                raise InvalidValue(f"no convention {name!r}{nearest(name, CONVENTIONS, end='.')} Known: {known}")

    @property
    def of_pixels(self) -> bool:
        """Whether the label maps themselves are needed, not only how often each pair of labels occurs."""
        return self.of_train_ids or self.cityscapes

    @property
    def of_train_ids(self) -> bool:
        """Whether the train ids of every pixel are needed."""
        wanted = (self.boundary, self.trimap_px, self.region_sizes, self.neurons)
        return self.border_width_px is not None or any(wanted)


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """Scores of one image, NaN where it has no valid pixel; their mean is not the score of the data set."""

    name: str
    mean_iou: float
    pixel_accuracy: float
    pixels: int
    """Valid pixels."""


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """Everything that is kept of one image."""

    index: int
    """Its place in the data set, from 0."""
    name: str
    confusion: Counts
    """(K, K), rows true and columns predicted class."""
    unpredicted: Counts
    """(K,) valid pixels without a predicted class."""
    border_errors: Counts | None = None
    """(K, 4), as `border_error_counts`."""
    bf_scores: NDArray[np.float64] | None = None
    """(K,), NaN where a class is in neither map."""
    boundary_iou: Counts | None = None
    """(K, 2): intersections and unions."""
    trimaps: Counts | None = None
    """(W, K, K + 1): confusion within each band, with a last column for pixels without a predicted class."""
    region_sizes: Counts | None = None
    """(K, S, 3), as `region_size_counts`."""
    neurons: NeuronScores | None = None
    pairs: JointCounts | None = field(default=None, repr=False)
    """How often each pair of labels occurs, for the conventions."""
    cityscapes: CityscapesScores | None = field(default=None, repr=False)

    @property
    def counts(self) -> Counts:
        """(K, 3): right, true and predicted pixels."""
        return image_counts(self.confusion, self.unpredicted)
