"""Encoders of segmentation_models.pytorch (0.6.0): which one stands in a checkpoint, and its names in our trunk.

Its ResNets, ResNeXts and VGGs have torchvision's names, which are timm's too; its SE-ResNets and the EfficientNets
that it calls ``timm-`` have timm's. Its MobileNet-v2 has torchvision's names, which timm's network of the same function
has not. These keep all their stages in the checkpoint, used or not, but for the classifier. The encoders that it takes
whole from timm (``tu-``) have timm's names, one level deeper under ``model.``, and seldom a stage that is not used.

At an output stride below 32, its own encoders dilate every convolution of a dilated stage (``full``), those from timm
follow timm (``half``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import timm
import torch

from perpixel.backbones import BackboneConfig
from perpixel.errors import CheckpointError
from perpixel.weights.importers.importer import Option, StateDict, convolution_weight, has_prefix, listed
from perpixel.weights.importers.resnet_trunk import read_resnet

__all__ = ["ENCODER_OPTION", "Rules", "read_smp_encoder"]

Rules = tuple[tuple[str, str], ...]
"""(pattern, replacement) pairs, one after the other, as `renamed` applies them."""


def _encoder_name(value: Any) -> str:
    name = value.removeprefix("tu-") if isinstance(value, str) else ""
    if name != "auto" and not timm.is_model(name):
        raise ValueError("'auto' or the name of a timm model")
    return name


ENCODER_OPTION = Option(
    default="auto",
    read=_encoder_name,
    help="which encoder it is; auto: ResNets, ResNeXts, SE-ResNets, VGGs, MobileNet-v2 and EfficientNets (timm-) are "
    "read off the checkpoint; an encoder from timm of another kind (tu-NAME) is to be named",
)

# The stem of encoders that smp builds itself, with timm's names and function -> timm's names of them.
_OF_TIMM = {
    "conv_stem.weight": [f"efficientnet_b{size}" for size in range(9)],
    "layer0.conv1.weight": [
        f"legacy_se{name}" for name in ("resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x4d")
    ],
}
# Convolutions of torchvision's VGGs.
_VGGS = {8: "vgg11", 10: "vgg13", 13: "vgg16", 16: "vgg19"}
# Blocks in each of MobileNet-v2's stages; torchvision numbers them through, after the stem.
_MOBILENET_V2_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
_MOBILENET_V2_WIDTHS = (16, 24, 32, 64, 96, 160, 320)
_EXPANDED = (("0.0", "conv_pw"), ("0.1", "bn1"), ("1.0", "conv_dw"), ("1.1", "bn2"), ("2", "conv_pwl"), ("3", "bn3"))
_NOT_EXPANDED = (("0.0", "conv_dw"), ("0.1", "bn1"), ("1", "conv_pw"), ("2", "bn2"))


def read_smp_encoder(
    tensors: StateDict, prefix: str = "encoder.", *, name: str = "auto"
) -> tuple[BackboneConfig, Rules]:
    """Reads which encoder stands under ``prefix``, and the rules from its names to those of our trunk.

    The dilation convention is the encoder's own; the output stride is left at 32. A MobileNet-v2's last convolution
    (to 1280 channels, ``features.18``), which smp counts to the last stage, has no place in our trunk.

    Args:
        tensors: The checkpoint.
        prefix: Where the encoder begins.
        name: ``auto`` reads it off keys and shapes; else the timm model that the encoder is.

    Raises:
        CheckpointError: it is nothing that can be read, or of a depth, width or stem that is not known.
    """
    start = prefix + "model." if has_prefix(tensors, prefix + "model.") else prefix
    into = (rf"^{_literal(start)}", "backbone.net.")
    if name != "auto":
        return _named(tensors, start, name), (into,)
    if has_prefix(tensors, start + "layer1.") and not has_prefix(tensors, start + "layer0."):
        dilation: Literal["half", "full"] = "full" if start == prefix else "half"
        return replace(read_resnet(tensors, start, may_be_cut=True), dilation=dilation), (into,)
    if has_prefix(tensors, start + "features.1.conv."):
        return _read_mobilenet_v2(tensors, start), (into, *_mobilenet_v2_rules())
    if f"{start}features.0.weight" in tensors:
        return _read_vgg(tensors, start), (into, (r"^backbone\.net\.features\.", "backbone.net.features_"))
    if start == prefix and (known := _of_timm(tensors, start)):
        return known, (into,)
    found = [key for key in tensors if key.startswith(prefix)]
    raise CheckpointError(
        f"the encoder under {prefix!r} is no ResNet, ResNeXt, SE-ResNet, VGG, MobileNet-v2 or EfficientNet (timm-), "
        f"which are those that can be read; it holds {listed(found, 5) or 'nothing'}; if it is timm's (tu-NAME), give "
        "encoder=NAME"
    )


def _of_timm(tensors: StateDict, start: str) -> BackboneConfig | None:
    """The one of `_OF_TIMM` that has every name and shape of the encoder."""
    encoder = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
    stem = next((stem for stem in _OF_TIMM if stem in encoder), None)
    if stem is None:
        return None
    in_channels = convolution_weight(tensors, (start + stem).removesuffix(".weight")).shape[1]
    for name in _OF_TIMM[stem]:
        with torch.device("meta"):
            whole = timm.create_model(name, in_chans=in_channels).state_dict()
        if all(key in whole and whole[key].shape == value.shape for key, value in encoder.items()):
            return BackboneConfig(name=name, dilation="full", in_channels=in_channels)
    return None


def _named(tensors: StateDict, start: str, name: str) -> BackboneConfig:
    first = next((value for key, value in tensors.items() if key.startswith(start) and value.ndim == 4), None)
    if first is None:
        raise CheckpointError(f"there is no convolution under {start!r}, whose channels are the image's")
    return BackboneConfig(name=name, in_channels=first.shape[1])


def _read_vgg(tensors: StateDict, start: str) -> BackboneConfig:
    layers = [key for key in tensors if key.startswith(f"{start}features.") and key.endswith(".weight")]
    kernels = [tensors[key] for key in layers if tensors[key].ndim == 4]
    if len(kernels) not in _VGGS:
        known = ", ".join(f"{count} ({name})" for count, name in _VGGS.items())
        raise CheckpointError(f"'{start}features' holds {len(kernels)} convolutions; VGGs have {known}")
    norm = "_bn" if f"{start}features.1.running_mean" in tensors else ""
    return BackboneConfig(name=_VGGS[len(kernels)] + norm, in_channels=kernels[0].shape[1])


def _read_mobilenet_v2(tensors: StateDict, start: str) -> BackboneConfig:
    """smp builds one width alone; a thinner network is refused here, not taken for another."""
    number, in_channels = 0, convolution_weight(tensors, f"{start}features.0.0").shape[1]
    for stage, (count, width) in enumerate(zip(_MOBILENET_V2_BLOCKS, _MOBILENET_V2_WIDTHS, strict=True)):
        number += count
        layer = f"{start}features.{number}.conv.{'2' if stage else '1'}"
        channels = convolution_weight(tensors, layer).shape[0]
        if channels != width:
            raise CheckpointError(f"{layer!r} gives {channels} channels, MobileNet-v2 of width 1 gives {width} there")
    return BackboneConfig(name="mobilenetv2_100", dilation="full", in_channels=in_channels)


def _mobilenet_v2_rules() -> Rules:
    net = r"^backbone\.net\.features\."
    rules = [(net + r"0\.0\.", "backbone.net.conv_stem."), (net + r"0\.1\.", "backbone.net.bn1.")]
    number = 0
    for stage, count in enumerate(_MOBILENET_V2_BLOCKS):
        for block in range(count):
            number += 1
            rules += [
                (rf"{net}{number}\.conv\.{_literal(theirs)}\.", f"backbone.net.blocks.{stage}.{block}.{ours}.")
                for theirs, ours in (_EXPANDED if stage else _NOT_EXPANDED)
            ]
    return tuple(rules)


def _literal(name: str) -> str:
    return name.replace(".", r"\.")
