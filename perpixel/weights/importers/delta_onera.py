"""Checkpoints of delta-onera/segnet_pytorch (at e3061650): SegNet on VGG16 with batch norm.

Classes, width and image channels are read off shapes. Its network takes sides that are multiples of 32 (poolings round
down); ours is the same function there, and takes any size. The code leaves the scaling of images to its user, so what a
checkpoint was trained on cannot be told: ImageNet's mean and deviation are assumed, **not verified**; correct
``network.preprocessing`` where they were others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perpixel.backbones import BackboneConfig
from perpixel.models import SegNetConfig, create_model
from perpixel.weights.importers.importer import Importer, Plan, StateDict, convolution_weight, renamed

__all__ = ["SEGNET_IMPORTER"]

_RULES = (
    (r"^conv11d\.", "classifier."),
    (r"^(conv|bn)(\d)(\d)d\.", r"decoder.block\2.\1\2_\3."),
    (r"^(conv|bn)(\d)(\d)\.", r"backbone.\1\2_\3."),
)
_NORM_EPS = 1e-5


def _plan(tensors: StateDict, _options: Mapping[str, Any]) -> Plan:
    width, in_channels = convolution_weight(tensors, "conv11").shape[:2]
    network = create_model(
        "segnet",
        SegNetConfig(width=width, norm_eps=_NORM_EPS),
        num_classes=convolution_weight(tensors, "conv11d").shape[0],
        backbone=BackboneConfig(name="vgg16", in_channels=in_channels),
    )
    return Plan(network=network, rename=lambda key: renamed(key, _RULES))


SEGNET_IMPORTER = Importer(
    family="delta-onera/segnet",
    title="SegNet of delta-onera/segnet_pytorch",
    options={},
    recognise=lambda tensors: (
        {"conv11.weight", "bn11.running_mean", "conv53d.weight", "conv11d.weight"} <= tensors.keys()
    ),
    plan=_plan,
)
