"""Networks on images: the Segmenter, what it returns, and the writing of predictions."""

from perpixel.inference.drawing import display_image, error_map, overlay, save_picture, write_mask
from perpixel.inference.inputs import collect_inputs
from perpixel.inference.segmentation import Segmentation
from perpixel.inference.segmenter import Segmenter
from perpixel.inference.writer import PredictionReport, predict_files

__all__ = [
    "PredictionReport",
    "Segmentation",
    "Segmenter",
    "collect_inputs",
    "display_image",
    "error_map",
    "overlay",
    "predict_files",
    "save_picture",
    "write_mask",
]
