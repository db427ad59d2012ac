"""Checkpoints of pytorch-fcn (wkentaro/pytorch-fcn at 4b988509): FCN-32s, -16s and -8s on VGG16, in the Caffe names.

Classes, widths and image channels are read off shapes. Whether FCN-8s was trained at once (pool4 and pool3 scaled
before they are scored) leaves no trace in the weights: ``at_once``. Its training drops whole channels behind fc6 and
fc7 where the Caffe release and ours drop single values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from perpixel.backbones import CAFFE_PREPROCESSING, BackboneConfig
from perpixel.errors import CheckpointError
from perpixel.models import FCNVGG16Config, create_model
from perpixel.weights.importers.importer import Importer, Option, Plan, StateDict

__all__ = ["FCN8S_IMPORTER", "FCN16S_IMPORTER", "FCN32S_IMPORTER", "fcn_layers", "fcn_sizes", "renamed_fcn"]

_UPSAMPLING: dict[int, frozenset[str]] = {
    32: frozenset({"upscore"}),
    16: frozenset({"upscore2", "score_pool4", "upscore16"}),
    8: frozenset({"upscore2", "score_pool4", "upscore_pool4", "score_pool3", "upscore8"}),
}
_TRUNK = re.compile(r"^(conv[1-5]_[1-3]|fc[67])\.")
_SCORES = re.compile(r"^(score_fr|score_pool[34])\.")
_AT_ONCE = Option(
    default=False,
    allowed=(False, True),
    help="FCN-8s trained at once: pool4 is scored after a factor of 0.01, pool3 of 0.0001",
)


def renamed_fcn(key: str) -> str:
    """Their name -> ours; the layers are called alike, but VGG16's stand in the trunk."""
    return _SCORES.sub(r"\1.classifier.", _TRUNK.sub(r"backbone.\1.", key))


def fcn_layers(tensors: StateDict, stride: int) -> bool:
    """Whether the keys are those of an FCN of this stride and of nothing else."""
    layers = {key.partition(".")[0] for key in tensors}
    heads = {layer for layer in layers if not _TRUNK.match(f"{layer}.")}
    return heads == {"score_fr", *_UPSAMPLING[stride]} and {"conv1_1", "fc6", "fc7"} <= layers


def fcn_sizes(tensors: StateDict) -> tuple[BackboneConfig, int, dict[str, Any]]:
    """Reads the trunk with its image channels, the classes and the widths off the shapes.

    Raises:
        CheckpointError: a tensor that they are read from is missing or no convolution's weight.
    """
    first, fc6, scores = (_weight(tensors, name) for name in ("conv1_1", "fc6", "score_fr"))
    trunk = BackboneConfig(name="vgg16", in_channels=first.shape[1])
    return trunk, scores.shape[0], {"width": first.shape[0], "fc_width": fc6.shape[0]}


def _planner(stride: Literal[32, 16, 8]) -> Callable[[StateDict, Mapping[str, Any]], Plan]:
    def plan(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
        trunk, num_classes, widths = fcn_sizes(tensors)
        config = FCNVGG16Config(stride=stride, at_once=options.get("at_once", False), **widths)
        network = create_model("fcn_vgg16", config, num_classes=num_classes, backbone=trunk)
        if trunk.in_channels == CAFFE_PREPROCESSING.num_channels:
            network.preprocessing = CAFFE_PREPROCESSING
        return Plan(network=network, rename=renamed_fcn)

    return plan


def _weight(tensors: StateDict, name: str) -> Any:
    key = f"{name}.weight"
    if key not in tensors:
        raise CheckpointError(f"the checkpoint lacks {key!r}, which its sizes are read from")
    if tensors[key].ndim != 4:
        raise CheckpointError(f"{key!r} has shape {tuple(tensors[key].shape)}, 4 dimensions expected")
    return tensors[key]


FCN32S_IMPORTER = Importer(
    family="wkentaro/fcn32s",
    title="FCN-32s of pytorch-fcn, on VGG16",
    options={},
    recognise=lambda tensors: fcn_layers(tensors, 32),
    plan=_planner(32),
)
FCN16S_IMPORTER = Importer(
    family="wkentaro/fcn16s",
    title="FCN-16s of pytorch-fcn, on VGG16",
    options={},
    recognise=lambda tensors: fcn_layers(tensors, 16),
    plan=_planner(16),
)
FCN8S_IMPORTER = Importer(
    family="wkentaro/fcn8s",
    title="FCN-8s of pytorch-fcn, on VGG16",
    options={"at_once": _AT_ONCE},
    recognise=lambda tensors: fcn_layers(tensors, 8) and "upscore2.bias" not in tensors,
    plan=_planner(8),
)
