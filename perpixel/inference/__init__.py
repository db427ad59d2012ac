"""Networks on images: the Segmenter, what it returns, and the writing of predictions."""

from perpixel.inference.boxes import box_scores, ensemble_probabilities, expand_boxes, object_examples
from perpixel.inference.drawing import display_image, error_map, overlay, save_picture, write_mask
from perpixel.inference.inputs import collect_inputs
from perpixel.inference.monte_carlo import MonteCarlo, MonteCarloDropout
from perpixel.inference.multi_scale import MultiScale
from perpixel.inference.postprocess import (
    PostProcessing,
    parse_thresholds,
    remove_small_regions,
    thresholded_classes,
)
from perpixel.inference.procedures import Procedure, WholeImage
from perpixel.inference.protocols import PROTOCOLS, named_protocol
from perpixel.inference.segmentation import Segmentation
from perpixel.inference.segmenter import Segmenter
from perpixel.inference.sliding import OverlapTile, SlidingWindow, Windows
from perpixel.inference.writer import PredictionReport, predict_files

__all__ = [
    "PROTOCOLS",
    "MonteCarlo",
    "MonteCarloDropout",
    "MultiScale",
    "OverlapTile",
    "PostProcessing",
    "PredictionReport",
    "Procedure",
    "Segmentation",
    "Segmenter",
    "SlidingWindow",
    "WholeImage",
    "Windows",
    "box_scores",
    "collect_inputs",
    "display_image",
    "ensemble_probabilities",
    "error_map",
    "expand_boxes",
    "named_protocol",
    "object_examples",
    "overlay",
    "parse_thresholds",
    "predict_files",
    "remove_small_regions",
    "save_picture",
    "thresholded_classes",
    "write_mask",
]
