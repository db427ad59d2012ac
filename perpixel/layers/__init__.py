"""Blocks with parameters that more than one network uses."""

from perpixel.layers.conv import ConvNormAct, PooledBatchNorm2d, init_new_layers
from perpixel.layers.mirrored_decoder import MirroredDecoder, PooledMap

__all__ = ["ConvNormAct", "MirroredDecoder", "PooledBatchNorm2d", "PooledMap", "init_new_layers"]
