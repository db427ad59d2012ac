"""Pure functions from label maps to counts, and from counts to scores.

What needs SciPy is loaded on first use: processes that count saved masks start in a third of the time without it.
"""

from typing import TYPE_CHECKING

from perpixel.lazy_names import lazy_names
from perpixel.metrics.bf_score import bf_score
from perpixel.metrics.boundary_iou import boundary_iou_counts
from perpixel.metrics.calibration import Calibration
from perpixel.metrics.cityscapes import CityscapesScores
from perpixel.metrics.confusion import confusion_matrix
from perpixel.metrics.conventions import CONVENTIONS, ConventionScore, ConventionScores
from perpixel.metrics.image_counts import image_counts, scores_of_counts
from perpixel.metrics.scores import ClassScores, Scores, scores, to_json
from perpixel.metrics.statistics import Interval, PairedTest, bootstrap, intervals, mean_intervals, paired_test

if TYPE_CHECKING:
    from perpixel.metrics.border_errors import border_error_counts
    from perpixel.metrics.neuron_segmentation import NeuronSegmentation, neuron_segmentation_scores
    from perpixel.metrics.region_sizes import region_size_counts, region_size_scores
    from perpixel.metrics.trimap import trimap_confusion, trimap_confusions

__all__ = [
    "CONVENTIONS",
    "Calibration",
    "CityscapesScores",
    "ClassScores",
    "ConventionScore",
    "ConventionScores",
    "Interval",
    "NeuronSegmentation",
    "PairedTest",
    "Scores",
    "bf_score",
    "bootstrap",
    "border_error_counts",
    "boundary_iou_counts",
    "confusion_matrix",
    "image_counts",
    "intervals",
    "mean_intervals",
    "neuron_segmentation_scores",
    "paired_test",
    "region_size_counts",
    "region_size_scores",
    "scores",
    "scores_of_counts",
    "to_json",
    "trimap_confusion",
    "trimap_confusions",
]

_HOME = {
    "border_error_counts": "border_errors",
    "NeuronSegmentation": "neuron_segmentation",
    "neuron_segmentation_scores": "neuron_segmentation",
    "region_size_counts": "region_sizes",
    "region_size_scores": "region_sizes",
    "trimap_confusion": "trimap",
    "trimap_confusions": "trimap",
}

__getattr__ = lazy_names(__name__, _HOME, globals())
