"""Checkpoints of DrSleep's RefineNets: refinenet-pytorch (at 8f25c076) and light-weight-refinenet (at 538fe8b3).

Classes, image channels, depth, widths and numbers of units and pools are read off keys and shapes, and whether the
light-weight network stands on a ResNet or on MobileNet-v2. Layers are named after the authors' MatConvNet code:
``p_ims1d2_outlK_dimred`` projects the trunk's map, ``adapt_stageK_b`` are the units in front of the fusion,
``…_joint_varout_dimred`` the fusion's convolutions, ``mflow_conv_gK_pool`` and ``_b`` the pooling and the units behind.
K counts from the coarsest stage, as our blocks and levels do from 0. The ResNets have torchvision's names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from perpixel.backbones import BackboneConfig
from perpixel.backbones.mobilenet_v2 import DRSLEEP_MOBILENET_V2, MobileNetV2Layout
from perpixel.errors import CheckpointError
from perpixel.models import RefineNetConfig, RefineNetLWConfig, create_model
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

__all__ = ["REFINENET_IMPORTER", "REFINENET_LW_IMPORTER"]

_NUM_BLOCKS = 4
_COARSEST_LATERAL = 8
_OPTIONS = {
    "align_corners": Option(
        default=True,
        allowed=(True, False),
        help="how maps and scores are enlarged; that code aligns corners, a fork that was trained anew may not",
    ),
    "pooling_order": Option(
        default="pool_conv",
        allowed=("pool_conv", "conv_pool"),
        help="order within a link of the chained residual pooling; conv_pool is the authors' improved pooling",
    ),
}

# Their name -> ours, one rule after the other on each key; {…} are numbers from 1 that become numbers from 0.
_POOLS = (r"^mflow_conv_g(\d)_pool\.0\.(\d+)_outvar_dimred\.", "{part}.{0}.pools.convs.{1}.")
_REFINENET = (
    (r"^p_ims1d2_outl(\d)_dimred\.", "blocks.{0}.inputs.0.project."),
    (r"^adapt_stage(\d)_b\.0\.(\d+)_conv\.", "blocks.{0}.inputs.0.units.{1}.first."),
    (r"^adapt_stage(\d)_b\.0\.(\d+)_conv_relu_varout_dimred\.", "blocks.{0}.inputs.0.units.{1}.second."),
    (r"^adapt_stage(\d)_b2_joint_varout_dimred\.", "blocks.{0}.fusion.convs.0."),
    (_POOLS[0], _POOLS[1].replace("{part}", "blocks")),
    (r"^mflow_conv_g(\d)_b\.0\.(\d+)_conv\.", "blocks.{0}.output.{1}.first."),
    (r"^mflow_conv_g(\d)_b\.0\.(\d+)_conv_relu_varout_dimred\.", "blocks.{0}.output.{1}.second."),
    (r"^mflow_conv_g(\d)_b3_joint_varout_dimred\.", "blocks.{next}.fusion.convs.1."),
)
_LIGHT = (
    (r"^p_ims1d2_outl(\d)_dimred\.", "levels.{0}.laterals.0.project."),
    (r"^adapt_stage(\d)_b2_joint_varout_dimred\.", "levels.{0}.laterals.0.adapt."),
    (_POOLS[0], _POOLS[1].replace("{part}", "levels")),
    (r"^mflow_conv_g(\d)_b3_joint_varout_dimred\.", "levels.{next}.coarser."),
)
_RESNET = (
    (r"^(conv1|bn1|layer\d)\.", r"backbone.net.\1."),
    (r"^clf_conv\.", "classifier."),
)
"""For what the numbered rules leave."""
# MobileNet-v2: conv3 to conv8 project the trunk's maps; crp4 pools the coarsest level, which conv_adapt4 leaves.
_MOBILENET = (
    (r"^(layer\d)\.", r"backbone.\1."),
    (r"^conv8\.", "levels.0.laterals.1.project."),
    (r"^conv7\.", "levels.0.laterals.0.project."),
    (r"^conv6\.", "levels.1.laterals.1.project."),
    (r"^conv5\.", "levels.1.laterals.0.project."),
    (r"^conv4\.", "levels.2.laterals.0.project."),
    (r"^conv3\.", "levels.3.laterals.0.project."),
    (r"^segm\.", "classifier."),
)
_MOBILENET_POOL = re.compile(r"^crp(\d)\.0\.(\d+)_outvar_dimred\.")
_MOBILENET_COARSER = re.compile(r"^conv_adapt(\d)\.")


def _plan_refinenet(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    classifier = convolution_weight(tensors, "clf_conv")
    config = RefineNetConfig(
        width=convolution_weight(tensors, "p_ims1d2_outl2_dimred").shape[0],
        coarse_width=convolution_weight(tensors, "p_ims1d2_outl1_dimred").shape[0],
        cascades=_NUM_BLOCKS,
        input_units=_count(tensors, r"adapt_stage1_b\.0\.\d+_conv\.weight"),
        output_units=_count(tensors, r"mflow_conv_g1_b\.0\.\d+_conv\.weight"),
        num_pools=_count_pools(tensors, "mflow_conv_g1_pool"),
        align_corners=options["align_corners"],
        pooling_order=options["pooling_order"],
    )
    network = create_model("refinenet", config, num_classes=classifier.shape[0], backbone=read_resnet(tensors))
    return Plan(
        network=network,
        rename=lambda key: renamed(_numbered(key, _REFINENET), _RESNET),
        notes=_notes(options),
    )


def _plan_refinenet_lw(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    if _is_on_mobilenet(tensors):
        return _plan_on_mobilenet(tensors, options)
    classifier = convolution_weight(tensors, "clf_conv")
    config = RefineNetLWConfig(
        width=convolution_weight(tensors, "p_ims1d2_outl2_dimred").shape[0],
        coarse_width=convolution_weight(tensors, "p_ims1d2_outl1_dimred").shape[0],
        num_pools=_count_pools(tensors, "mflow_conv_g1_pool"),
        align_corners=options["align_corners"],
        pooling_order=options["pooling_order"],
    )
    network = create_model("refinenet_lw", config, num_classes=classifier.shape[0], backbone=read_resnet(tensors))
    return Plan(network=network, rename=lambda key: renamed(_numbered(key, _LIGHT), _RESNET), notes=_notes(options))


def _plan_on_mobilenet(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    layout = _mobilenet_layout(tensors)
    config = RefineNetLWConfig(
        width=convolution_weight(tensors, "conv3").shape[0],
        coarse_width=convolution_weight(tensors, f"conv{_COARSEST_LATERAL}").shape[0],
        adapt=False,
        relu6=True,
        num_pools=_count_pools(tensors, "crp4"),
        align_corners=options["align_corners"],
        pooling_order=options["pooling_order"],
        mobilenet_stem=layout.stem,
        mobilenet_stages=layout.stages,
    )
    trunk = BackboneConfig(name=DRSLEEP_MOBILENET_V2, in_channels=convolution_weight(tensors, "layer1.0").shape[1])
    num_classes = convolution_weight(tensors, "segm").shape[0]
    network = create_model("refinenet_lw", config, num_classes=num_classes, backbone=trunk)
    return Plan(network=network, rename=_mobilenet_name, notes=_notes(options))


def _mobilenet_layout(tensors: StateDict) -> MobileNetV2Layout:
    """Stages off keys and shapes; strides leave no trace and are those of the paper."""
    stem = inside = convolution_weight(tensors, "layer1.0").shape[0]
    rows = []
    for number, (*_, stride) in enumerate(MobileNetV2Layout().stages, start=2):
        inner = convolution_weight(tensors, f"layer{number}.0.output.0.0").shape[0]
        channels = convolution_weight(tensors, f"layer{number}.0.output.2.0").shape[0]
        if inner % inside:
            raise CheckpointError(
                f"layer{number}.0 expands {inside} channels to {inner}, which is no multiple; a MobileNet-v2 expands "
                "by whole factors"
            )
        blocks = _count(tensors, rf"layer{number}\.\d+\.output\.0\.0\.weight")
        rows.append((inner // inside, channels, blocks, stride))
        inside = channels
    return MobileNetV2Layout(stem=stem, stages=tuple(rows))


def _mobilenet_name(key: str) -> str:
    """crp and conv_adapt count down, from 4 at the coarsest level."""
    key = _MOBILENET_POOL.sub(lambda m: f"levels.{4 - int(m[1])}.pools.convs.{int(m[2]) - 1}.", key)
    key = _MOBILENET_COARSER.sub(lambda m: f"levels.{5 - int(m[1])}.coarser.", key)
    return renamed(key, _MOBILENET)


def _numbered(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    """Applies the rule that fits: numbers count from 1 there, from 0 here; ``{next}`` is the one behind the first."""
    for pattern, name in rules:
        found = re.match(pattern, key)
        if found is not None:
            numbers = [int(group) - 1 for group in found.groups()]
            return name.format(*numbers, next=numbers[0] + 1) + key[found.end() :]
    return key


def _notes(options: Mapping[str, Any]) -> tuple[str, ...]:
    order, other = ("before", "conv_pool") if options["pooling_order"] == "pool_conv" else ("behind", "pool_conv")
    return (
        f"weights cannot tell whether the chained pooling pools before or behind its convolutions; it was taken to be "
        f"{order} them (pooling_order={other} is the other)",
    )


def _count(tensors: StateDict, pattern: str) -> int:
    return sum(re.fullmatch(pattern, key) is not None for key in tensors)


def _count_pools(tensors: StateDict, chain: str) -> int:
    pools = _count(tensors, rf"{chain}\.0\.\d+_outvar_dimred\.weight")
    if not pools:
        raise CheckpointError(f"the checkpoint lacks '{chain}.0.1_outvar_dimred.weight', which its pools are read from")
    return pools


def _is_refinenet(tensors: StateDict) -> bool:
    parts = ("layer1.", "p_ims1d2_outl1_dimred.", "mflow_conv_g1_pool.", "mflow_conv_g1_b.")
    return all(has_prefix(tensors, part) for part in parts)


def _is_refinenet_lw(tensors: StateDict) -> bool:
    on_resnet = all(has_prefix(tensors, part) for part in ("layer1.", "p_ims1d2_outl1_dimred.", "mflow_conv_g1_pool."))
    units = any(re.match(r"(adapt_stage|mflow_conv_g)\d_b\.", key) for key in tensors)
    return (on_resnet and not units) or _is_on_mobilenet(tensors)


def _is_on_mobilenet(tensors: StateDict) -> bool:
    return all(has_prefix(tensors, part) for part in ("layer8.0.output.", "conv_adapt4.", "crp4.", "segm."))


REFINENET_IMPORTER = Importer(
    family="drsleep/refinenet",
    title="RefineNet of DrSleep, on ResNets",
    options=_OPTIONS,
    recognise=_is_refinenet,
    plan=_plan_refinenet,
)
REFINENET_LW_IMPORTER = Importer(
    family="drsleep/refinenet-lw",
    title="Light-Weight RefineNet of DrSleep, on ResNets or MobileNet-v2",
    options=_OPTIONS,
    recognise=_is_refinenet_lw,
    plan=_plan_refinenet_lw,
)
