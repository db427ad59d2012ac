"""Checkpoints of PyTorch-Encoding (zhanghang1989/PyTorch-Encoding at ac748410): EncNet on its ResNets.

Classes, codewords, widths, depth and stem are read off keys and shapes, as are the parts that a checkpoint may lack:
lateral connections, the presence scores of the SE-loss, the auxiliary head. That code dilates its trunks to output
stride 8 by the `half` convention. A ``pretrained.fc`` is what its forks keep of the ImageNet classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perpixel.errors import CheckpointError
from perpixel.models import EncNetConfig, create_model
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
from perpixel.weights.importers.resnet_trunk import read_resnet

__all__ = ["ENCNET_IMPORTER", "MODULE_RULES"]

# Their name -> ours, one rule after the other on each key.
MODULE_RULES = (
    (r"^encoding\.0\.", "semantics.project.conv."),
    (r"^encoding\.1\.", "semantics.project.norm."),
    (r"^encoding\.3\.", "semantics.encoding."),
    (r"^encoding\.4\.", "semantics.norm."),
    (r"^fc\.0\.", "attention."),
    (r"^selayer\.", "presence."),
)
"""Of the Context Encoding Module, alone or within the network."""
_RULES = (
    (r"^pretrained\.", "backbone.net."),
    (r"^head\.conv5\.0\.", "project.conv."),
    (r"^head\.conv5\.1\.", "project.norm."),
    (r"^head\.connect\.(\d+)\.0\.", r"lateral.\1.conv."),
    (r"^head\.connect\.(\d+)\.1\.", r"lateral.\1.norm."),
    (r"^head\.fusion\.0\.", "fusion.conv."),
    (r"^head\.fusion\.1\.", "fusion.norm."),
    (r"^head\.conv6\.1\.", "classifier."),
    (r"^auxlayer\.conv5\.0\.", "auxiliary_head.block.conv."),
    (r"^auxlayer\.conv5\.1\.", "auxiliary_head.block.norm."),
    (r"^auxlayer\.conv5\.4\.", "auxiliary_head.classifier."),
)
_MODULE = "head.encmodule."
_CODEWORDS = f"{_MODULE}encoding.3.codewords"
_UNUSED = {"pretrained.fc.": "the trunk's ImageNet classifier, which the network never calls"}


def _recognise(tensors: StateDict) -> bool:
    known = {"pretrained", "head", "auxlayer"}
    return (
        _CODEWORDS in tensors
        and has_prefix(tensors, "pretrained.layer1.")
        and {key.split(".")[0] for key in tensors} <= known
    )


def _plan(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    num_classes = convolution_weight(tensors, "head.conv6.1").shape[0]
    codewords = tensors[_CODEWORDS]
    if codewords.ndim != 2:
        raise CheckpointError(f"{_CODEWORDS!r} has shape {tuple(codewords.shape)}, 2 dimensions expected")
    auxiliary = has_prefix(tensors, "auxlayer.")
    config = EncNetConfig(
        width=convolution_weight(tensors, "head.conv5.0").shape[0],
        num_codewords=codewords.shape[0],
        lateral=has_prefix(tensors, "head.connect."),
        presence=has_prefix(tensors, f"{_MODULE}selayer."),
        auxiliary=auxiliary,
        auxiliary_width=(
            convolution_weight(tensors, "auxlayer.conv5.0").shape[0] if auxiliary else EncNetConfig.auxiliary_width
        ),
        align_corners=options["align_corners"],
    )
    trunk = dilated_trunk(read_resnet(tensors, "pretrained."), options)
    network = create_model("encnet", config, num_classes=num_classes, backbone=trunk)
    return Plan(network=network, rename=_renamed, unused=_UNUSED, notes=(dilation_note(options),))


def _renamed(key: str) -> str:
    if key.startswith(_MODULE):
        return "context." + renamed(key.removeprefix(_MODULE), MODULE_RULES)
    return renamed(key, _RULES)


ENCNET_IMPORTER = Importer(
    family="encoding/encnet",
    title="EncNet of PyTorch-Encoding, on ResNets",
    options={
        **dilation_options(output_stride=8, dilation="half"),
        "align_corners": Option(
            default=True, allowed=(True, False), help="how scores are resized; that code aligns corners everywhere"
        ),
    },
    recognise=_recognise,
    plan=_plan,
)
