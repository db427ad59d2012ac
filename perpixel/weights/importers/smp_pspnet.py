"""Checkpoints of the PSPNet of segmentation_models.pytorch (0.6.0), which is not the paper's.

Its encoder ends at stride 8 without dilation (``encoder_depth`` 3: two stages of a ResNet), so that the pyramid sees
512 channels of a ResNet-50 in place of 2048. Branches stand before the map in the concatenation, the one of a single
bin has a bias in place of its batch norm, a 1x1 convolution reads the concatenation and a 3x3 one classifies; there is
no auxiliary head. Sizes, depth and encoder are read off keys and shapes; nothing is dilated, so there is no convention
to choose. A MobileNet-v2 of full depth is refused: its last convolution has no place in our trunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import timm
import torch

from perpixel.backbones import Backbone, create_backbone
from perpixel.errors import CheckpointError
from perpixel.models import create_model
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
from perpixel.weights.importers.smp_encoders import ENCODER_OPTION, read_smp_encoder

__all__ = ["PSPNET_IMPORTER"]

_NAMES = PyramidNames(
    branch="decoder.psp.blocks.{}.pool.1.0", fusion="decoder.conv.0", classifier="segmentation_head.0"
)
_RULES = (
    (r"^decoder\.psp\.blocks\.(\d+)\.pool\.1\.0\.", r"pyramid.branches.\1.conv."),
    (r"^decoder\.psp\.blocks\.(\d+)\.pool\.1\.1\.", r"pyramid.branches.\1.norm."),
    (r"^decoder\.conv\.0\.", "fusion.conv."),
    (r"^decoder\.conv\.1\.", "fusion.norm."),
    (r"^segmentation_head\.0\.", "classifier."),
)
_DEPTHS = (3, 4, 5)
_MOBILENET_HEAD = ("encoder.features.18.", "encoder.model.features.18.")
"""MobileNet-v2's last convolution, which smp counts to the last stage and timm to the classifier."""
_UNUSED_STAGES = "a stage that the encoder was built with, and that this network does not use"


def _plan_pspnet(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    single = next((i for i, bins in enumerate(options["bins"]) if bins == 1), 0)
    config, num_classes = read_pspnet(
        tensors,
        _NAMES,
        options,
        order="bins_first",
        dropout=0.2,
        norm_of_single_bin=f"{_NAMES.branch.format(single)}.bias" not in tensors,
    )
    trunk, rules = read_smp_encoder(tensors, name=options["encoder"])
    with torch.device("meta"):  # for its maps and names alone
        whole = create_backbone(trunk)
    channels = convolution_weight(tensors, _NAMES.branch.format(0)).shape[1]
    depth = _depth(whole, channels, options["encoder_depth"])
    coarser = len(whole.strides) - whole.strides.index(2**depth) - 1
    trunk = replace(trunk, num_stages=1, cut_stages=trunk.cut_stages + coarser)
    network = create_model("pspnet", config, num_classes=num_classes, backbone=trunk)
    rules = (*rules, *_RULES)
    known, ours = _trunk_keys(whole), network.state_dict().keys()
    head = _MOBILENET_HEAD if trunk.name.startswith("mobilenet") else ()
    unused = [key for key in tensors if renamed(key, rules) in known - ours or key.startswith(head)]
    return Plan(
        network=network,
        rename=lambda key: renamed(key, rules),
        unused={"classification_head.": "scores the image as a whole, not its pixels"}
        | dict.fromkeys(unused, _UNUSED_STAGES),
        notes=(pyramid_note(options),),
    )


def _trunk_keys(whole: Backbone) -> set[str]:
    """Our names of all that the classification network holds, of which the encoder is a part."""
    with torch.device("meta"):
        classifier = timm.create_model(whole.config.name)
    keys = {*(f"net.{key}" for key in classifier.state_dict()), *whole.state_dict()}
    return {f"backbone.{key}" for key in keys}


def _depth(encoder: Backbone, channels: int, chosen: int | str) -> int:
    """How deep the network cuts the encoder: smp's own depth of 3 where the channels allow it."""
    depths = {
        depth: encoder.channels[encoder.strides.index(2**depth)] for depth in _DEPTHS if 2**depth in encoder.strides
    }
    fitting = [depth for depth, width in depths.items() if width == channels and chosen in ("auto", depth)]
    if not fitting:
        known = ", ".join(f"{width} at depth {depth}" for depth, width in depths.items())
        raise CheckpointError(
            f"the pyramid reads {channels} channels, which {encoder.config.name} does not give at "
            f"encoder_depth={chosen} ({known})"
        )
    return fitting[0]


PSPNET_IMPORTER = Importer(
    family="smp/pspnet",
    title="PSPNet of segmentation_models.pytorch, on ResNets, VGGs and MobileNet-v2",
    options={
        **pyramid_options(),
        "encoder": ENCODER_OPTION,
        "encoder_depth": Option(
            default="auto",
            allowed=("auto", *_DEPTHS),
            help="stages of the encoder; auto: by the channels that the pyramid reads, 3 where that leaves a choice",
        ),
    },
    recognise=lambda tensors: has_prefix(tensors, "decoder.psp.blocks.") and has_prefix(tensors, "encoder."),
    plan=_plan_pspnet,
)
