"""Checkpoints of DeepLab v1 as its authors' Caffe has them (copy: TheLegendAli/DeepLab-Context at f6d04454).

A checkpoint is a dict of arrays, ``<layer>.weight`` and ``<layer>.bias``, in the layer names of the released prototxt
files: conv1_1 … conv5_3, fc6, fc7, fc8_<data set>; MSc adds data_conv, data_fc, data_ms and the same of pool1 to pool4.
Classes, image channels, widths, fc6's kernel and whether there is MSc are read off keys and shapes. The dilation of
fc6, the average pooling behind pool5 and the kernel of the poolings leave no trace in the weights; they follow fc6's
kernel and MSc as released, unless said. Not verified, for no such prototxt was found: the poolings of the 7x7 form,
taken as 3x3, and of 4x4 with a large field of view, taken as those of the plain 4x4 form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from perpixel.backbones import DEEPLAB_PREPROCESSING, BackboneConfig
from perpixel.errors import CheckpointError
from perpixel.models import DeepLabV1Config, create_model
from perpixel.weights.importers.importer import Importer, Option, Plan, StateDict, convolution_weight

__all__ = ["DEEPLAB_V1_IMPORTER"]

_TRUNK = re.compile(r"(conv[1-5]_[1-3]|fc[67])\.")
_SCORES = re.compile(r"fc8(_\w+)?\.")
_SIDES = {"data": 0, "pool1": 1, "pool2": 2, "pool3": 3, "pool4": 4}
_SIDE = re.compile(r"(data|pool[1-4])_(conv|fc|ms)\.")
_RELEASED_DILATIONS = {3: 12, 4: 4, 7: 4}
_LARGE_FOV_KERNEL = 3
_PLAIN_KERNEL = 4


def _dilation(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError("'auto' or a whole number >= 1")


def _renamed(key: str) -> str:
    key = _TRUNK.sub(r"backbone.\1.", key)
    key = _SCORES.sub("classifier.", key)
    return _SIDE.sub(lambda m: f"branches.{_SIDES[m[1]]}.{'classifier' if m[2] == 'ms' else m[2]}.", key)


def _recognise(tensors: StateDict) -> bool:
    """By the layers that all forms have; what else is there is named when it finds no place."""
    needed = {"conv1_1.weight", "fc6.weight", "fc7.weight"} <= set(tensors)
    return needed and tensors["fc6.weight"].ndim == 4 and bool(_score_layers(tensors))


def _plan(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    classifiers = _score_layers(tensors)
    if len(classifiers) > 1:
        raise CheckpointError(f"DeepLab v1 has one classifier, got {' and '.join(classifiers)}; leave one of them")
    first, fc6, scores = (convolution_weight(tensors, name) for name in ("conv1_1", "fc6", *classifiers))
    kernel = fc6.shape[2]
    dilation = _RELEASED_DILATIONS.get(kernel) if options["fc6_dilation"] == "auto" else options["fc6_dilation"]
    if dilation is None:
        known = ", ".join(map(str, _RELEASED_DILATIONS))
        raise CheckpointError(
            f"fc6 has a kernel of {kernel}, released are {known}; say its dilation with the option fc6_dilation"
        )
    msc = any(_SIDE.match(key) for key in tensors)
    pool_kernel, notes = _pool_kernel(kernel, dilation, msc=msc, option=options["pool_kernel"])
    config = DeepLabV1Config(
        fc6_kernel=kernel,
        fc6_dilation=dilation,
        fc_width=fc6.shape[0],
        pool5a=kernel == _LARGE_FOV_KERNEL if options["pool5a"] == "auto" else options["pool5a"],
        pool_kernel=pool_kernel,
        msc=msc,
        msc_width=convolution_weight(tensors, "data_conv").shape[0] if msc else DeepLabV1Config.msc_width,
        width=first.shape[0],
    )
    trunk = BackboneConfig(name="vgg16", in_channels=first.shape[1])
    network = create_model("deeplab_v1", config, num_classes=scores.shape[0], backbone=trunk)
    if trunk.in_channels == DEEPLAB_PREPROCESSING.num_channels:
        network.preprocessing = DEEPLAB_PREPROCESSING
    return Plan(network=network, rename=_renamed, notes=notes)


def _pool_kernel(kernel: int, dilation: int, *, msc: bool, option: int | str) -> tuple[Literal[3, 2], tuple[str, ...]]:
    """Returns the kernel of pool1 to pool4, and what to tell of it where no released file says so."""
    if option != "auto":
        if msc and option == 2:
            raise CheckpointError(
                "the checkpoint has MSc's side branches, whose poolings are 3x3; leave pool_kernel=2 away"
            )
        return (2 if option == 2 else 3), ()
    if msc or kernel == _LARGE_FOV_KERNEL:
        return 3, ()
    chosen: Literal[3, 2] = 2 if kernel == _PLAIN_KERNEL else 3
    if (kernel, dilation) == (_PLAIN_KERNEL, _RELEASED_DILATIONS[_PLAIN_KERNEL]):
        return chosen, ()
    return chosen, (
        f"poolings of {chosen}x{chosen} are assumed for an fc6 of kernel {kernel} and dilation {dilation}: no released "
        f"file says so; the option pool_kernel={5 - chosen} takes the others",
    )


def _score_layers(tensors: StateDict) -> list[str]:
    return [key.removesuffix(".weight") for key in tensors if _SCORES.match(key) and key.endswith(".weight")]


DEEPLAB_V1_IMPORTER = Importer(
    family="caffe/deeplabv1",
    title="DeepLab v1 on VGG16, in the layer names of its authors' Caffe",
    options={
        "fc6_dilation": Option(
            default="auto", read=_dilation, help="of fc6; auto: 12 for a kernel of 3, 4 for kernels of 4 and 7"
        ),
        "pool5a": Option(
            default="auto",
            allowed=("auto", True, False),
            help="average pooling behind pool5; auto: with an fc6 of kernel 3 (LargeFOV)",
        ),
        "pool_kernel": Option(
            default="auto",
            allowed=("auto", 3, 2),
            help="of pool1 to pool4; auto: 2 for an fc6 of kernel 4 without MSc (the plain DeepLab), else 3",
        ),
    },
    recognise=_recognise,
    plan=_plan,
)
