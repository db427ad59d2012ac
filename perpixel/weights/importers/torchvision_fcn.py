"""Checkpoints of torchvision's dilated FCN (torchvision 0.29, ``fcn_resnet50`` and ``fcn_resnet101``).

Classes, widths, depth and auxiliary head are read off keys and shapes. Corners are not aligned there, and the first
block of a dilated stage keeps the previous dilation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perpixel.models import FCNConfig, create_model
from perpixel.weights.importers.dilation import dilated_trunk, dilation_note, dilation_options
from perpixel.weights.importers.importer import Importer, Option, Plan, StateDict, convolution_weight, renamed
from perpixel.weights.importers.resnet_trunk import read_resnet

__all__ = ["FCN_IMPORTER"]

_AUXILIARY = "aux_classifier.4"
_RULES = (
    (r"^backbone\.", "backbone.net."),
    (r"^classifier\.0\.", "head.block.conv."),
    (r"^classifier\.1\.", "head.block.norm."),
    (r"^classifier\.4\.", "head.classifier."),
    (r"^aux_classifier\.0\.", "auxiliary_head.block.conv."),
    (r"^aux_classifier\.1\.", "auxiliary_head.block.norm."),
    (r"^aux_classifier\.4\.", "auxiliary_head.classifier."),
)


def _plan_fcn(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    num_classes, width = convolution_weight(tensors, "classifier.4").shape[:2]
    auxiliary = f"{_AUXILIARY}.weight" in tensors
    config = FCNConfig(
        width=width,
        auxiliary=auxiliary,
        auxiliary_width=convolution_weight(tensors, _AUXILIARY).shape[1] if auxiliary else FCNConfig.auxiliary_width,
        drop_channels=False,
        align_corners=options["align_corners"],
    )
    trunk = dilated_trunk(read_resnet(tensors, "backbone."), options)
    network = create_model("fcn", config, num_classes=num_classes, backbone=trunk)
    return Plan(network=network, rename=lambda key: renamed(key, _RULES), notes=(dilation_note(options),))


def _is_fcn(tensors: StateDict) -> bool:
    parts = {key.split(".")[0] for key in tensors}
    wanted = {"classifier.0.weight", "classifier.4.weight", "backbone.layer1.0.conv1.weight"}
    return wanted <= tensors.keys() and parts <= {"backbone", "classifier", "aux_classifier"}


FCN_IMPORTER = Importer(
    family="torchvision/fcn",
    title="dilated FCN of torchvision, on ResNets",
    options={
        "align_corners": Option(
            default=False, allowed=(False, True), help="how scores are resized; torchvision does not align corners"
        ),
        **dilation_options(output_stride=8, dilation="half"),
    },
    recognise=_is_fcn,
    plan=_plan_fcn,
)
