"""Checkpoints of the U-Net of segmentation_models.pytorch (0.6.0): its decoder on any encoder that can be read.

Classes, image channels, encoder, depth, decoder widths, batch norm or not, attention and the centre block are read off
keys and shapes. That library's quirks, which the imported network shares or reports: an attention is constructed in
the last block, which has no skipped map, and never called there; its MobileNet-v2 counts the last 1x1 convolution to
the trunk; encoders of less than full depth keep the stages that are not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from perpixel.backbones import BackboneConfig, create_backbone
from perpixel.errors import CheckpointError
from perpixel.models import Network, UNetBackboneConfig, create_model
from perpixel.weights.importers.importer import (
    Importer,
    Option,
    Plan,
    StateDict,
    convolution_weight,
    has_prefix,
    listed,
    renamed,
)
from perpixel.weights.importers.smp_encoders import Rules, read_smp_encoder

__all__ = ["UNET_IMPORTER"]

_FULL_DEPTH = 5
_CLOSING = r"^backbone\.net\.features\.18\."
_DECODER_RULES: Rules = (
    (rf"{_CLOSING}0\.", "closing.0."),
    (rf"{_CLOSING}1\.", "closing.1."),
    (r"^decoder\.center\.", "center."),
    (r"^decoder\.blocks\.", "blocks."),
    (r"^(blocks\.\d+)\.conv1\.", r"\1.first."),
    (r"^(blocks\.\d+)\.conv2\.", r"\1.second."),
    (r"^(blocks\.\d+)\.attention1\.attention\.", r"\1.excite_in."),
    (r"^(blocks\.\d+)\.attention2\.attention\.", r"\1.excite_out."),
    (r"^(blocks\.\d+\.excite_\w+)\.cSE\.1\.", r"\1.channel.0."),
    (r"^(blocks\.\d+\.excite_\w+)\.cSE\.3\.", r"\1.channel.2."),
    (r"^(blocks\.\d+\.excite_\w+)\.sSE\.0\.", r"\1.pixel."),
    (r"^segmentation_head\.0\.", "classifier."),
)
_PARTS = {"encoder", "decoder", "segmentation_head", "classification_head"}
_INTERPOLATION = Option(
    default="nearest",
    allowed=("nearest", "bilinear"),
    help="how the decoder doubles maps (that library's decoder_interpolation)",
)


def _plan(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    depth = _num_blocks(tensors)
    encoder, encoder_rules = read_smp_encoder(tensors)
    rules = (*encoder_rules, *_DECODER_RULES)
    config = UNetBackboneConfig(
        widths=tuple(convolution_weight(tensors, f"decoder.blocks.{i}.conv1.0").shape[0] for i in range(depth)),
        norm=_has_batch_norm(tensors),
        interpolation=options["interpolation"],
        center=has_prefix(tensors, "decoder.center."),
        closing_width=_closing_width(tensors, depth),
        attention="scse" if has_prefix(tensors, "decoder.blocks.0.attention2.") else "none",
    )
    trunk = replace(encoder, num_stages=depth, cut_stages=_FULL_DEPTH - depth)
    num_classes = convolution_weight(tensors, "segmentation_head.0").shape[0]
    network = create_model("unet_backbone", config, num_classes=num_classes, backbone=trunk)
    last = f"decoder.blocks.{depth - 1}.attention1."
    unused = {
        "classification_head.": "scores the image as a whole, not its pixels",
        last: "constructed by that library, but never used: this block has no skipped map",
        **_unused_stages(tensors, trunk, rules, network),
    }
    return Plan(network=network, rename=lambda key: renamed(key, rules), unused=unused)


def _num_blocks(tensors: StateDict) -> int:
    found = {key.split(".")[2] for key in tensors if key.startswith("decoder.blocks.")}
    if not 1 <= len(found) <= _FULL_DEPTH or found != {str(i) for i in range(len(found))}:
        raise CheckpointError(
            f"'decoder.blocks' holds the blocks {listed(sorted(found))}; that library numbers up to {_FULL_DEPTH} "
            "from 0"
        )
    return len(found)


def _has_batch_norm(tensors: StateDict) -> bool:
    norm = "decoder.blocks.0.conv1.1."
    if not has_prefix(tensors, norm):
        return False
    if f"{norm}running_mean" not in tensors:
        raise CheckpointError(
            f"the decoder's norm ('{norm}weight') has no running mean: decoders with batch norm or without any norm "
            "can be read"
        )
    return True


def _closing_width(tensors: StateDict, depth: int) -> int:
    """Channels of MobileNet-v2's last convolution, which stands behind the stage at stride 32."""
    for start in ("encoder.", "encoder.model."):
        if depth == _FULL_DEPTH and f"{start}features.18.0.weight" in tensors:
            return convolution_weight(tensors, f"{start}features.18.0").shape[0]
    return 0


def _unused_stages(tensors: StateDict, trunk: BackboneConfig, rules: Rules, network: Network) -> dict[str, str]:
    """Keys of the encoder's stages that are coarser than the decoder begins."""
    if not trunk.cut_stages:
        return {}
    with torch.device("meta"):
        whole = create_backbone(replace(trunk, num_stages=1, cut_stages=0)).state_dict()
    known = {f"backbone.{key}" for key in whole}
    ours = network.state_dict()
    reason = f"a stage of the encoder that its decoder of {len(network.config.widths)} blocks does not use"
    names = {key: renamed(key, rules) for key in tensors if key.startswith("encoder.")}
    return {
        key: reason
        for key, name in names.items()
        if name not in ours and (name in known or name.startswith("closing."))
    }


def _recognise(tensors: StateDict) -> bool:
    needed = {"decoder.blocks.0.conv1.0.weight", "decoder.blocks.0.conv2.0.weight", "segmentation_head.0.weight"}
    inside = {".".join(key.split(".")[3:4]) for key in tensors if key.startswith("decoder.blocks.")}
    return (
        needed <= set(tensors)
        and {key.split(".")[0] for key in tensors} <= _PARTS
        and inside <= {"conv1", "conv2", "attention1", "attention2"}
    )


UNET_IMPORTER = Importer(
    family="smp/unet",
    title="U-Net of segmentation_models.pytorch",
    options={"interpolation": _INTERPOLATION},
    recognise=_recognise,
    plan=_plan,
)
