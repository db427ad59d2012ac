"""Checkpoints of DilatedNet's authors (fyu/dilation at 0f105742): every released form, and nets of their training code.

Keys are the Caffe layers' names, from a dict of arrays or a ``.caffemodel`` file. Read off keys and shapes: classes,
image channels and widths, the context module's kind (K or 2K maps in its first layer) and number of layers, and whether
a deconvolution ends the network. The VOC release calls its layers fc-final and ct_…, and pads once before the context
module; all others are called final and ctx_…, and pad before each layer. A context module that was saved without its
front end is no whole network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perpixel.backbones import CAFFE_PREPROCESSING, BackboneConfig
from perpixel.errors import CheckpointError
from perpixel.models import create_model
from perpixel.models.dilated import DilatedNetConfig
from perpixel.weights.importers.importer import Importer, Option, Plan, StateDict, convolution_weight, renamed

__all__ = ["DILATION_IMPORTER", "MEANS"]

MEANS: dict[str, tuple[float, float, float]] = {
    "pascal_voc": (102.93, 111.36, 116.52),
    "camvid": (110.703, 108.778, 105.412),
    "kitti": (96.194, 95.551, 91.347),
    "cityscapes": (72.39, 82.91, 73.16),
}
"""Blue, green and red, subtracted from values in [0, 255], by the release's data set."""
_RULES = (
    (r"^(conv\d_\d|fc[67])\.", r"backbone.\1."),
    (r"^(fc-)?final\.", "classifier."),
    (r"^(ctx?_)?upsample\.", "upsample."),
    (r"^ctx?_", "context."),
)
_SCORES = "final.weight"
_VOC_SCORES = "fc-final.weight"
_UPSAMPLES = ("upsample.weight", "ctx_upsample.weight", "ct_upsample.weight")
_FC6_KERNEL = (7, 7)
_LAYERS_BESIDE_LEVELS = 3
"""conv1_2, fc1 and final; one more layer per level conv1_1, conv2_1, …"""
_BY_LAYERS = {7: "kitti", 10: "cityscapes"}


def _is_dilation(tensors: StateDict) -> bool:
    return "conv1_1.weight" in tensors and "fc6.weight" in tensors and (_SCORES in tensors or _VOC_SCORES in tensors)


def _plan(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    once = _VOC_SCORES in tensors
    scores = convolution_weight(tensors, "fc-final" if once else "final")
    num_classes, fc_width = scores.shape[:2]
    fc6 = convolution_weight(tensors, "fc6")
    if tuple(fc6.shape[2:]) != _FC6_KERNEL:
        raise CheckpointError(f"fc6.weight has shape {tuple(fc6.shape)}; DilatedNet's is a 7x7 convolution")
    first = convolution_weight(tensors, "conv1_1")
    context, layers = _context(tensors, num_classes)
    config = DilatedNetConfig(
        context=context,
        context_layers=layers,
        context_padding=_chosen(options["context_padding"], "once" if once else "each"),
        upsample=any(key in tensors for key in _UPSAMPLES),
        width=first.shape[0],
        fc_width=fc_width,
    )
    trunk = BackboneConfig(name="vgg16", in_channels=first.shape[1])
    network = create_model("dilatednet", config, num_classes=num_classes, backbone=trunk)
    if trunk.in_channels == CAFFE_PREPROCESSING.num_channels:
        known = "pascal_voc" if once or context == "none" else _BY_LAYERS.get(layers, "camvid")
        network.preprocessing = replace(CAFFE_PREPROCESSING, mean=MEANS[_chosen(options["mean"], known)])
    return Plan(network=network, rename=lambda key: renamed(key, _RULES))


def _context(tensors: StateDict, num_classes: int) -> tuple[Any, int]:
    """Kind and number of layers of the context module."""
    levels = [int(match[1]) for key in tensors if (match := re.match(r"ctx?_conv(\d+)_1\.weight$", key))]
    if not levels:
        return "none", DilatedNetConfig.context_layers
    lacking = sorted(set(range(1, max(levels) + 1)) - set(levels))
    if lacking:
        raise CheckpointError(f"the context module has a layer conv{max(levels)}_1, but lacks conv{lacking[0]}_1")
    layer = "ct_conv1_1" if "ct_conv1_1.weight" in tensors else "ctx_conv1_1"
    width = convolution_weight(tensors, layer).shape[0]
    kinds = {num_classes: "basic", 2 * num_classes: "large"}
    if width not in kinds:
        raise CheckpointError(
            f"{layer!r} has {width} maps for {num_classes} classes: a context module has {num_classes} (basic) or "
            f"{2 * num_classes} (large)"
        )
    return kinds[width], max(levels) + _LAYERS_BESIDE_LEVELS


def _chosen(option: str, read: str) -> Any:
    return read if option == "auto" else option


DILATION_IMPORTER = Importer(
    family="caffe/dilation",
    title="DilatedNet of its authors, on VGG16",
    options={
        "context_padding": Option(
            default="auto",
            allowed=("auto", "once", "each"),
            help="zeros before the context module or before each of its layers; auto: once where scores are fc-final",
        ),
        "mean": Option(
            default="auto",
            allowed=("auto", *MEANS),
            help="whose mean colour is subtracted; auto: VOC's with fc-final or without a context module, KITTI's with "
            "7 layers, Cityscapes' with 10, else CamVid's",
        ),
    },
    recognise=_is_dilation,
    plan=_plan,
)
