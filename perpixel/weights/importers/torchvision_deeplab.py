"""Checkpoints of torchvision (0.29): DeepLab v3 on ResNets and MobileNet-v3, and LR-ASPP.

Classes, widths, depth, image channels and the auxiliary head are read off keys and shapes. torchvision dilates its
ResNets to output stride 8 by the `half` convention and its MobileNet-v3 to 16 by `full`, has ASPP rates 12, 24, 36 on
both, and aligns no corners. Of a MobileNet-v3 the auxiliary head and LR-ASPP read the map of stride 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perpixel.backbones import TORCHVISION_MOBILENETS, BackboneConfig
from perpixel.models import DeepLabV3Config, LRASPPConfig, create_model
from perpixel.weights.importers.deeplab_parts import (
    chosen_rates,
    dilated,
    dilation_options,
    one_of_trunks,
    rates_option,
    read_aspp,
)
from perpixel.weights.importers.importer import (
    Importer,
    Plan,
    StateDict,
    convolution_weight,
    has_prefix,
    renamed,
)
from perpixel.weights.importers.resnet_trunk import read_resnet

__all__ = ["DEEPLAB_V3_IMPORTER", "HEAD_RULES", "LRASPP_IMPORTER"]

_TRUNK_RULE = (r"^backbone\.", "backbone.net.")
HEAD_RULES = (
    (r"^classifier\.1\.body\.0\.", "refine.depthwise."),
    (r"^classifier\.1\.body\.1\.", "refine.pointwise."),
    (r"^classifier\.1\.", "refine.conv."),
    (r"^classifier\.2\.", "refine.norm."),
    (r"^classifier\.4\.", "classifier."),
    (r"^aux_classifier\.0\.", "auxiliary_head.block.conv."),
    (r"^aux_classifier\.1\.", "auxiliary_head.block.norm."),
    (r"^aux_classifier\.4\.", "auxiliary_head.classifier."),
)
"""What stands behind the ASPP of DeepLab v3, under torchvision's names -> ours."""
_LRASPP_RULES = (
    _TRUNK_RULE,
    (r"^classifier\.cbr\.0\.", "project.conv."),
    (r"^classifier\.cbr\.1\.", "project.norm."),
    (r"^classifier\.scale\.1\.", "weights."),
    (r"^classifier\.(low|high)_classifier\.", r"\1_classifier."),
)
_PARTS = {"backbone", "classifier", "aux_classifier"}


def _plan_deeplab_v3(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    auxiliary = has_prefix(tensors, "aux_classifier.")
    trunk, note = _trunk(tensors, options)
    residual = trunk.name not in TORCHVISION_MOBILENETS
    stages = 2 if residual else 3
    aspp = read_aspp(tensors, "classifier.0.")
    config = DeepLabV3Config(
        atrous_rates=chosen_rates(options["atrous_rates"], aspp),
        width=aspp.width,
        refine=True,
        dropout=0.5,
        auxiliary=auxiliary,
        auxiliary_width=(
            convolution_weight(tensors, "aux_classifier.0").shape[0] if auxiliary else DeepLabV3Config.auxiliary_width
        ),
        auxiliary_stage=-stages,
        align_corners=False,
        image_sides="any",
    )
    num_classes = convolution_weight(tensors, "classifier.4").shape[0]
    network = create_model(
        "deeplab_v3", config, num_classes=num_classes, backbone=_with_stages(trunk, stages if auxiliary else 1)
    )
    rules = (_TRUNK_RULE, *aspp.rules, *HEAD_RULES)
    return Plan(network=network, rename=lambda key: renamed(key, rules), notes=(note,))


def _plan_lraspp(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    trunk, note = dilated(_mobilenet(tensors), options, output_stride=16, dilation="full", fixed=True)
    num_classes, width = convolution_weight(tensors, "classifier.high_classifier").shape[:2]
    network = create_model("lraspp", LRASPPConfig(width=width), num_classes=num_classes, backbone=trunk)
    return Plan(network=network, rename=lambda key: renamed(key, _LRASPP_RULES), notes=(note,))


def _trunk(tensors: StateDict, options: Mapping[str, Any]) -> tuple[BackboneConfig, str]:
    if has_prefix(tensors, "backbone.layer1."):
        return dilated(read_resnet(tensors, "backbone."), options, output_stride=8, dilation="half")
    return dilated(_mobilenet(tensors), options, output_stride=16, dilation="full", fixed=True)


def _mobilenet(tensors: StateDict) -> BackboneConfig:
    start = "backbone."
    shapes = {"net." + k.removeprefix(start): tuple(t.shape) for k, t in tensors.items() if k.startswith(start)}
    return one_of_trunks(shapes, TORCHVISION_MOBILENETS, first="net.0.0.weight")


def _with_stages(trunk: BackboneConfig, num_stages: int) -> BackboneConfig:
    return BackboneConfig(**{**trunk.to_dict(), "num_stages": num_stages})


def _recognise(tensors: StateDict, *keys: str) -> bool:
    return all(key in tensors for key in keys) and {key.split(".")[0] for key in tensors} <= _PARTS


DEEPLAB_V3_IMPORTER = Importer(
    family="torchvision/deeplabv3",
    title="DeepLab v3 of torchvision, on ResNets and MobileNet-v3",
    options={
        **dilation_options("8 with ResNets, 16 with MobileNet-v3"),
        "atrous_rates": rates_option((12, 24, 36)),
    },
    recognise=lambda tensors: _recognise(tensors, "classifier.0.convs.0.0.weight", "classifier.4.weight"),
    plan=_plan_deeplab_v3,
)
LRASPP_IMPORTER = Importer(
    family="torchvision/lraspp",
    title="LR-ASPP of torchvision, on MobileNet-v3",
    options=dilation_options("16"),
    recognise=lambda tensors: _recognise(tensors, "classifier.cbr.0.weight", "classifier.low_classifier.weight"),
    plan=_plan_lraspp,
)
