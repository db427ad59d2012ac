"""Checkpoints of milesial/Pytorch-UNet (at 21d7850): U-Net with padded convolutions and batch norm.

Image channels, classes, widths, depth, biases and the kind of upsampling are read off keys and shapes. The released
files hold ``mask_values`` beside the weights, the grey values of the classes in the masks; it is left aside.

A network of one class is trained there with a sigmoid, so that its score is compared with 0 and not with other classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count, takewhile
from typing import Any

from perpixel.errors import CheckpointError
from perpixel.models import UNetConfig, create_model
from perpixel.weights.importers.importer import Importer, Plan, StateDict

__all__ = ["UNET_IMPORTER"]

_FIRST = "inc.double_conv.0.weight"
_CLASSIFIER = "outc.conv.weight"
_UNUSED = {"mask_values": "the grey values of the classes in the training masks, no weights"}
_LAYERS = {"0": "first.conv", "1": "first.norm", "3": "second.conv", "4": "second.norm"}


_SCALE_NOTE = (
    "at which scale of its images the network was trained cannot be seen: releases exist for 0.5 and 1; resize images "
    "accordingly before they are predicted"
)
_ONE_CLASS_NOTE = (
    "one score per pixel: the object is where the score, Segmenter.logits, is above 0 (its sigmoid above 0.5); masks "
    "hold the highest of all classes, which with one class is always class 0"
)


def _plan(tensors: StateDict, options: Mapping[str, Any]) -> Plan:  # noqa: ARG001 - one signature for all
    depth = sum(1 for _ in takewhile(lambda level: _down(level) in tensors, count(1)))
    if not depth:
        raise CheckpointError(f"the checkpoint lacks {_down(1)!r}, which its depth and widths are read from")
    keys = [_FIRST.replace(".0.", ".3."), *(_down(level) for level in range(1, depth + 1))]
    widths = [_shape(tensors, key)[0] for key in keys]
    bilinear = f"up{depth}.up.weight" not in tensors
    if bilinear:
        widths[-1] *= 2  # the deepest level holds half of its width
    config = UNetConfig(
        in_channels=_shape(tensors, _FIRST)[1],
        widths=tuple(widths),
        upsampling="bilinear" if bilinear else "deconvolution",
        biased="inc.double_conv.0.bias" in tensors,
    )
    num_classes = _shape(tensors, _CLASSIFIER)[0]
    network = create_model("unet", config, num_classes=num_classes)
    notes = (_SCALE_NOTE, _ONE_CLASS_NOTE) if num_classes == 1 else (_SCALE_NOTE,)
    return Plan(network=network, rename=lambda key: _renamed(key, depth), unused=_UNUSED, notes=notes)


def _down(level: int) -> str:
    return f"down{level}.maxpool_conv.1.double_conv.3.weight"


def _renamed(key: str, depth: int) -> str:
    key = re.sub(r"^inc\.", "down0.maxpool_conv.1.", key)
    key = re.sub(r"^outc\.conv\.", "classifier.", key)
    key = re.sub(r"^down(\d+)\.maxpool_conv\.1\.", r"down.\1.", key)
    key = re.sub(r"^up(\d+)\.", lambda match: f"up.{depth - int(match[1])}.", key)  # theirs count from the coarsest
    key = re.sub(r"^(up\.-?\d+\.)up\.", r"\1upsample.", key)
    key = re.sub(r"^(up\.-?\d+\.)conv\.", r"\1fuse.", key)
    return re.sub(r"\.double_conv\.([0134])\.", lambda match: f".{_LAYERS[match[1]]}.", key)


def _shape(tensors: StateDict, key: str) -> tuple[int, ...]:
    if key not in tensors:
        raise CheckpointError(f"the checkpoint lacks {key!r}, which its sizes are read from")
    shape = tuple(tensors[key].shape)
    if len(shape) != 4:
        raise CheckpointError(f"{key!r} has shape {shape}, 4 dimensions expected")
    return shape


def _recognise(tensors: StateDict) -> bool:
    return any(key.startswith("inc.double_conv.") for key in tensors) and any(
        re.match(r"down\d+\.maxpool_conv\.", key) for key in tensors
    )


UNET_IMPORTER = Importer(
    family="milesial/unet",
    title="U-Net of Pytorch-UNet, padded, with batch norm",
    options={},
    recognise=_recognise,
    plan=_plan,
)
