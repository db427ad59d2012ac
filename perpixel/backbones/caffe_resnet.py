"""ResNet as its authors' Caffe weights have it (He et al., CVPR 2016, arXiv:1512.03385): the trunk of DeepLab v2.

It differs from the ResNets of torchvision and timm in two places: the stride of a stage sits in the first 1x1
convolution of its first block (theirs: in the 3x3), and the pooling of the stem rounds sizes up. Dilation follows
Caffe's convention: the first block of a dilated stage is dilated like the rest.

Layers have the names of kazuto1011/deeplab-pytorch: layer1 is the stem, layer2 to layer5 the stages, each block is
reduce (1x1), conv3x3, increase (1x1) and, in the first of a stage, shortcut (1x1).

Shapes: B batch, C channels, H W image.
"""

from __future__ import annotations

import re
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones.timm_backbone import BackboneConfig
from perpixel.backbones.trunk_weights import fill_trunk_with, trunk_preprocessing
from perpixel.backbones.weight_files import read_checkpoint
from perpixel.errors import InvalidValue, nearest
from perpixel.layers import ConvNorm
from perpixel.types import Preprocessing

__all__ = ["CAFFE_RESNETS", "DEEPLAB_PREPROCESSING", "Bottleneck", "CaffeResNet", "create_caffe_resnet"]

CAFFE_RESNETS: dict[str, tuple[int, ...]] = {
    "caffe_resnet50": (3, 4, 6, 3),
    "caffe_resnet101": (3, 4, 23, 3),
    "caffe_resnet152": (3, 8, 36, 3),
}
"""Blocks per stage of each name."""

DEEPLAB_PREPROCESSING = Preprocessing(
    mean=(104.008, 116.669, 122.675), std=(1.0, 1.0, 1.0), channel_order="bgr", value_range=255.0
)
"""Of the checkpoints of DeepLab v1 and v2, VGG16 and ResNet-101 alike."""

_EXPANSION = 4
_HEADS = ("fc.", "aspp.")
_STEM_FIELD = 11
"""Pixels that one cell behind the stem sees: 7 of the convolution, and two more steps of 2 by the pooling."""


class CaffeResNet(nn.Module):
    """Maps images (B, C, H, W) to the maps behind the last ``config.num_stages`` stages, finest first.

    A cell of a map at stride s lies on every s-th pixel from the first on, so that 8n + 1 pixels give n + 1 cells.

    Args:
        config: Name, weights and image channels; the network decides about the rest.
        output_stride: 8, 16 or 32; below 32 the last stages are dilated instead.
        width: Channels of the stem, 64 as published; the stages have 4, 8, 16 and 32 times as many.
        norm_momentum: Share of a batch in the running statistics. DeepLab v2 trains with them frozen; the code that
            its checkpoints come from states 0.001, too slow for training from random weights.

    Attributes:
        config: What it was built from.
        strides: Image pixels per cell of each map.
        channels: Channels of each map.
        preprocessing: How the weights want raw pixels.
        receptive_field: Side in pixels of what a cell of the last map sees.
        notes: What was adapted on the way, in words for the user.
    """

    def __init__(
        self, config: BackboneConfig, *, output_stride: int = 8, width: int = 64, norm_momentum: float = 0.001
    ) -> None:
        super().__init__()
        self.config = config
        self.preprocessing = trunk_preprocessing(config)
        self.notes: tuple[str, ...] = ()
        stem = ConvNorm(config.in_channels, width, 7, stride=2, momentum=norm_momentum)
        self.layer1 = nn.Sequential(OrderedDict(conv1=stem))
        channels, stride, dilation, field = width, 4, 1, _STEM_FIELD
        maps = []
        for number, blocks in enumerate(CAFFE_RESNETS[config.name], start=2):
            inner, step = width * 2 ** (number - 2), 1
            if number > 2:
                step = 2 if stride < output_stride else 1
                dilation *= 2 // step
            layers: OrderedDict[str, nn.Module] = OrderedDict()
            for block in range(1, blocks + 1):
                layers[f"block{block}"] = Bottleneck(
                    channels,
                    inner,
                    stride=step if block == 1 else 1,
                    dilation=dilation,
                    shortcut=block == 1,
                    momentum=norm_momentum,
                )
                channels = inner * _EXPANSION
            self.add_module(f"layer{number}", nn.Sequential(layers))
            stride *= step
            field += 2 * dilation * stride * blocks
            maps.append((stride, channels))
        self.receptive_field = field
        kept = maps[-config.num_stages :]
        self.strides: tuple[int, ...] = tuple(stride for stride, _ in kept)
        self.channels: tuple[int, ...] = tuple(channels for _, channels in kept)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns the maps behind the stages."""
        x = torch.relu(self.layer1(images))
        x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        maps = []
        for number in range(2, 6):
            x = self.get_submodule(f"layer{number}")(x)
            maps.append(x)
        return tuple(maps[-self.config.num_stages :])


class Bottleneck(nn.Module):
    """relu(x + increase(conv3x3(reduce(x)))): (B, C, h, w) -> (B, 4 C', h', w').

    The 1x1 ``reduce`` strides, or without ``stride_on_1x1`` the 3x3; ``merged`` is `ConvNorm`'s.
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        *,
        stride: int,
        dilation: int,
        shortcut: bool,
        momentum: float,
        stride_on_1x1: bool = True,
        merged: bool = False,
    ) -> None:
        super().__init__()
        out_channels = inner * _EXPANSION
        first, second = (stride, 1) if stride_on_1x1 else (1, stride)
        self.reduce = ConvNorm(in_channels, inner, 1, stride=first, momentum=momentum, merged=merged)
        self.conv3x3 = ConvNorm(inner, inner, 3, stride=second, dilation=dilation, momentum=momentum, merged=merged)
        self.increase = ConvNorm(inner, out_channels, 1, momentum=momentum, merged=merged)
        self.shortcut = (
            ConvNorm(in_channels, out_channels, 1, stride=stride, momentum=momentum, merged=merged)
            if shortcut
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.shortcut is None else self.shortcut(x)
        x = torch.relu(self.reduce(x))
        x = torch.relu(self.conv3x3(x))
        return torch.relu(kept + self.increase(x))


def create_caffe_resnet(
    config: BackboneConfig, *, output_stride: int = 8, width: int = 64, norm_momentum: float = 0.001
) -> CaffeResNet:
    """Builds a Caffe-style ResNet and fills it with the weights that ``config`` names.

    ``config.weights`` is ``none`` or a checkpoint of kazuto1011/deeplab-pytorch, whose classifier or ASPP is left
    aside. The network sets strides and dilation, so ``output_stride``, ``dilation`` and ``stem`` keep their defaults.

    Raises:
        InvalidValue: the name is unknown, there are fewer stages than asked for, the output stride is none of 8, 16
            and 32, the configuration asks for what the network decides, or for timm's weights.
        CheckpointError: the weights cannot be read, or do not fit.
    """
    if config.name not in CAFFE_RESNETS:
        known = ", ".join(CAFFE_RESNETS)
        near = nearest(config.name, CAFFE_RESNETS, end=".")
        raise InvalidValue(f"no Caffe-style ResNet {config.name!r}{near} Known: {known}")
    if (config.output_stride, config.dilation, config.stem) != (32, "half", "default"):
        raise InvalidValue(
            f"the network itself sets the strides and the first layers of its {config.name}, got output_stride="
            f"{config.output_stride}, dilation {config.dilation!r} and stem {config.stem!r}; leave them away"
        )
    stages = len(CAFFE_RESNETS[config.name])
    if config.num_stages > stages:
        raise InvalidValue(f"{config.name} has {stages} feature maps, num_stages={config.num_stages} asked")
    if output_stride not in (8, 16, 32) or width < 1:
        raise InvalidValue(f"output_stride is 8, 16 or 32 and width >= 1, got {output_stride} and {width}")
    if config.weights == "timm":
        raise InvalidValue(
            f"timm has no weights of {config.name}: its ResNets have the stride in the 3x3 convolution. Give the file "
            "of a checkpoint of kazuto1011/deeplab-pytorch as model.backbone.weights=FILE, or weights=none"
        )
    trunk = CaffeResNet(config, output_stride=output_stride, width=width, norm_momentum=norm_momentum)
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    if config.weights != "none":
        trunk.notes = _fill(trunk, config)
        trunk.preprocessing = DEEPLAB_PREPROCESSING if config.in_channels == 3 else trunk.preprocessing
    return trunk


def _fill(trunk: CaffeResNet, config: BackboneConfig) -> tuple[str, ...]:
    found = {_own_name(key): value for key, value in read_checkpoint(config.weights).items()}
    found = {key: value for key, value in found.items() if not key.startswith(_HEADS)}
    advice = "Give a checkpoint of kazuto1011/deeplab-pytorch of the same depth."
    return fill_trunk_with(trunk, found, config, first="layer1.conv1.conv.weight", advice=advice)


def _own_name(key: str) -> str:
    """Their name -> ours: the wrapper's prefix goes, and batch norms are called norm."""
    return re.sub(r"\.bn\.", ".norm.", key.removeprefix("base."))
