"""Checkpoints of PyTorch-Encoding (zhanghang1989/PyTorch-Encoding at ac748410): its dilated FCN and its PSPNet.

Classes, widths, depth, stem, branches and auxiliary head are read off keys and shapes. Both corners of every resizing
are aligned there, and the first block of a dilated stage keeps the previous dilation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perpixel.models import FCNConfig, create_model
from perpixel.weights.importers.dilation import dilated_trunk, dilation_note, dilation_options
from perpixel.weights.importers.importer import Importer, Option, Plan, StateDict, convolution_weight, renamed
from perpixel.weights.importers.pyramid import PyramidNames, pyramid_note, pyramid_options, read_pspnet
from perpixel.weights.importers.resnet_trunk import read_resnet

__all__ = ["FCN_IMPORTER", "PSPNET_IMPORTER"]

_TRUNK = "pretrained."
_AUXILIARY = "auxlayer.conv5.4"
_AUXILIARY_WEIGHT = 0.2
"""Of its training script."""
_NAMES = PyramidNames(
    branch="head.conv5.0.conv{}.0",
    fusion="head.conv5.1",
    classifier="head.conv5.5",
    auxiliary=_AUXILIARY,
    first_branch=1,
)
_SHARED_RULES = (
    (r"^pretrained\.", "backbone.net."),
    (r"^auxlayer\.conv5\.0\.", "auxiliary_head.block.conv."),
    (r"^auxlayer\.conv5\.1\.", "auxiliary_head.block.norm."),
    (r"^auxlayer\.conv5\.4\.", "auxiliary_head.classifier."),
)
_FCN_RULES = (
    *_SHARED_RULES,
    (r"^head\.conv5\.0\.", "head.block.conv."),
    (r"^head\.conv5\.1\.", "head.block.norm."),
    (r"^head\.conv5\.4\.", "head.classifier."),
)
_PSPNET_RULES = (
    *_SHARED_RULES,
    *(
        (rf"^head\.conv5\.0\.conv{branch}\.{theirs}\.", f"pyramid.branches.{branch - 1}.{ours}.")
        for branch in range(1, 10)
        for theirs, ours in ((0, "conv"), (1, "norm"))
    ),
    (r"^head\.conv5\.1\.", "fusion.conv."),
    (r"^head\.conv5\.2\.", "fusion.norm."),
    (r"^head\.conv5\.5\.", "classifier."),
)
_UNUSED = {"pretrained.fc.": "the trunk's ImageNet classifier, which the network does not use"}
_ALIGN_CORNERS = Option(default=True, allowed=(True, False), help="how scores are resized; that code aligns corners")


def _plan_fcn(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    num_classes, width = convolution_weight(tensors, "head.conv5.4").shape[:2]
    auxiliary = f"{_AUXILIARY}.weight" in tensors
    config = FCNConfig(
        width=width,
        auxiliary=auxiliary,
        auxiliary_width=convolution_weight(tensors, _AUXILIARY).shape[1] if auxiliary else FCNConfig.auxiliary_width,
        auxiliary_weight=_AUXILIARY_WEIGHT,
        drop_channels=False,
        align_corners=options["align_corners"],
    )
    trunk = dilated_trunk(read_resnet(tensors, _TRUNK), options)
    network = create_model("fcn", config, num_classes=num_classes, backbone=trunk)
    return Plan(
        network=network,
        rename=lambda key: renamed(key, _FCN_RULES),
        unused=_UNUSED,
        notes=(dilation_note(options),),
    )


def _plan_pspnet(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    forms = {"auxiliary_weight": _AUXILIARY_WEIGHT, "drop_channels": False}
    config, num_classes = read_pspnet(tensors, _NAMES, options, **forms)
    trunk = dilated_trunk(read_resnet(tensors, _TRUNK), options)
    network = create_model("pspnet", config, num_classes=num_classes, backbone=trunk)
    return Plan(
        network=network,
        rename=lambda key: renamed(key, _PSPNET_RULES),
        unused=_UNUSED,
        notes=(dilation_note(options), pyramid_note(options)),
    )


def _is_fcn(tensors: StateDict) -> bool:
    parts = {key.split(".")[0] for key in tensors}
    wanted = {"head.conv5.0.weight", "head.conv5.4.weight", "pretrained.layer1.0.conv1.weight"}
    return wanted <= tensors.keys() and parts <= {"pretrained", "head", "auxlayer"}


def _is_pspnet(tensors: StateDict) -> bool:
    return {"head.conv5.0.conv1.0.weight", "head.conv5.1.weight", "pretrained.layer1.0.conv1.weight"} <= tensors.keys()


FCN_IMPORTER = Importer(
    family="encoding/fcn",
    title="dilated FCN of PyTorch-Encoding, on ResNets",
    options={"align_corners": _ALIGN_CORNERS, **dilation_options(output_stride=8, dilation="half")},
    recognise=_is_fcn,
    plan=_plan_fcn,
)
PSPNET_IMPORTER = Importer(
    family="encoding/pspnet",
    title="PSPNet of PyTorch-Encoding, on ResNets",
    options={**pyramid_options(), **dilation_options(output_stride=8, dilation="half")},
    recognise=_is_pspnet,
    plan=_plan_pspnet,
)
