"""Caffe releases of SegNet and SegNet-Basic (alexgkendall/SegNet-Tutorial) and DeconvNet (HyeonwooNoh/DeconvNet).

What is read is a dict of arrays ``<layer>.weight``, ``.bias``, and for batch norm ``.scale``, ``.shift``. Classes,
widths and kernels are read off shapes, biases and single-channel decoders off keys and shapes.

Batch norm: these releases average mean and variance after training and fold them, so that a layer is
``y = x * scale + shift``. Ours stays a batch norm, with the mean 0 and the variance 1 - eps: its divisor is then
sqrt(1 - eps + eps) = 1, the same function to the last bits. A layer that is trained on by batch statistics would lose
it, so freeze batch norm (``freeze_batch_norm``) to fine-tune such weights. Files of forks that store mean and variance
as well (``.running_mean``, ``.running_var``) fill them as they are. A snapshot of training, whose scale and shift are
not folded yet, looks the same as a folded one: import the file that the authors' averaging script wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from perpixel.backbones import CAFFE_PREPROCESSING, BackboneConfig
from perpixel.errors import CheckpointError
from perpixel.models import DeconvNetConfig, SegNetBasicConfig, SegNetConfig, create_model
from perpixel.ops.contrast_normalization import INPUT_NORMALISATIONS
from perpixel.types import Preprocessing
from perpixel.weights.importers.importer import (
    Importer,
    Option,
    Plan,
    StateDict,
    convolution_weight,
    renamed,
)

__all__ = ["DECONVNET_IMPORTER", "SEGNET_BASIC_IMPORTER", "SEGNET_IMPORTER"]

_NORM_RULES = ((r"\.scale$", ".weight"), (r"\.shift$", ".bias"))
_SEGNET_RULES = (
    (r"^conv1_1_D\.", "classifier."),
    (r"^conv(\d)_(\d)_D_bn\.", r"decoder.block\1.bn\1_\2."),
    (r"^conv(\d)_(\d)_D\.", r"decoder.block\1.conv\1_\2."),
    (r"^conv(\d)_(\d)_bn\.", r"backbone.bn\1_\2."),
    (r"^conv(\d)_(\d)\.", r"backbone.conv\1_\2."),
    *_NORM_RULES,
)
_BASIC_RULES = (
    (r"^(conv_classifier|dense_softmax_inner_prod)\.", "classifier."),
    (r"^conv_decode(\d)_bn\.", r"decoder.level\1.norm."),
    (r"^conv_decode(\d)\.", r"decoder.level\1.conv."),
    (r"^conv(\d)_bn\.", r"encoder.level\1.norm."),
    (r"^conv(\d)\.", r"encoder.level\1.conv."),
    *_NORM_RULES,
)
_DECONVNET_RULES = (
    (r"^seg-score[\w-]*\.", "classifier."),
    (r"^fc6-deconv-bn\.", "bn_fc6_deconv."),
    (r"^fc6-deconv\.", "fc6_deconv."),
    (r"^bnfc(\d)\.", r"bn_fc\1."),
    (r"^de(conv|bn)(\d)_(\d)\.", r"decoder.block\2.de\1\2_\3."),
    (r"^(conv|bn)(\d)_(\d)\.", r"backbone.\1\2_\3."),
    (r"^fc(\d)\.", r"backbone.fc\1."),
    *_NORM_RULES,
)
_BASIC_CLASSIFIERS = ("conv_classifier", "dense_softmax_inner_prod")
"""The plain network's name and the Bayesian one's."""
_NORM_EPS = 1e-9
_FOLDED_REASON = (
    "batch norm is folded in these files, so mean 0 and variance 1 - eps make ours the same; freeze it to fine-tune"
)
_FOLDED = {".running_mean": (0.0, _FOLDED_REASON), ".running_var": (1.0 - _NORM_EPS, _FOLDED_REASON)}

_RAW_BGR = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, channel_order="bgr", value_range=255.0)
"""SegNet takes pixels as they are."""
_BAYESIAN = Option(
    default=False, allowed=(False, True), help="dropout where the Bayesian form has it; it has no weights"
)


def _normalisation_option(default: str) -> Option:
    return Option(
        default=default, allowed=tuple(INPUT_NORMALISATIONS), help="what is done to the image before the first layer"
    )


def _plan_segnet(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    width, in_channels = convolution_weight(tensors, "conv1_1").shape[:2]
    network = create_model(
        "segnet",
        SegNetConfig(width=width, norm_eps=_NORM_EPS, **options),
        num_classes=convolution_weight(tensors, "conv1_1_D").shape[0],
        backbone=BackboneConfig(name="vgg16", in_channels=in_channels),
    )
    if in_channels == _RAW_BGR.num_channels:
        network.preprocessing = _RAW_BGR
    return Plan(network=network, rename=lambda key: renamed(key, _SEGNET_RULES), constants=_constants(tensors))


def _plan_segnet_basic(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    width, in_channels, kernel = convolution_weight(tensors, "conv1").shape[:3]
    single_channel = width > 1 and convolution_weight(tensors, "conv_decode1").shape[1] == 1
    classifier = next((name for name in _BASIC_CLASSIFIERS if f"{name}.weight" in tensors), _BASIC_CLASSIFIERS[0])
    config = SegNetBasicConfig(
        in_channels=in_channels,
        decoder="unpool_single_channel" if single_channel else "unpool",
        width=width,
        kernel=kernel,
        bias="conv1.bias" in tensors,
        norm_eps=_NORM_EPS,
        **options,
    )
    network = create_model("segnet_basic", config, num_classes=convolution_weight(tensors, classifier).shape[0])
    return Plan(network=network, rename=lambda key: renamed(key, _BASIC_RULES), constants=_constants(tensors))


def _plan_deconvnet(tensors: StateDict, _options: Mapping[str, Any]) -> Plan:
    width, in_channels = convolution_weight(tensors, "conv1_1").shape[:2]
    fc_width, _, fc_kernel = convolution_weight(tensors, "fc6").shape[:3]
    scores = [key[: -len(".weight")] for key in tensors if re.fullmatch(r"seg-score[\w-]*\.weight", key)]
    if len(scores) != 1:
        raise CheckpointError(f"DeconvNet has one layer called seg-score…, the checkpoint {len(scores)}")
    network = create_model(
        "deconvnet",
        DeconvNetConfig(width=width, fc_width=fc_width, fc_kernel=fc_kernel, norm_eps=_NORM_EPS),
        num_classes=convolution_weight(tensors, scores[0]).shape[0],
        backbone=BackboneConfig(name="vgg16", in_channels=in_channels),
    )
    if in_channels == CAFFE_PREPROCESSING.num_channels:
        network.preprocessing = CAFFE_PREPROCESSING  # of its test code; training has 104.008, 116.669, 122.675
    return Plan(network=network, rename=lambda key: renamed(key, _DECONVNET_RULES), constants=_constants(tensors))


def _constants(tensors: StateDict) -> dict[str, tuple[float, str]]:
    """Mean and variance of folded batch norms; a file that holds some must hold all."""
    return {} if any(key.endswith((".running_mean", ".running_var")) for key in tensors) else _FOLDED


SEGNET_IMPORTER = Importer(
    family="caffe/segnet",
    title="SegNet of the authors' Caffe release",
    options={"bayesian": _BAYESIAN, "input_normalisation": _normalisation_option("none")},
    recognise=lambda tensors: {"conv1_1_D.weight", "conv5_3_D.weight"} <= tensors.keys(),
    plan=_plan_segnet,
)
SEGNET_BASIC_IMPORTER = Importer(
    family="caffe/segnet-basic",
    title="SegNet-Basic of the authors' Caffe release",
    options={"bayesian": _BAYESIAN, "input_normalisation": _normalisation_option("lrn")},
    recognise=lambda tensors: {"conv1.weight", "conv_decode1.weight"} <= tensors.keys(),
    plan=_plan_segnet_basic,
)
DECONVNET_IMPORTER = Importer(
    family="caffe/deconvnet",
    title="DeconvNet of the authors' Caffe release",
    options={},
    recognise=lambda tensors: {"conv1_1.weight", "fc6-deconv.weight"} <= tensors.keys(),
    plan=_plan_deconvnet,
)
