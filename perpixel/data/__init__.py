"""From files to batches: images and masks, data set layouts, splits, checks, augmentation, generated scenes."""

from __future__ import annotations

from perpixel.data.batches import Batch, TrainBatches
from perpixel.data.dataset import MaskEncoding, Sample, SegmentationDataset
from perpixel.data.image_files import image_size, read_color_mask, read_image, read_mask
from perpixel.data.infer_labels import LabelInference, infer_labels
from perpixel.data.scenes import SceneConfig, generate_scene, write_scenes
from perpixel.data.source import FORMATS, DataSource, Item, open_data, open_folders
from perpixel.data.splits import load_split, make_split, save_split
from perpixel.data.summary import (
    ClassWeighting,
    SplitSummary,
    check_trainable,
    class_weights,
    fingerprint,
    summarise,
)
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
    "open_data",
    "open_folders",
    "read_color_mask",
    "read_image",
    "read_mask",
    "save_split",
    "summarise",
    "write_scenes",
]
