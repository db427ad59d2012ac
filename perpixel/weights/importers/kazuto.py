"""Checkpoints of deeplab-pytorch (kazuto1011/deeplab-pytorch at 4219467f): DeepLab v2 on Caffe's ResNets.

Classes, image channels, depth, width and branches are read off keys and shapes. The multi-scale network keeps its
parts under ``base.``, which tells it apart from the one of a single scale; the rates of the branches leave no trace.
``DeepLabV1_ResNet101``, which holds the weights pretrained on COCO, is the same trunk with one 1x1 classifier.

That code enlarges scores without aligned corners, and the imported networks do too unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perpixel.backbones import CAFFE_RESNETS, DEEPLAB_PREPROCESSING, BackboneConfig
from perpixel.errors import CheckpointError
from perpixel.models import DeepLabV2Config, create_model
from perpixel.weights.importers.importer import Importer, Option, Plan, StateDict, convolution_weight, renamed

__all__ = ["DEEPLAB_V1_IMPORTER", "DEEPLAB_V2_IMPORTER"]

_WRAPPER = "base."
_RULES = (
    (r"^base\.", ""),
    (r"^(layer\d\.)", r"backbone.\1"),
    (r"\.bn\.", ".norm."),
    (r"^fc\.", "branches.0.classifier."),
    (r"^aspp\.c(\d+)\.", r"branches.\1.classifier."),
)
_ALIGN_CORNERS = Option(
    default=False, allowed=(False, True), help="how scores are brought to the image; that code does not align corners"
)


def _rates(value: Any) -> tuple[int, ...]:
    rates = [value] if isinstance(value, int) else value
    whole = isinstance(rates, list | tuple) and all(isinstance(r, int) and not isinstance(r, bool) for r in rates)
    if not whole or not rates or min(rates) < 1:
        raise ValueError("a list of whole numbers >= 1, one per branch")
    return tuple(rates)


def _recognise(tensors: StateDict, head: str) -> bool:
    keys = {key.removeprefix(_WRAPPER) for key in tensors}
    return {"layer1.conv1.conv.weight", "layer2.block1.reduce.conv.weight", head} <= keys


def _plan_v1(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    return _plan(tensors, options, rates=(1,), head="fc")


def _plan_v2(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    rates = options["atrous_rates"]
    branches = {key.split("aspp.c")[1].split(".")[0] for key in tensors if "aspp.c" in key}
    if len(rates) != len(branches):
        raise CheckpointError(
            f"the checkpoint has {len(branches)} branches, atrous_rates = {list(rates)} names {len(rates)}: give one "
            "rate per branch, in their order"
        )
    return _plan(tensors, options, rates=rates, head="aspp.c0")


def _plan(tensors: StateDict, options: Mapping[str, Any], *, rates: tuple[int, ...], head: str) -> Plan:
    prefix = _WRAPPER if any(key.startswith(_WRAPPER) for key in tensors) else ""
    first = convolution_weight(tensors, f"{prefix}layer1.conv1.conv")
    scores = convolution_weight(tensors, f"{prefix}{head}")
    multi_scale = options.get("multi_scale", False)
    config = DeepLabV2Config(
        atrous_rates=rates,
        kernel_size=scores.shape[2],
        multi_scale=bool(prefix) if multi_scale == "auto" else multi_scale,
        align_corners=options["align_corners"],
        width=first.shape[0],
    )
    trunk = BackboneConfig(name=_depth(tensors, prefix), in_channels=first.shape[1])
    network = create_model("deeplab_v2", config, num_classes=scores.shape[0], backbone=trunk)
    if trunk.in_channels == DEEPLAB_PREPROCESSING.num_channels:
        network.preprocessing = DEEPLAB_PREPROCESSING
    return Plan(network=network, rename=lambda key: renamed(key, _RULES))


def _depth(tensors: StateDict, prefix: str) -> str:
    blocks = []
    for layer in range(2, 6):
        start = f"{prefix}layer{layer}."
        blocks.append(len({key[len(start) :].split(".")[0] for key in tensors if key.startswith(start)}))
    name = next((name for name, known in CAFFE_RESNETS.items() if known == tuple(blocks)), None)
    if name is None:
        known = ", ".join(f"{name} {blocks}" for name, blocks in CAFFE_RESNETS.items())
        raise CheckpointError(f"'{prefix}layer2..5' hold {tuple(blocks)} blocks, which is none of {known}")
    return name


DEEPLAB_V1_IMPORTER = Importer(
    family="kazuto/deeplabv1",
    title="ResNet with one 1x1 classifier at stride 8, of deeplab-pytorch",
    options={"align_corners": _ALIGN_CORNERS},
    recognise=lambda tensors: _recognise(tensors, "fc.weight"),
    plan=_plan_v1,
)
DEEPLAB_V2_IMPORTER = Importer(
    family="kazuto/deeplabv2",
    title="DeepLab v2 on ResNets, of deeplab-pytorch",
    options={
        "multi_scale": Option(
            default="auto",
            allowed=("auto", True, False),
            help="largest scores over the scales 1, 0.5 and 0.75; auto: where the keys begin with 'base.'",
        ),
        "atrous_rates": Option(
            default=(6, 12, 18, 24), read=_rates, help="dilation of each branch: 6, 12, 18, 24 (ASPP-L) or others"
        ),
        "align_corners": _ALIGN_CORNERS,
    },
    recognise=lambda tensors: _recognise(tensors, "aspp.c0.weight"),
    plan=_plan_v2,
)
