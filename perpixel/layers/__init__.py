"""Blocks with parameters that more than one network uses."""

from perpixel.layers.conv import ConvNormAct, PooledBatchNorm2d, init_new_layers

__all__ = ["ConvNormAct", "PooledBatchNorm2d", "init_new_layers"]
