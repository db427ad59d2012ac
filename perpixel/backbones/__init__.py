"""Backbones: image classification networks read as pyramids of feature maps, under one contract."""

from perpixel.backbones.caffe_resnet import CAFFE_RESNETS, DEEPLAB_PREPROCESSING, CaffeResNet, create_caffe_resnet
from perpixel.backbones.timm_backbone import Backbone, BackboneConfig, create_backbone
from perpixel.backbones.vgg16 import CAFFE_PREPROCESSING, VGG16, FullyConnected, Pool, VGG16Layout, create_vgg16
from perpixel.backbones.weight_files import open_checkpoint, read_checkpoint, unwrap

__all__ = [
    "CAFFE_PREPROCESSING",
    "CAFFE_RESNETS",
    "DEEPLAB_PREPROCESSING",
    "VGG16",
    "Backbone",
    "BackboneConfig",
    "CaffeResNet",
    "FullyConnected",
    "Pool",
    "VGG16Layout",
    "create_backbone",
    "create_caffe_resnet",
    "create_vgg16",
    "open_checkpoint",
    "read_checkpoint",
    "unwrap",
]
