"""From files to batches: images and masks, data set layouts, splits, checks, augmentation, generated scenes.

The names below load what they need on first use: reading masks in worker processes needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perpixel.data.infer_labels import LabelInference, infer_labels  # at once: a function named as its module
from perpixel.lazy_names import lazy_names

if TYPE_CHECKING:
    from perpixel.data.batches import Batch, TrainBatches
    from perpixel.data.class_weighting import ClassWeighting, class_weights
    from perpixel.data.dataset import MaskEncoding, Sample, SegmentationDataset
    from perpixel.data.image_files import image_size, read_color_mask, read_image, read_mask
    from perpixel.data.scenes import SceneConfig, generate_scene, write_scenes
    from perpixel.data.source import FORMATS, DataSource, Item, open_data, open_folders
    from perpixel.data.splits import load_split, make_split, save_split
    from perpixel.data.summary import SplitSummary, check_trainable, fingerprint, names_digest, summarise
    from perpixel.data.transforms import Augmentation

__all__ = [
    "FORMATS",
    "Augmentation",
    "Batch",
    "ClassWeighting",
    "DataSource",
    "Item",
    "LabelInference",
    "MaskEncoding",
    "Sample",
    "SceneConfig",
    "SegmentationDataset",
    "SplitSummary",
    "TrainBatches",
    "check_trainable",
    "class_weights",
    "fingerprint",
    "generate_scene",
    "image_size",
    "infer_labels",
    "load_split",
    "make_split",
    "names_digest",
    "open_data",
    "open_folders",
    "read_color_mask",
    "read_image",
    "read_mask",
    "save_split",
    "summarise",
    "write_scenes",
]

_HOME = {
    "FORMATS": "source",
    "Augmentation": "transforms",
    "Batch": "batches",
    "ClassWeighting": "class_weighting",
    "DataSource": "source",
    "Item": "source",
    "MaskEncoding": "dataset",
    "Sample": "dataset",
    "SceneConfig": "scenes",
    "SegmentationDataset": "dataset",
    "SplitSummary": "summary",
    "TrainBatches": "batches",
    "check_trainable": "summary",
    "class_weights": "class_weighting",
    "fingerprint": "summary",
    "generate_scene": "scenes",
    "image_size": "image_files",
    "load_split": "splits",
    "make_split": "splits",
    "names_digest": "summary",
    "open_data": "source",
    "open_folders": "source",
    "read_color_mask": "image_files",
    "read_image": "image_files",
    "read_mask": "image_files",
    "save_split": "splits",
    "summarise": "summary",
    "write_scenes": "scenes",
}

__getattr__ = lazy_names(__name__, _HOME, globals())
