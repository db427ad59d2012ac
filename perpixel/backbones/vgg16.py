"""VGG16 "D" (Simonyan & Zisserman, arXiv:1409.1556) as the trunk of the networks of 2015 to 2017, in all their layouts.

One class, and a `VGG16Layout` that says what each of them changed: padding, pooling, dilation, batch norm, and whether
the fully connected layers stand on as convolutions. Layers have the published names: conv1_1 … conv5_3, fc6, fc7.

Shapes: B batch, C channels, H W image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones.timm_backbone import BackboneConfig
from perpixel.backbones.vgg16_weights import fill_vgg16
from perpixel.errors import InvalidValue
from perpixel.types import Preprocessing

__all__ = ["CAFFE_PREPROCESSING", "VGG16", "FullyConnected", "Pool", "VGG16Layout", "create_vgg16"]

CONVS = (2, 2, 3, 3, 3)
"""Convolutions per block."""
_FACTORS = (1, 2, 4, 8, 8)

CAFFE_PREPROCESSING = Preprocessing(
    mean=(104.00699, 116.66877, 122.67892), std=(1.0, 1.0, 1.0), channel_order="bgr", value_range=255.0
)
"""Of the published Caffe weights (FCN's net.py); not to be mixed with torchvision's or timm's weights."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A pooling layer behind a block; Caffe rounds sizes up."""

    kernel: int = 2
    stride: int = 2
    padding: int = 0
    ceil: bool = True
    bottom_right: bool = False
    """Pads one row below and one column to the right (MatConvNet's [0 1 0 1]) instead of ``padding`` all around."""


@dataclass(frozen=True, kw_only=True)
class FullyConnected:
    """fc6 and fc7 as convolutions: kernel, dilation and padding of fc6, and the channels of both."""

    kernel: int = 7
    dilation: int = 1
    padding: int = 0
    width: int = 4096


@dataclass(frozen=True, kw_only=True)
class VGG16Layout:
    """What a network makes of VGG16.

    Raises:
        InvalidValue: there are not five pools and dilations, or a width is not positive.
    """

    width: int = 64
    """Channels of the first block; the others have 2, 4, 8 and 8 times as many."""
    batch_norm: bool = False
    """A batch norm bnI_J behind every convolution."""
    norm_eps: float = 1e-5
    padding: int = 1
    """Of the 3x3 convolutions, in cells of their dilation: 1 keeps sizes, 0 is valid convolution."""
    first_padding: int | None = None
    """Of conv1_1, where it differs (FCN: 100)."""
    pools: tuple[Pool | None, ...] = (Pool(),) * 5
    """Behind each of the five blocks; None: no pooling."""
    dilations: tuple[int, ...] = (1, 1, 1, 1, 1)
    """Of the convolutions of each block."""
    fully_connected: FullyConnected | None = None

    def __post_init__(self) -> None:
        if len(self.pools) != len(CONVS) or len(self.dilations) != len(CONVS):
            raise InvalidValue(f"VGG16 has 5 blocks, got {len(self.pools)} pools and {len(self.dilations)} dilations")
        if self.width < 1 or (self.fully_connected is not None and self.fully_connected.width < 1):
            raise InvalidValue(f"widths of VGG16 must be >= 1, got {self.width} and {self.fully_connected}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the five blocks."""
        return tuple(self.width * factor for factor in _FACTORS)

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels per cell behind each of the five pools."""
        strides, total = [], 1
        for pool in self.pools:
            total *= 1 if pool is None else pool.stride
            strides.append(total)
        return tuple(strides)


class VGG16(nn.Module):
    """Maps images (B, C, H, W) to the maps behind the five pools, finest first.

    fc6 and fc7 are layers for the network to call: where their dropout stands is its own affair.

    Attributes:
        config: What it was built from.
        layout: What it was changed into.
        strides: Image pixels per cell of each map.
        channels: Channels of each map.
        preprocessing: How the weights want raw pixels.
        notes: What was adapted on the way, in words for the user.
    """

    recomputed_methods = ("each_conv",)
    """What activation checkpointing takes for a block: networks call the parts of this trunk on their own."""

    def __init__(self, config: BackboneConfig, layout: VGG16Layout) -> None:
        super().__init__()
        self.config = config
        self.layout = layout
        self.strides = layout.strides
        self.channels = layout.channels
        self.preprocessing = _preprocessing(config)
        self.notes: tuple[str, ...] = ()
        channels = config.in_channels
        for block, (convs, width) in enumerate(zip(CONVS, layout.channels, strict=True)):
            for i in range(convs):
                name = f"{block + 1}_{i + 1}"
                self.add_module(f"conv{name}", self._conv(channels, width, block, first=name == "1_1"))
                if layout.batch_norm:
                    self.add_module(f"bn{name}", nn.BatchNorm2d(width, eps=layout.norm_eps))
                channels = width
        fc = layout.fully_connected
        if fc is not None:
            self.fc6 = nn.Conv2d(channels, fc.width, fc.kernel, padding=fc.padding, dilation=fc.dilation)
            self.fc7 = nn.Conv2d(fc.width, fc.width, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns the maps behind pool1 to pool5."""
        maps = []
        x = images
        for block in range(1, len(CONVS) + 1):
            x = self.pool(block, self.convs(block, x))
            maps.append(x)
        return tuple(maps)

    def convs(self, block: int, x: Tensor) -> Tensor:
        """Runs the convolutions of a block, 1 to 5: (B, C, h, w) -> (B, C', h, w), less what valid ones lose."""
        return self.each_conv(block, x)[-1]

    def each_conv(self, block: int, x: Tensor) -> list[Tensor]:
        """Returns the map behind every convolution of a block, after its ReLU."""
        maps = []
        for i in range(1, CONVS[block - 1] + 1):
            x = self.get_submodule(f"conv{block}_{i}")(x)
            if self.layout.batch_norm:
                x = self.get_submodule(f"bn{block}_{i}")(x)
            x = torch.relu(x)
            maps.append(x)
        return maps

    def pool(self, block: int, x: Tensor) -> Tensor:
        """Pools behind a block, 1 to 5."""
        pool = self.layout.pools[block - 1]
        if pool is None:
            return x
        if pool.bottom_right:
            x = F.pad(x, (0, 1, 0, 1), value=float("-inf"))
        return F.max_pool2d(x, pool.kernel, pool.stride, pool.padding, ceil_mode=pool.ceil)

    def pool_with_indices(self, block: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pools behind a block and returns the flat index of every maximum too: (B, C, h, w) twice."""
        pool = self.layout.pools[block - 1]
        if pool is None:
            raise InvalidValue(f"block {block} of this VGG16 has no pooling, so no indices")
        pooled, indices = F.max_pool2d(
            x, pool.kernel, pool.stride, pool.padding, ceil_mode=pool.ceil, return_indices=True
        )
        return pooled, indices

    def release_fully_connected(self) -> tuple[nn.Conv2d, nn.Conv2d] | None:
        """Takes fc6 and fc7 out of the trunk, for a network that has them several times; None where there are none."""
        if self.layout.fully_connected is None:
            return None
        layers = self.fc6, self.fc7
        del self.fc6, self.fc7
        self.layout = replace(self.layout, fully_connected=None)
        return layers

    def _conv(self, in_channels: int, out_channels: int, block: int, *, first: bool) -> nn.Conv2d:
        layout = self.layout
        dilation = layout.dilations[block]
        padding = layout.padding * dilation
        if first and layout.first_padding is not None:
            padding = layout.first_padding
        return nn.Conv2d(in_channels, out_channels, 3, padding=padding, dilation=dilation)


def create_vgg16(config: BackboneConfig, layout: VGG16Layout) -> VGG16:
    """Builds a VGG16 in a network's layout and fills it with the weights that ``config`` names.

    ``config.weights`` is ``none``, ``timm``, or a file: torchvision's or timm's VGG16, or the published names
    (conv1_1 … fc7). The network's layout governs strides, so ``output_stride`` and ``stem`` keep their defaults.

    Raises:
        InvalidValue: the backbone is another than vgg16, or asks for what the network's layout decides.
        CheckpointError: the weights cannot be had, or do not fit.
    """
    if config.name != "vgg16":
        raise InvalidValue(f"this network is built on vgg16, got backbone {config.name!r}; use vgg16 or leave it away")
    if (config.output_stride, config.stem) != (32, "default"):
        raise InvalidValue(
            f"the network itself sets the strides and the first layers of its vgg16, got output_stride="
            f"{config.output_stride} and stem {config.stem!r}; leave both away"
        )
    trunk = VGG16(config, layout)
    _init(trunk)
    if config.weights != "none":
        trunk.notes, caffe = fill_vgg16(trunk, config.weights)
        trunk.preprocessing = CAFFE_PREPROCESSING if caffe else trunk.preprocessing
    return trunk


def _init(trunk: nn.Module) -> None:
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _preprocessing(config: BackboneConfig) -> Preprocessing:
    if config.in_channels == 3:
        return Preprocessing()
    return Preprocessing(mean=(0.5,) * config.in_channels, std=(0.25,) * config.in_channels)
