"""Checkpoints of PyTorch-Encoding (zhanghang1989/PyTorch-Encoding at ac748410): DeepLab v3 on its ResNets.

Classes, widths, depth, stem and the auxiliary head are read off keys and shapes. That code dilates its trunks to output
stride 8 by the `half` convention, has ASPP rates 12, 24, 36 and aligns corners. Its trunks can have a multi-grid, which
makes the dilations of the last stage 4, 8, 16; no published function of it asks for that, and no weight shows it.
A ``pretrained.fc`` is what its forks keep of the ImageNet classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perpixel.models import DeepLabV3Config, create_model
from perpixel.weights.importers.deeplab_parts import chosen_rates, dilated, dilation_options, rates_option, read_aspp
from perpixel.weights.importers.importer import (
    Importer,
    Option,
    Plan,
    StateDict,
    convolution_weight,
    has_prefix,
    renamed,
)
from perpixel.weights.importers.resnet_trunk import read_resnet

__all__ = ["DEEPLAB_V3_IMPORTER"]

_ASPP = "head.aspp."
# Their names -> torchvision's for the ASPP, ours for the rest.
_RULES = (
    (r"^pretrained\.", "backbone.net."),
    (r"^head\.aspp\.b(\d+)\.gap\.", r"head.aspp.convs.\1."),
    (r"^head\.aspp\.b(\d+)\.", r"head.aspp.convs.\1."),
    (r"^head\.block\.0\.", "refine.conv."),
    (r"^head\.block\.1\.", "refine.norm."),
    (r"^head\.block\.4\.", "classifier."),
    (r"^auxlayer\.conv5\.0\.", "auxiliary_head.block.conv."),
    (r"^auxlayer\.conv5\.1\.", "auxiliary_head.block.norm."),
    (r"^auxlayer\.conv5\.4\.", "auxiliary_head.classifier."),
)
_MULTI_GRID = (1, 2, 4)
_UNUSED = {"pretrained.fc.": "the trunk's ImageNet classifier, which the network never calls"}


def _plan(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    aspp = read_aspp({renamed(key, _RULES): value for key, value in tensors.items() if key.startswith(_ASPP)}, _ASPP)
    auxiliary = has_prefix(tensors, "auxlayer.")
    config = DeepLabV3Config(
        atrous_rates=chosen_rates(options["atrous_rates"], aspp),
        width=aspp.width,
        refine=True,
        dropout=0.5,
        drop_channels=True,
        refine_dropout=0.1,
        auxiliary=auxiliary,
        auxiliary_width=(
            convolution_weight(tensors, "auxlayer.conv5.0").shape[0] if auxiliary else DeepLabV3Config.auxiliary_width
        ),
        auxiliary_weight=0.2,
        align_corners=options["align_corners"],
        image_sides="any",
    )
    found = replace(
        read_resnet(tensors, "pretrained."),
        num_stages=2 if auxiliary else 1,
        multi_grid=_MULTI_GRID if options["multi_grid"] else (),
    )
    trunk, note = dilated(found, options, output_stride=8, dilation="half")
    num_classes = convolution_weight(tensors, "head.block.4").shape[0]
    network = create_model("deeplab_v3", config, num_classes=num_classes, backbone=trunk)
    rules = (*_RULES, *aspp.rules)
    return Plan(network=network, rename=lambda key: renamed(key, rules), unused=_UNUSED, notes=(note,))


def _recognise(tensors: StateDict) -> bool:
    known = {"pretrained", "head", "auxlayer"}
    return (
        {"head.aspp.b0.0.weight", "head.block.4.weight"} <= tensors.keys()
        and has_prefix(tensors, "pretrained.layer1.")
        and {key.split(".")[0] for key in tensors} <= known
    )


DEEPLAB_V3_IMPORTER = Importer(
    family="encoding/deeplabv3",
    title="DeepLab v3 of PyTorch-Encoding, on ResNets",
    options={
        **dilation_options("8"),
        "atrous_rates": rates_option((12, 24, 36)),
        "multi_grid": Option(
            default=False,
            allowed=(False, True),
            help="the last stage has the dilations 4, 8, 16 in place of one for all blocks (at output stride 8)",
        ),
        "align_corners": Option(
            default=True, allowed=(True, False), help="how scores are resized; that code aligns corners everywhere"
        ),
    },
    recognise=_recognise,
    plan=_plan,
)
