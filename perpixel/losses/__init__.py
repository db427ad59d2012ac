"""Loss functions, and the sum of them that a network is trained with."""

from perpixel.losses.cross_entropy import cross_entropy
from perpixel.losses.focal import focal_loss, sigmoid_focal_loss, torchseg_focal_loss
from perpixel.losses.ohem import ohem_cross_entropy
from perpixel.losses.presence import presence_loss
from perpixel.losses.reduction import shared_divisors
from perpixel.losses.region import dice_loss, lovasz_softmax_loss
from perpixel.losses.segmentation_loss import LOSSES, LossEntry, LossValue, SegmentationLoss, with_class_weights
from perpixel.losses.weighted import pixel_weighted_cross_entropy

__all__ = [
    "LOSSES",
    "LossEntry",
    "LossValue",
    "SegmentationLoss",
    "cross_entropy",
    "dice_loss",
    "focal_loss",
    "lovasz_softmax_loss",
    "ohem_cross_entropy",
    "pixel_weighted_cross_entropy",
    "presence_loss",
    "shared_divisors",
    "sigmoid_focal_loss",
    "torchseg_focal_loss",
    "with_class_weights",
]
