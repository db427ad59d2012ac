"""Checkpoints of HRNet-Semantic-Segmentation (HRNet/HRNet-Semantic-Segmentation, branch HRNet-OCR at 0bbb2880).

Classes, image channels, widths and depths of every part are read off keys and shapes. Released files hold the network
under ``model.``, beside the buffers of the training loss under ``loss.``, which reading a file takes away already.

Two facts differ between branches and settings of that code and leave no trace in weights. ``align_corners``: true by
default in branch HRNet-OCR, and so in its settings of OCRNet, but set to false in its settings of HRNet W48 for
Cityscapes, LIP and PASCAL-Context; false in master. ``norm_momentum``: 0.1 in branch HRNet-OCR, 0.01 in master and
pytorch-v1.1; it matters for further training only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perpixel.backbones import HRNETS, BackboneConfig, HRNetLayout
from perpixel.errors import CheckpointError
from perpixel.models import HRNetConfig, OCRNetConfig, create_model
from perpixel.weights.importers.importer import (
    Importer,
    Option,
    Plan,
    StateDict,
    convolution_weight,
    has_prefix,
    renamed,
)

__all__ = ["CONTEXT_RULES", "HRNET_IMPORTER", "OCRNET_IMPORTER", "read_hrnet"]

_TRUNK = "hrnet_w48"
"""Name that a trunk of no published layout gets; its numbers are then stated beside it."""

_TRUNK_RULES = ((r"^((conv|bn)[12]|layer1|transition\d|stage\d)\.", r"backbone.\1."),)
_HEAD_LAYERS = (("0", "mix"), ("1", "norm"), ("3", "classifier"))
_HRNET_RULES = (*_TRUNK_RULES, *((rf"^last_layer\.{theirs}\.", f"head.{ours}.") for theirs, ours in _HEAD_LAYERS))
CONTEXT_RULES = (
    (r"^cls_head\.", "classifier."),
    (r"^ocr_distri_head\.object_context_block\.", "context."),
    (r"^ocr_distri_head\.conv_bn_dropout\.", "context.fuse."),
    (r"^context\.f_pixel\.", "context.query."),
    (r"^context\.f_object\.", "context.key."),
    (r"^context\.f_down\.", "context.value."),
    (r"^context\.f_up\.", "context.up."),
    (r"^context\.(query|key)\.0\.", r"context.\1.0.conv."),
    (r"^context\.(query|key)\.1\.0\.", r"context.\1.0.norm."),
    (r"^context\.(query|key)\.2\.", r"context.\1.1.conv."),
    (r"^context\.(query|key)\.3\.0\.", r"context.\1.1.norm."),
    (r"^context\.(value|up|fuse)\.0\.", r"context.\1.conv."),
    (r"^context\.(value|up|fuse)\.1\.0\.", r"context.\1.norm."),
)
"""Of the attention over regions and the last classifier."""
_OCRNET_RULES = (
    *_TRUNK_RULES,
    *((rf"^aux_head\.{theirs}\.", f"auxiliary_head.{ours}.") for theirs, ours in _HEAD_LAYERS),
    (r"^conv3x3_ocr\.0\.", "pixels.conv."),
    (r"^conv3x3_ocr\.1\.", "pixels.norm."),
    *CONTEXT_RULES,
)


def _align_corners(default: bool) -> Option:
    return Option(
        default=default,
        allowed=(True, False),
        help="of every enlargement; their settings state false for HRNet W48 and leave the code's true for OCRNet",
    )


_NORM_MOMENTUM = Option(
    default=0.1,
    allowed=(0.1, 0.01),
    help="share of a batch in running statistics, for further training: 0.1 in branch HRNet-OCR, 0.01 in the others",
)


def read_hrnet(tensors: StateDict, prefix: str = "") -> HRNetLayout:
    """Reads widths and depths of the HRNet under ``prefix`` off keys and shapes.

    Raises:
        CheckpointError: a layer that a number is read from is missing or no convolution, or a stage is.
    """
    num_modules = tuple(_count(tensors, f"{prefix}stage{stage}.") for stage in (2, 3, 4))
    if 0 in num_modules:
        raise CheckpointError(f"'{prefix}stage2..4' hold {num_modules} modules; each stage of an HRNet has some")
    return HRNetLayout(
        width=convolution_weight(tensors, f"{prefix}stage2.0.branches.0.0.conv1").shape[0],
        stem_width=convolution_weight(tensors, f"{prefix}conv1").shape[0],
        bottleneck_width=convolution_weight(tensors, f"{prefix}layer1.0.conv1").shape[0],
        num_bottlenecks=_count(tensors, f"{prefix}layer1."),
        num_modules=num_modules,
        num_blocks=_count(tensors, f"{prefix}stage2.0.branches.0."),
    )


def _count(tensors: StateDict, prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in tensors if key.startswith(prefix)})


def _trunk(tensors: StateDict) -> tuple[BackboneConfig, dict[str, Any]]:
    """The trunk, and the numbers in which it differs from the one that its name says."""
    layout = read_hrnet(tensors)
    name = next((name for name, published in HRNETS.items() if published == layout), _TRUNK)
    stated = {key: value for key, value in vars(layout).items() if value != getattr(HRNETS[name], key)}
    return BackboneConfig(name=name, in_channels=convolution_weight(tensors, "conv1").shape[1]), stated


def _plan_hrnet(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    trunk, stated = _trunk(tensors)
    scores = convolution_weight(tensors, "last_layer.3")
    config = HRNetConfig(**options, **stated, classifier_kernel=scores.shape[2])
    network = create_model("hrnet", config, num_classes=scores.shape[0], backbone=trunk)
    return Plan(network=network, rename=lambda key: renamed(key, _HRNET_RULES))


def _plan_ocrnet(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    trunk, stated = _trunk(tensors)
    num_classes, pixel_width = convolution_weight(tensors, "cls_head").shape[:2]
    comparison = "ocr_distri_head.object_context_block.f_pixel.0"
    config = OCRNetConfig(
        **options,
        **stated,
        pixel_width=pixel_width,
        key_width=convolution_weight(tensors, comparison).shape[0],
    )
    network = create_model("ocrnet", config, num_classes=num_classes, backbone=trunk)
    return Plan(network=network, rename=lambda key: renamed(key, _OCRNET_RULES))


def _is_of(tensors: StateDict, head: str) -> bool:
    return all(has_prefix(tensors, part) for part in ("transition3.", "stage4.0.fuse_layers.", head))


HRNET_IMPORTER = Importer(
    family="hrnet/hrnet",
    title="HRNetV2 of its authors' segmentation code",
    options={"align_corners": _align_corners(False), "norm_momentum": _NORM_MOMENTUM},
    recognise=lambda tensors: _is_of(tensors, "last_layer."),
    plan=_plan_hrnet,
)
OCRNET_IMPORTER = Importer(
    family="hrnet/ocrnet",
    title="OCRNet on HRNetV2, of its authors' segmentation code",
    options={"align_corners": _align_corners(True), "norm_momentum": _NORM_MOMENTUM},
    recognise=lambda tensors: _is_of(tensors, "ocr_distri_head."),
    plan=_plan_ocrnet,
)
