"""Blocks with parameters that more than one network uses."""

from perpixel.layers.aspp import ASPP, SpatialConv
from perpixel.layers.conv import ConvNorm, ConvNormAct, PooledBatchNorm2d, init_new_layers
from perpixel.layers.encoding import Encoding
from perpixel.layers.fcn_head import FCNHead
from perpixel.layers.mirrored_decoder import MirroredDecoder, PooledMap
from perpixel.layers.separable import SeparableConvNormAct

__all__ = [
    "ASPP",
    "ConvNorm",
    "ConvNormAct",
    "Encoding",
    "FCNHead",
    "MirroredDecoder",
    "PooledBatchNorm2d",
    "PooledMap",
    "SeparableConvNormAct",
    "SpatialConv",
    "init_new_layers",
]
