"""Every trunk by name: those that timm lacks in the form that a code base needs, and all of timm's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from perpixel.backbones.mobilenet_v2 import DRSLEEP_MOBILENET_V2, MobileNetV2, create_mobilenet_v2
from perpixel.backbones.resnet_gcn import RESNET_GCNS, create_resnet_gcn
from perpixel.backbones.timm_backbone import Backbone, BackboneConfig, create_backbone
from perpixel.backbones.torchvision_mobilenet_v3 import (
    TORCHVISION_MOBILENETS,
    TorchvisionMobileNetV3,
    create_torchvision_mobilenet_v3,
)
from perpixel.backbones.vainf_mobilenet_v2 import VAINF_MOBILENETS, VainfMobileNetV2, create_vainf_mobilenet_v2

__all__ = ["NAMED_TRUNKS", "Trunk", "create_trunk"]

Trunk: TypeAlias = Backbone | MobileNetV2 | TorchvisionMobileNetV3 | VainfMobileNetV2

NAMED_TRUNKS: dict[str, Callable[[BackboneConfig], Trunk]] = {
    DRSLEEP_MOBILENET_V2: create_mobilenet_v2,
    **dict.fromkeys(TORCHVISION_MOBILENETS, create_torchvision_mobilenet_v3),
    **dict.fromkeys(VAINF_MOBILENETS, create_vainf_mobilenet_v2),
    **dict.fromkeys(RESNET_GCNS, create_resnet_gcn),
}
"""Names beside timm's -> what builds them, for networks that take any trunk."""


def create_trunk(config: BackboneConfig) -> Trunk:
    """Builds the trunk of that name, with ``strides``, ``channels`` and ``preprocessing``, and loads its weights.

    Raises:
        InvalidValue: there is no such trunk, or it cannot take what is asked of it.
        CheckpointError: the weights cannot be had, or do not fit.
    """
    return NAMED_TRUNKS.get(config.name, create_backbone)(config)
