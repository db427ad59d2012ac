"""Classification weights of VGG16 → the layers of a segmentation trunk, fully connected ones included.

Three layouts of names are read: torchvision's (``features.0``, ``classifier.0``), timm's (``features.0``,
``pre_logits.fc1``) and the published one (``conv1_1`` … ``fc7``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor

from perpixel.backbones.hub import cannot_fetch, hub_unless_unreachable
from perpixel.backbones.weight_files import read_checkpoint
from perpixel.errors import CheckpointError

if TYPE_CHECKING:
    from perpixel.backbones.vgg16 import VGG16

__all__ = ["fill_vgg16", "published_vgg16_names"]

_CONVS = (2, 2, 3, 3, 3)
_CLASSIFIERS = ("classifier.6.", "head.fc.", "fc8.")
_FULLY_CONNECTED = {
    "classifier.0.": "fc6.",
    "classifier.3.": "fc7.",
    "pre_logits.fc1.": "fc6.",
    "pre_logits.fc2.": "fc7.",
}


def fill_vgg16(trunk: VGG16, weights: str) -> tuple[tuple[str, ...], bool]:
    """Fills a trunk from ``timm`` or a file; returns what was adapted, and whether the weights are Caffe's.

    fc6 and fc7 of another kernel or width than VGG16's 7x7 and 4096 take every n-th position and filter (DeepLab's
    decimation; its authors do not say which they took). A trunk with batch norm takes weights without: its norms then
    keep their initial values, as SegNet and DeconvNet begin.

    Raises:
        CheckpointError: the weights cannot be had, tensors are missing or left over, or shapes do not fit.
    """
    found = _pretrained(trunk) if weights == "timm" else read_checkpoint(weights)
    caffe = "conv1_1.weight" in found
    named = published_vgg16_names(found)
    wanted = trunk.state_dict()
    new_norms = trunk.layout.batch_norm and not any(key.startswith("bn") for key in named)
    notes: list[str] = []
    problems: list[str] = []
    for key, own in wanted.items():
        value = named.get(key)
        if value is None:
            if not (key.endswith("num_batches_tracked") or (new_norms and key.startswith("bn"))):
                problems.append(f"missing: {key} {tuple(own.shape)}")
            continue
        fitted, note = _fitted(key, value, tuple(own.shape))
        if tuple(fitted.shape) != tuple(own.shape):
            problems.append(f"shape: {key} is {tuple(value.shape)}, the trunk wants {tuple(own.shape)}")
            continue
        wanted[key] = fitted
        notes += [note] if note else []
    problems += [f"left over: {key}" for key in named if key not in wanted and not key.startswith(("fc6.", "fc7."))]
    if problems:
        shown = "\n  ".join(problems[:10])
        raise CheckpointError(
            f"{weights}: {len(problems)} tensors do not fit vgg16:\n  {shown}\n"
            "Give VGG16 weights of torchvision, of timm, or under the published names conv1_1 … fc7."
        )
    trunk.load_state_dict(wanted)
    notes += ["the weights are of a VGG16 without batch norm; its batch norms start anew"] if new_norms else []
    return tuple(notes), caffe


def published_vgg16_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a VGG16 of torchvision or timm to conv1_1 … conv5_3 (and bn1_1 …), fc6, fc7; drops its classifier."""
    numbers = _numbers(with_norm="features.1.weight" in tensors)
    renamed: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if key.startswith(_CLASSIFIERS):
            continue
        prefix = next((p for p in _FULLY_CONNECTED if key.startswith(p)), None)
        match = re.match(r"features\.(\d+)\.", key)
        if prefix is not None:
            key = _FULLY_CONNECTED[prefix] + key.removeprefix(prefix)
        elif match is not None and int(match[1]) in numbers:
            key = f"{numbers[int(match[1])]}.{key[match.end() :]}"
        renamed[key] = value
    return renamed


def _numbers(*, with_norm: bool) -> dict[int, str]:
    """Position in torchvision's ``features`` → layer name."""
    names: dict[int, str] = {}
    position = 0
    for block, convs in enumerate(_CONVS, start=1):
        for i in range(1, convs + 1):
            names[position] = f"conv{block}_{i}"
            if with_norm:
                names[position + 1] = f"bn{block}_{i}"
            position += 3 if with_norm else 2
        position += 1  # the pool
    return names


def _pretrained(trunk: VGG16) -> dict[str, Tensor]:
    name = "vgg16_bn" if trunk.layout.batch_norm else "vgg16"
    try:
        with hub_unless_unreachable():
            return dict(timm.create_model(name, pretrained=True).state_dict())
    except (OSError, RuntimeError, ValueError) as error:
        raise cannot_fetch(name, error) from error


def _fitted(key: str, value: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, str]:
    """Brings a tensor to the trunk's shape where that has a known meaning; else returns it as it is."""
    if key == "fc6.weight" and value.ndim == 2 and value.shape[1] % 49 == 0:
        value = value.reshape(len(value), -1, 7, 7)
    elif key == "fc7.weight" and value.ndim == 2:
        value = value[:, :, None, None]
    if tuple(value.shape) == shape:
        return value, ""
    if key == "conv1_1.weight" and value.shape[1] == 3:
        return torch.as_tensor(adapt_input_conv(shape[1], value)), f"{key} was adapted from 3 to {shape[1]} channels"
    if key.startswith(("fc6.", "fc7.")) and value.ndim == len(shape):
        return _decimated(key, value, shape), f"{key} decimated from {tuple(value.shape)} to {shape}"
    return value, ""


def _decimated(key: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Keeps evenly spaced filters, and of fc6's kernel evenly spaced positions."""
    for axis, size in enumerate(shape):
        if value.shape[axis] < size or (key == "fc6.weight" and axis == 1):
            continue
        keep = torch.linspace(0, value.shape[axis] - 1, size).round().long()
        value = value.index_select(axis, keep)
    return value
