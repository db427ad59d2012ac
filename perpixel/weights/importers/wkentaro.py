"""Checkpoints of pytorch-fcn (wkentaro/pytorch-fcn at 4b988509): FCN-32s, -16s and -8s on VGG16, in the Caffe names.

Classes, widths and image channels are read off shapes. FCN-8s trained at once scales pool4 and pool3 before they are
scored: the authors' Caffe (voc-fcn8s-atonce) has layers scale_pool4 and scale_pool3 for it, which are read;
pytorch-fcn multiplies in its code, which leaves no trace in the weights: ``at_once``. Its training drops whole channels
behind fc6 and fc7 where the Caffe release and ours drop single values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch

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
_TRUNK_LAYERS = frozenset({"conv1_1", "fc6", "fc7"})
"""Those that sizes are read from."""
_SCALES = {"scale_pool4": 0.01, "scale_pool3": 0.0001}
"""The Scale layers of the authors' FCN-8s at once, and their fixed factors."""
_AT_ONCE = Option(
    default="auto",
    allowed=("auto", False, True),
    help="FCN-8s trained at once: pool4 is scored after a factor of 0.01, pool3 of 0.0001; auto: where the checkpoint "
    "has the layers scale_pool4 and scale_pool3",
)


def renamed_fcn(key: str) -> str:
    """Their name -> ours; the layers are called alike, but VGG16's stand in the trunk."""
    return _SCORES.sub(r"\1.classifier.", _TRUNK.sub(r"backbone.\1.", key))


def fcn_layers(tensors: StateDict, stride: int) -> bool:
    """Whether the keys are those of an FCN of this stride and of nothing else.

    One layer may be missing, so that the error can name it. That does not mix up strides: each needs layers that the
    others lack, or at least two more.
    """
    layers = _layers(tensors)
    heads = {"score_fr", *_UPSAMPLING[stride]}
    others = {layer for layer in layers if not _TRUNK.match(f"{layer}.")}
    return others <= heads and len((heads | _TRUNK_LAYERS) - layers) <= 1


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
        _refuse_missing(tensors, stride)
        trunk, num_classes, widths = fcn_sizes(tensors)
        scaled = stride == 8 and _has_scales(tensors)
        at_once = _at_once(options["at_once"], scaled=scaled) if stride == 8 else False
        config = FCNVGG16Config(stride=stride, at_once=at_once, **widths)
        network = create_model("fcn_vgg16", config, num_classes=num_classes, backbone=trunk)
        if trunk.in_channels == CAFFE_PREPROCESSING.num_channels:
            network.preprocessing = CAFFE_PREPROCESSING
        unused = {f"{layer}.weight": "the factors of FCN-8s at once, part of our network" for layer in _SCALES}
        return Plan(network=network, rename=renamed_fcn, unused=unused if scaled else {})

    return plan


def _layers(tensors: StateDict) -> set[str]:
    return {key.partition(".")[0] for key in tensors}


def _refuse_missing(tensors: StateDict, stride: int) -> None:
    missing = sorted({"score_fr", *_UPSAMPLING[stride], *_TRUNK_LAYERS} - _layers(tensors))
    if missing:
        keys = ", ".join(repr(f"{layer}.weight") for layer in missing)
        raise CheckpointError(f"the checkpoint lacks {keys}, without which it is no FCN-{stride}s; give the whole file")


def _has_scales(tensors: StateDict) -> bool:
    """Whether the authors' Scale layers are there, with the factors that the network knows."""
    if not _SCALES.keys() & _layers(tensors):
        return False
    for layer, factor in _SCALES.items():
        key = f"{layer}.weight"
        if key not in tensors:
            raise CheckpointError(f"the checkpoint lacks {key!r}; FCN-8s at once has {' and '.join(_SCALES)}")
        weight = tensors[key].double()
        rounding = torch.finfo(tensors[key].dtype).eps if tensors[key].is_floating_point() else 0.0
        if not torch.allclose(weight, torch.full_like(weight, factor), rtol=max(rounding, 1e-6), atol=0):
            raise CheckpointError(
                f"{key!r} holds {weight.min().item():.6g} to {weight.max().item():.6g}; FCN-8s at once multiplies by "
                f"{factor}, and other factors have no place in our network"
            )
    return True


def _at_once(option: bool | Literal["auto"], *, scaled: bool) -> bool:
    if scaled and option is False:
        raise CheckpointError(
            f"the checkpoint has {' and '.join(_SCALES)}, so it is FCN-8s at once; leave at_once=False away"
        )
    return scaled or option is True


def _is_fcn8s(tensors: StateDict) -> bool:
    plain = {key: tensor for key, tensor in tensors.items() if key.partition(".")[0] not in _SCALES}
    return fcn_layers(plain, 8) and "upscore2.bias" not in plain


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
    recognise=_is_fcn8s,
    plan=_planner(8),
)
