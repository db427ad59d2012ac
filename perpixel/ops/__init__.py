"""Functions without parameters, on tensors of any device."""

from perpixel.ops.borders import border_targets
from perpixel.ops.concat_conv import conv_of_concat
from perpixel.ops.distance_weights import distance_weights, instance_ids
from perpixel.ops.presence import presence_targets
from perpixel.ops.resize import resize, resize_labels
from perpixel.ops.unpool import unpool

__all__ = [
    "border_targets",
    "conv_of_concat",
    "distance_weights",
    "instance_ids",
    "presence_targets",
    "resize",
    "resize_labels",
    "unpool",
]
