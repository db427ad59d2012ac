"""Checkpoints of VainF/DeepLabV3Plus-Pytorch (at 4e1087de): DeepLab v3 and v3+ on ResNets and its MobileNet-v2.

Classes, widths, depth, image channels and separable convolutions are read off keys and shapes. The output stride, which
leaves no trace, chooses the rates too: 6, 12, 18 at 16 (what its published checkpoints were trained with), 12, 24, 36
at 8. ResNets are dilated by the `half` convention. Its MobileNet-v2 computes another function than torchvision's,
whose weights it starts from (`backbones/vainf_mobilenet_v2.py`). No corners are aligned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perpixel.backbones import VAINF_BLOCK_RULES, VAINF_MOBILENETS, BackboneConfig
from perpixel.errors import CheckpointError
from perpixel.models import DeepLabV3Config, DeepLabV3PlusConfig, create_model
from perpixel.weights.importers.deeplab_parts import (
    ASPPLayout,
    Rules,
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
    listed,
    renamed,
)
from perpixel.weights.importers.resnet_trunk import read_resnet
from perpixel.weights.importers.torchvision_deeplab import HEAD_RULES

__all__ = ["DEEPLAB_V3PLUS_IMPORTER", "DEEPLAB_V3_IMPORTER"]

_RATES, _RATES_AT_8 = (6, 12, 18), (12, 24, 36)
_BACKBONE_MOMENTUM = 0.01
_RESNET_RULES: Rules = ((r"^backbone\.", "backbone.net."),)
_MOBILENET_RULES: Rules = ((r"^backbone\.(?:low|high)_level_features\.", "backbone.features."), *VAINF_BLOCK_RULES)
_V3_RULES: Rules = ((r"^classifier\.classifier\.", "classifier."), *HEAD_RULES)
_V3PLUS_RULES: Rules = (
    (r"^classifier\.project\.0\.", "low.conv."),
    (r"^classifier\.project\.1\.", "low.norm."),
    (r"^classifier\.classifier\.0\.body\.0\.", "decoder.0.depthwise."),
    (r"^classifier\.classifier\.0\.body\.1\.", "decoder.0.pointwise."),
    (r"^classifier\.classifier\.0\.", "decoder.0.conv."),
    (r"^classifier\.classifier\.1\.", "decoder.0.norm."),
    (r"^classifier\.classifier\.3\.", "classifier."),
)


def _plan_v3(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    aspp = read_aspp(tensors, "classifier.classifier.0.")
    trunk, trunk_rules, note = _trunk(tensors, options, num_stages=1)
    config = DeepLabV3Config(
        atrous_rates=_rates(options, trunk, aspp),
        width=aspp.width,
        separable=aspp.separable,
        separable_norm=False,
        refine=True,
        align_corners=False,
        image_sides="any",
        backbone_norm_momentum=_BACKBONE_MOMENTUM,
    )
    num_classes = convolution_weight(tensors, "classifier.classifier.4").shape[0]
    network = create_model("deeplab_v3", config, num_classes=num_classes, backbone=trunk)
    rules = (*trunk_rules, *aspp.rules, *_V3_RULES)
    return Plan(network=network, rename=lambda key: renamed(key, rules), notes=(note,))


def _plan_v3plus(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    aspp = read_aspp(tensors, "classifier.aspp.")
    trunk, trunk_rules, note = _trunk(tensors, options, num_stages=4)
    num_classes, decoder_width = convolution_weight(tensors, "classifier.classifier.3").shape[:2]
    config = DeepLabV3PlusConfig(
        atrous_rates=_rates(options, trunk, aspp),
        width=aspp.width,
        separable_aspp=aspp.separable,
        separable_decoder="classifier.classifier.0.weight" not in tensors,
        separable_norm=False,
        low_width=convolution_weight(tensors, "classifier.project.0").shape[0],
        decoder_width=decoder_width,
        decoder_convolutions=1,
        concatenation="low_high",
        align_corners=False,
        image_sides="any",
        backbone_norm_momentum=_BACKBONE_MOMENTUM,
    )
    network = create_model("deeplab_v3plus", config, num_classes=num_classes, backbone=trunk)
    rules = (*trunk_rules, *aspp.rules, *_V3PLUS_RULES)
    return Plan(network=network, rename=lambda key: renamed(key, rules), notes=(note,))


def _trunk(tensors: StateDict, options: Mapping[str, Any], *, num_stages: int) -> tuple[BackboneConfig, Rules, str]:
    if has_prefix(tensors, "backbone.layer1."):
        found, rules, fixed = read_resnet(tensors, "backbone."), _RESNET_RULES, False
    elif has_prefix(tensors, "backbone.low_level_features."):
        own = {renamed(key, _MOBILENET_RULES): tuple(t.shape) for key, t in tensors.items()}
        start = "backbone."
        shapes = {key.removeprefix(start): shape for key, shape in own.items() if key.startswith(start)}
        found = one_of_trunks(shapes, VAINF_MOBILENETS, first="features.0.conv.weight")
        rules, fixed = _MOBILENET_RULES, True
    else:
        held = listed((key for key in tensors if key.startswith("backbone.")), 3)
        raise CheckpointError(
            f"the trunk is no ResNet or MobileNet-v2, which are those that can be read; it holds {held}"
        )
    trunk, note = dilated(
        replace(found, num_stages=num_stages), options, output_stride=16, dilation="half", fixed=fixed
    )
    return trunk, rules, note


def _rates(options: Mapping[str, Any], trunk: BackboneConfig, aspp: ASPPLayout) -> tuple[int, ...]:
    rates = options["atrous_rates"]
    if rates == "auto":
        rates = _RATES_AT_8 if trunk.output_stride == 8 else _RATES
    return chosen_rates(rates, aspp)


def _is_v3(tensors: StateDict) -> bool:
    return "classifier.classifier.0.convs.0.0.weight" in tensors and has_prefix(tensors, "backbone.")


def _is_v3plus(tensors: StateDict) -> bool:
    return {"classifier.aspp.convs.0.0.weight", "classifier.project.0.weight"} <= tensors.keys()


_OPTIONS = {
    **dilation_options("16"),
    "atrous_rates": rates_option("auto", "; auto: 12, 24, 36 at output stride 8, else 6, 12, 18"),
}
DEEPLAB_V3_IMPORTER = Importer(
    family="vainf/deeplabv3",
    title="DeepLab v3 of DeepLabV3Plus-Pytorch, on ResNets and MobileNet-v2",
    options=_OPTIONS,
    recognise=_is_v3,
    plan=_plan_v3,
)
DEEPLAB_V3PLUS_IMPORTER = Importer(
    family="vainf/deeplabv3plus",
    title="DeepLab v3+ of DeepLabV3Plus-Pytorch, on ResNets and MobileNet-v2",
    options=_OPTIONS,
    recognise=_is_v3plus,
    plan=_plan_v3plus,
)
