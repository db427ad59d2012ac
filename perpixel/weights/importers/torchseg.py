"""Checkpoints of TorchSeg (ycszen/TorchSeg at 62eeb159): DFN, FCN-32s and PSPNet on its ResNets.

Classes, widths, depth, kind of block and stem are read off keys and shapes. TorchSeg's trunk has the names of timm's
ResNets; its DFN numbers the smooth stages from the coarsest and the border stages from the finest, as ours does.

Differences that stay visible in a report: ``border_aft_rrbs.0`` is constructed there and never called. TorchSeg
normalises FCN-32s's images with 0.224 in place of 0.225 for blue, so the imported network does too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perpixel.errors import CheckpointError
from perpixel.models import DFNConfig, FCNConfig, Network, create_model
from perpixel.types import Preprocessing
from perpixel.weights.importers.dilation import dilated_trunk, dilation_note, dilation_options
from perpixel.weights.importers.importer import (
    Importer,
    Option,
    Plan,
    StateDict,
    convolution_weight,
    has_prefix,
    renamed,
)
from perpixel.weights.importers.pyramid import PyramidNames, pyramid_note, pyramid_options, read_pspnet
from perpixel.weights.importers.resnet_trunk import read_resnet

__all__ = ["DFN_IMPORTER", "FCN32S_IMPORTER", "PSPNET_IMPORTER"]

_FCN_PREPROCESSING = Preprocessing(std=(0.229, 0.224, 0.224))
_ALIGN_CORNERS = Option(
    default=True,
    allowed=(True, False),
    help="how scores are resized; TorchSeg aligns corners everywhere, a fork that was trained anew may not",
)

# Their name -> ours, one rule after the other on each key.
_REFINEMENT = (
    (r"conv_1x1\.", "project."),
    (r"cbr\.conv\.", "residual.conv."),
    (r"cbr\.bn\.", "residual.norm."),
    (r"conv_refine\.", "refine."),
)
_DFN_RULES = (
    (r"^backbone\.", "backbone.net."),
    (r"^global_context\.1\.conv\.", "global_context.conv."),
    (r"^global_context\.1\.bn\.", "global_context.norm."),
    (r"^smooth_heads\.(\d+)\.conv\.", r"smooth.\1.head.classifier."),
    (r"^border_heads\.(\d+)\.conv\.", r"border.\1.head.classifier."),
    *((rf"^((?:smooth|border)_\w+\.\d+\.(?:rrb\.)?){theirs}", rf"\1{ours}") for theirs, ours in _REFINEMENT),
    (r"^(smooth|border)_pre_rrbs\.(\d+)\.", r"\1.\2.refine_in."),
    (r"^smooth_aft_rrbs\.(\d+)\.", r"smooth.\1.refine_out."),
    (r"^border_aft_rrbs\.(\d+)\.", r"border.\1.refine_sum."),
    (r"^(smooth|border)_heads\.(\d+)\.rrb\.", r"\1.\2.head.refine."),
    (r"^cabs\.(\d+)\.channel_attention\.fc\.", r"smooth.\1.attention.weights."),
)
_FCN_RULES = (
    (r"^backbone\.", "backbone.net."),
    (r"^aux_head\.", "auxiliary_head."),
    (r"^(head|auxiliary_head)\.cbr\.conv\.", r"\1.block.conv."),
    (r"^(head|auxiliary_head)\.cbr\.bn\.", r"\1.block.norm."),
    (r"^(head|auxiliary_head)\.conv1x1\.", r"\1.classifier."),
)
_PSPNET_NAMES = PyramidNames(
    branch="psp_layer.ppm.{}.psp/cbr.conv",
    fusion="psp_layer.conv6.0.conv",
    classifier="psp_layer.conv6.2",
    auxiliary="aux_layer.2",
)
_PSPNET_RULES = (
    (r"^backbone\.", "backbone.net."),
    (r"^psp_layer\.ppm\.(\d+)\.psp/cbr\.conv\.", r"pyramid.branches.\1.conv."),
    (r"^psp_layer\.ppm\.(\d+)\.psp/cbr\.bn\.", r"pyramid.branches.\1.norm."),
    (r"^psp_layer\.conv6\.0\.conv\.", "fusion.conv."),
    (r"^psp_layer\.conv6\.0\.bn\.", "fusion.norm."),
    (r"^psp_layer\.conv6\.2\.", "classifier."),
    (r"^aux_layer\.0\.conv\.", "auxiliary_head.block.conv."),
    (r"^aux_layer\.0\.bn\.", "auxiliary_head.block.norm."),
    (r"^aux_layer\.2\.", "auxiliary_head.classifier."),
)
_DFN_UNUSED = {"border_aft_rrbs.0.": "constructed by TorchSeg, but never used by its network"}


def _plan_dfn(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    num_classes, hidden = convolution_weight(tensors, "smooth_heads.0.conv").shape[:2]
    width = convolution_weight(tensors, "smooth_pre_rrbs.0.conv_1x1").shape[0]
    attention = _attention_width(tensors)
    if hidden % num_classes or width % attention:
        raise CheckpointError(
            f"smooth heads of {hidden} channels for {num_classes} classes, attention of {attention} for width {width}: "
            "TorchSeg's DFN has whole multiples"
        )
    config = DFNConfig(
        width=width,
        border_width=convolution_weight(tensors, "border_pre_rrbs.0.conv_1x1").shape[0],
        head_expansion=hidden // num_classes,
        attention_reduction=width // attention,
        align_corners=options["align_corners"],
    )
    trunk = read_resnet(tensors, "backbone.")
    network = create_model("dfn", config, num_classes=num_classes, backbone=trunk)
    return Plan(network=network, rename=lambda key: renamed(key, _DFN_RULES), unused=_DFN_UNUSED)


def _attention_width(tensors: StateDict) -> int:
    key = "cabs.0.channel_attention.fc.0.weight"
    if key not in tensors:
        raise CheckpointError(f"the checkpoint lacks {key!r}, which its sizes are read from")
    return tensors[key].shape[0]


def _plan_fcn32s(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    num_classes, width = convolution_weight(tensors, "head.conv1x1").shape[:2]
    auxiliary = "aux_head.conv1x1.weight" in tensors
    config = FCNConfig(
        width=width,
        auxiliary=auxiliary,
        auxiliary_width=tensors["aux_head.conv1x1.weight"].shape[1] if auxiliary else FCNConfig.auxiliary_width,
        align_corners=options["align_corners"],
    )
    trunk = read_resnet(tensors, "backbone.")
    network: Network = create_model("fcn", config, num_classes=num_classes, backbone=trunk)
    if trunk.in_channels == _FCN_PREPROCESSING.num_channels:
        network.preprocessing = _FCN_PREPROCESSING
    return Plan(network=network, rename=lambda key: renamed(key, _FCN_RULES))


def _plan_pspnet(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    config, num_classes = read_pspnet(tensors, _PSPNET_NAMES, options)
    trunk = dilated_trunk(read_resnet(tensors, "backbone."), options)
    return Plan(
        network=create_model("pspnet", config, num_classes=num_classes, backbone=trunk),
        rename=lambda key: renamed(key, _PSPNET_RULES),
        notes=(dilation_note(options), pyramid_note(options)),
    )


def _is_dfn(tensors: StateDict) -> bool:
    return all(has_prefix(tensors, part) for part in ("smooth_pre_rrbs.", "smooth_heads.", "border_heads.", "cabs."))


def _is_fcn32s(tensors: StateDict) -> bool:
    parts = ("backbone.layer1.", "head.cbr.conv.", "head.conv1x1.")
    known = {"backbone", "head", "aux_head"}
    return all(has_prefix(tensors, part) for part in parts) and {key.split(".")[0] for key in tensors} <= known


DFN_IMPORTER = Importer(
    family="torchseg/dfn",
    title="DFN of TorchSeg, on ResNets",
    options={"align_corners": _ALIGN_CORNERS},
    recognise=_is_dfn,
    plan=_plan_dfn,
)
FCN32S_IMPORTER = Importer(
    family="torchseg/fcn32s",
    title="FCN-32s of TorchSeg, on ResNets",
    options={"align_corners": _ALIGN_CORNERS},
    recognise=_is_fcn32s,
    plan=_plan_fcn32s,
)
PSPNET_IMPORTER = Importer(
    family="torchseg/pspnet",
    title="PSPNet of TorchSeg, on ResNets",
    options={**pyramid_options(), **dilation_options(output_stride=8, dilation="half")},
    recognise=lambda tensors: has_prefix(tensors, "psp_layer.ppm.") and has_prefix(tensors, "backbone.layer1."),
    plan=_plan_pspnet,
)
