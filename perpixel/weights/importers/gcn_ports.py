"""Checkpoints of the two ports of GCN: zijundeng/pytorch-semantic-segmentation and yassouali/pytorch-segmentation.

Classes, kernel sizes, depth and image channels are read off keys and shapes, and so is deconvolution or not. Both
trunks are torchvision's ResNets, wrapped in sequences of their own. Both ports enlarge with aligned corners.

What yassouali's code (at 33434fa9) does otherwise, and the imported network does too: a 1x1 convolution behind
everything; without deconvolution, no refinement at half the image's size (it takes the size behind the pooling for
that behind the first convolution); with deconvolution, maps that come out too large lose their first row and column.
Its blocks of boundary refinement hold batch norms that it never calls. Its ResNet-GCN trunk cannot run as published,
so no checkpoint of it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perpixel.errors import CheckpointError
from perpixel.models import GCNConfig, create_model
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

__all__ = ["YASSOUALI_IMPORTER", "ZIJUNDENG_IMPORTER"]

Rules = tuple[tuple[str, str], ...]

_NUM_STAGES = 4
_NUM_REFINEMENTS = 2 * _NUM_STAGES + 1
_TRUNK = "backbone.net."
_REFINEMENT: Rules = ((r"\.conv1\.", ".residual.0."), (r"\.conv2\.", ".residual.2."))
_UNUSED_NORMS = "constructed by that code, but never used by its network"
_ALIGN_CORNERS = Option(
    default=True,
    allowed=(True, False),
    help="how scores are enlarged without deconvolution; both ports align corners, one that was trained anew may not",
)

# Their name -> ours. Both number the refinements 1 to 4 over the stages, then 5 to 9 over the sums.
_ZIJUNDENG_RULES: Rules = (
    (r"^layer0\.0\.", f"{_TRUNK}conv1."),
    (r"^layer0\.1\.", f"{_TRUNK}bn1."),
    (r"^layer1\.1\.", f"{_TRUNK}layer1."),  # layer1.0 is the pooling
    (r"^layer([234])\.", rf"{_TRUNK}layer\1."),
    *((rf"^gcm{i + 1}\.", f"stages.{i}.0.") for i in range(_NUM_STAGES)),
    *((rf"^brm{i + 1}(\..*)$", rf"stages.{i}.1\1") for i in range(_NUM_STAGES)),
    *((rf"^brm{_NUM_STAGES + 1 + i}(\..*)$", rf"refine.{i}\1") for i in range(_NUM_STAGES + 1)),
    (r"^(stages\.\d\.0)\.conv_l1\.", r"\1.vertical_first.0."),
    (r"^(stages\.\d\.0)\.conv_l2\.", r"\1.vertical_first.1."),
    (r"^(stages\.\d\.0)\.conv_r1\.", r"\1.horizontal_first.0."),
    (r"^(stages\.\d\.0)\.conv_r2\.", r"\1.horizontal_first.1."),
    *((rf"^(stages\.\d\.1|refine\.\d){theirs}", rf"\1{ours}") for theirs, ours in _REFINEMENT),
)
# yassouali numbers stages from the finest, and deconvolutions by the stage that they start from; 5 is the last one.
_YASSOUALI_RULES: Rules = (
    (r"^backbone\.initial\.0\.", f"{_TRUNK}conv1."),
    (r"^backbone\.initial\.1\.", f"{_TRUNK}bn1."),
    (r"^backbone\.(layer\d)\.", rf"{_TRUNK}\1."),
    *((rf"^gcn{_NUM_STAGES - i}\.", f"stages.{i}.0.") for i in range(_NUM_STAGES)),
    *((rf"^br{_NUM_STAGES - i}(\..*)$", rf"stages.{i}.1\1") for i in range(_NUM_STAGES)),
    *((rf"^br{_NUM_STAGES + 1 + i}(\..*)$", rf"refine.{i}\1") for i in range(_NUM_STAGES + 1)),
    *((rf"^decon{_NUM_STAGES - i}\.", f"enlarge.{i}.") for i in range(_NUM_STAGES)),
    (rf"^decon{_NUM_STAGES + 1}\.", f"enlarge.{_NUM_STAGES}."),
    (r"^final_conv\.", "classifier."),
    (r"^(stages\.\d\.0)\.conv11\.", r"\1.vertical_first.0."),
    (r"^(stages\.\d\.0)\.conv12\.", r"\1.vertical_first.1."),
    (r"^(stages\.\d\.0)\.conv21\.", r"\1.horizontal_first.0."),
    (r"^(stages\.\d\.0)\.conv22\.", r"\1.horizontal_first.1."),
    *((rf"^(stages\.\d\.1|refine\.\d){theirs}", rf"\1{ours}") for theirs, ours in _REFINEMENT),
)


def _plan_zijundeng(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    config = GCNConfig(
        kernel_sizes=_kernels(tensors, [f"gcm{i + 1}.conv_l1" for i in range(_NUM_STAGES)]),
        upsampling="bilinear",
        align_corners=options["align_corners"],
    )
    return _plan(tensors, config, "gcm1.conv_l1", _ZIJUNDENG_RULES, {})


def _plan_yassouali(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    if has_prefix(tensors, "backbone.layer3.0.gcn."):
        raise CheckpointError(
            "the trunk under 'backbone.' is that code's ResNet-GCN, whose stages do not fit together: its network "
            "cannot run. Import one on a plain ResNet; perpixel's own ResNet-GCN is the backbone resnet50_gcn"
        )
    config = GCNConfig(
        kernel_sizes=_kernels(tensors, [f"gcn{_NUM_STAGES - i}.conv11" for i in range(_NUM_STAGES)]),
        upsampling="bilinear",
        align_corners=options["align_corners"],
        half_scale=False,
        final_convolution=True,
    )
    if has_prefix(tensors, "decon1."):
        kernel = convolution_weight(tensors, "decon1").shape[2]
        config = replace(
            config,
            upsampling="deconvolution",
            deconvolution_kernel=kernel,
            deconvolution_crop="start",
            half_scale=True,
        )
    unused = {f"br{i + 1}.bn{j}.": _UNUSED_NORMS for i in range(_NUM_REFINEMENTS) for j in (1, 2)}
    return _plan(tensors, config, "gcn4.conv11", _YASSOUALI_RULES, unused)


def _plan(tensors: StateDict, config: GCNConfig, scores: str, rules: Rules, unused: Mapping[str, str]) -> Plan:
    trunk = read_resnet({renamed(key, rules): value for key, value in tensors.items()}, _TRUNK)
    num_classes = convolution_weight(tensors, scores).shape[0]
    network = create_model("gcn", config, num_classes=num_classes, backbone=trunk)
    return Plan(network=network, rename=lambda key: renamed(key, rules), unused=unused)


def _kernels(tensors: StateDict, layers: list[str]) -> tuple[int, ...]:
    """One number where all stages agree."""
    kernels = tuple(convolution_weight(tensors, layer).shape[2] for layer in layers)
    if any(kernel % 2 == 0 for kernel in kernels):
        raise CheckpointError(f"{', '.join(layers)} have kernels {list(kernels)}: those of GCN are odd")
    return kernels[:1] if len(set(kernels)) == 1 else kernels


def _is_zijundeng(tensors: StateDict) -> bool:
    return {"layer0.0.weight", "gcm1.conv_l1.weight", "brm9.conv1.weight"} <= set(tensors)


def _is_yassouali(tensors: StateDict) -> bool:
    return {"backbone.initial.0.weight", "gcn1.conv11.weight", "br9.conv1.weight"} <= set(tensors)


ZIJUNDENG_IMPORTER = Importer(
    family="zijundeng/gcn",
    title="GCN of zijundeng/pytorch-semantic-segmentation, on ResNets",
    options={"align_corners": _ALIGN_CORNERS},
    recognise=_is_zijundeng,
    plan=_plan_zijundeng,
)
YASSOUALI_IMPORTER = Importer(
    family="yassouali/gcn",
    title="GCN of yassouali/pytorch-segmentation, on ResNets",
    options={"align_corners": _ALIGN_CORNERS},
    recognise=_is_yassouali,
    plan=_plan_yassouali,
)
