"""Backbones: image classification networks read as pyramids of feature maps, under one contract."""

from perpixel.backbones.timm_backbone import Backbone, BackboneConfig, create_backbone
from perpixel.backbones.weight_files import open_checkpoint, read_checkpoint, unwrap

__all__ = ["Backbone", "BackboneConfig", "create_backbone", "open_checkpoint", "read_checkpoint", "unwrap"]
