"""Backbones: image classification networks read as pyramids of feature maps, under one contract."""

from perpixel.backbones.caffe_resnet import CAFFE_RESNETS, DEEPLAB_PREPROCESSING, CaffeResNet, create_caffe_resnet
from perpixel.backbones.hrnet import HRNETS, HRNet, HRNetLayout, create_hrnet
from perpixel.backbones.icnet_trunk import ICNET_TRUNK, ICNetTrunk, TwoScaleTrunk, create_icnet_trunk
from perpixel.backbones.resnet_gcn import RESNET_GCNS, create_resnet_gcn
from perpixel.backbones.timm_backbone import Backbone, BackboneConfig, create_backbone
from perpixel.backbones.torchvision_mobilenet_v3 import TORCHVISION_MOBILENETS
from perpixel.backbones.trunks import NAMED_TRUNKS, Trunk, create_trunk
from perpixel.backbones.vainf_mobilenet_v2 import VAINF_BLOCK_RULES, VAINF_MOBILENETS
from perpixel.backbones.vgg16 import CAFFE_PREPROCESSING, VGG16, FullyConnected, Pool, VGG16Layout, create_vgg16
from perpixel.backbones.weight_files import open_checkpoint, read_checkpoint, unwrap

__all__ = [
    "CAFFE_PREPROCESSING",
    "CAFFE_RESNETS",
    "DEEPLAB_PREPROCESSING",
    "HRNETS",
    "ICNET_TRUNK",
    "NAMED_TRUNKS",
    "RESNET_GCNS",
    "TORCHVISION_MOBILENETS",
    "VAINF_BLOCK_RULES",
    "VAINF_MOBILENETS",
    "VGG16",
    "Backbone",
    "BackboneConfig",
    "CaffeResNet",
    "FullyConnected",
    "HRNet",
    "HRNetLayout",
    "ICNetTrunk",
    "Pool",
    "Trunk",
    "TwoScaleTrunk",
    "VGG16Layout",
    "create_backbone",
    "create_caffe_resnet",
    "create_hrnet",
    "create_icnet_trunk",
    "create_resnet_gcn",
    "create_trunk",
    "create_vgg16",
    "open_checkpoint",
    "read_checkpoint",
    "unwrap",
]
