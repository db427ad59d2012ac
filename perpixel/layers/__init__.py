"""Blocks with parameters that more than one network uses."""

from perpixel.layers.conv import ConvNormAct, PooledBatchNorm2d, init_new_layers
from perpixel.layers.fcn_head import FCNHead
from perpixel.layers.mirrored_decoder import MirroredDecoder, PooledMap

__all__ = ["ConvNormAct", "FCNHead", "MirroredDecoder", "PooledBatchNorm2d", "PooledMap", "init_new_layers"]
