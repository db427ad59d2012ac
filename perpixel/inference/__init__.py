"""Networks on images: the Segmenter, what it returns, and the writing of predictions."""

from perpixel.inference.boxes import box_scores, ensemble_probabilities, expand_boxes, object_examples
from perpixel.inference.drawing import display_image, error_map, overlay, save_picture, write_mask
from perpixel.inference.inputs import collect_inputs
from perpixel.inference.monte_carlo import MonteCarlo, MonteCarloDropout
from perpixel.inference.segmentation import Segmentation
from perpixel.inference.segmenter import Segmenter
from perpixel.inference.writer import PredictionReport, predict_files

__all__ = [
    "MonteCarlo",
    "MonteCarloDropout",
    "PredictionReport",
    "Segmentation",
    "Segmenter",
    "box_scores",
    "collect_inputs",
    "display_image",
    "ensemble_probabilities",
    "error_map",
    "expand_boxes",
    "object_examples",
    "overlay",
    "predict_files",
    "save_picture",
    "write_mask",
]
