"""MobileNet-v2 (Sandler et al., CVPR 2018, arXiv:1801.04381) as VainF/DeepLabV3Plus-Pytorch computes it.

The layers are those of torchvision's and timm's MobileNet-v2, and so are the weights that it starts from. The function
is another one in two places. The first convolution has no padding: its grid lies one pixel further in, and an odd side
gives one cell less. And each block pads its *input* with zeros, before the 1x1 expansion, so that the depthwise
convolution sees what the expansion makes of zeros (ReLU6 of its batch norm's shift) where others see zeros.

Shapes: B batch, C channels, H W image, h w feature map.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones.timm_backbone import BackboneConfig
from perpixel.backbones.trunk_weights import fill_trunk, refuse_variants, trunk_preprocessing
from perpixel.errors import InvalidValue

__all__ = [
    "VAINF_BLOCK_RULES",
    "VAINF_MOBILENETS",
    "PaddedInvertedResidual",
    "VainfMobileNetV2",
    "create_vainf_mobilenet_v2",
]

VAINF_MOBILENETS: dict[str, float] = {
    "vainf_mobilenetv2_100": 1.0,
    "vainf_mobilenetv2_075": 0.75,
    "vainf_mobilenetv2_050": 0.5,
    "vainf_mobilenetv2_025": 0.25,
}
"""Name -> factor on all widths."""

VAINF_BLOCK_RULES = (
    (r"(features\.1\.)conv\.0\.0\.", r"\1depthwise.conv."),
    (r"(features\.1\.)conv\.0\.1\.", r"\1depthwise.norm."),
    (r"(features\.1\.)conv\.1\.", r"\1project."),
    (r"(features\.1\.)conv\.2\.", r"\1norm."),
    (r"(features\.\d+\.)conv\.0\.0\.", r"\1expand.conv."),
    (r"(features\.\d+\.)conv\.0\.1\.", r"\1expand.norm."),
    (r"(features\.\d+\.)conv\.1\.0\.", r"\1depthwise.conv."),
    (r"(features\.\d+\.)conv\.1\.1\.", r"\1depthwise.norm."),
    (r"(features\.\d+\.)conv\.2\.", r"\1project."),
    (r"(features\.\d+\.)conv\.3\.", r"\1norm."),
    (r"(features\.0\.)0\.", r"\1conv."),
    (r"(features\.0\.)1\.", r"\1norm."),
)
"""Names of torchvision's layout under ``features.`` -> ours, one rule after the other."""


class Stage(NamedTuple):
    """Blocks of one width: the first strides, unless the output stride is reached."""

    expansion: int
    width: int
    blocks: int
    stride: int


_STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)
_STEM_WIDTH = 32


class Tap(NamedTuple):
    """A layer whose output is a feature map."""

    position: int
    stride: int
    channels: int


class VainfMobileNetV2(nn.Module):
    """Maps images (B, C, H, W) to the maps before the strides, finest first: 16, 24, 32, 96 and 320 channels.

    At output stride 32 a map has about H / stride_i cells (less than rounded up, for the first convolution pads
    nothing). Where a stage is dilated instead of strided, its first block keeps the previous dilation.

    Attributes:
        config: What it was built from.
        strides: Image pixels per cell of each map.
        channels: Channels of each map.
        preprocessing: How the weights want raw pixels.
        notes: What was adapted on the way, in words for the user.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.preprocessing = trunk_preprocessing(config)
        self.notes: tuple[str, ...] = ()
        layers, taps = _layers(config, VAINF_MOBILENETS[config.name])
        if config.num_stages > len(taps):
            raise InvalidValue(f"{config.name} has {len(taps)} feature maps, num_stages={config.num_stages} asked")
        self.features = nn.Sequential(*layers)
        taps = taps[-config.num_stages :]
        self.strides: tuple[int, ...] = tuple(tap.stride for tap in taps)
        self.channels: tuple[int, ...] = tuple(tap.channels for tap in taps)
        self._positions = tuple(tap.position for tap in taps)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = images
        maps = []
        for position, layer in enumerate(self.features):
            x = layer(x)
            if position in self._positions:
                maps.append(x)
        return tuple(maps)


class PaddedInvertedResidual(nn.Module):
    """Zeros around the input, then expansion, depthwise convolution and projection: (B, C, h, w) -> (B, C', h', w')."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, dilation: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.padding = dilation
        self.residual = stride == 1 and in_channels == out_channels
        self.expand = ConvNormReLU6(in_channels, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNormReLU6(inner, inner, 3, stride=stride, dilation=dilation, groups=inner)
        self.project = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (self.padding,) * 4)
        out: Tensor = self.norm(self.project(self.depthwise(self.expand(padded))))
        return x + out if self.residual else out


class ConvNormReLU6(nn.Module):
    """Convolution without padding and bias, batch norm, ReLU6: (B, C, h, w) -> (B, C', h', w')."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride=stride, dilation=dilation, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out


def create_vainf_mobilenet_v2(config: BackboneConfig) -> VainfMobileNetV2:
    """Builds VainF's MobileNet-v2 and fills it with the weights that ``config`` names.

    ``config.weights`` is ``none`` or a file of torchvision's MobileNet-v2, which that code starts from.

    Raises:
        InvalidValue: a variant is asked for that it does not have (dilation, stem, multi-grid, cut stages, timm's
            weights), or there are fewer stages than asked for.
        CheckpointError: the weights cannot be read, or do not fit.
    """
    refuse_variants(config)
    if config.weights == "timm":
        raise InvalidValue(
            f"timm has no weights in the names of {config.name}. Give torchvision's MobileNet-v2 file as "
            "model.backbone.weights=FILE, or take the backbone mobilenetv2_100"
        )
    trunk = VainfMobileNetV2(config)
    if config.weights != "none":
        trunk.notes = fill_trunk(
            trunk,
            config,
            first="features.0.conv.weight",
            rename=_own_name,
            aside=("classifier.", f"features.{len(trunk.features)}."),
        )
    return trunk


def _layers(config: BackboneConfig, factor: float) -> tuple[list[nn.Module], list[Tap]]:
    """The stem and the blocks, and those before each stride and at the end, whose outputs are maps."""
    channels, stride, dilation = _rounded(_STEM_WIDTH * factor), 2, 1
    layers: list[nn.Module] = [ConvNormReLU6(config.in_channels, channels, 3, stride=2)]
    taps = []
    for number, stage in enumerate(_STAGES):
        step, previous = stage.stride, dilation
        if stride == config.output_stride:
            step, dilation = 1, dilation * stage.stride
        stride *= step
        width = int(stage.width * factor)
        for block in range(stage.blocks):
            first = block == 0
            layers.append(
                PaddedInvertedResidual(
                    channels,
                    width,
                    stride=step if first else 1,
                    dilation=previous if first else dilation,
                    expansion=stage.expansion,
                )
            )
            channels = width
        if number == len(_STAGES) - 1 or _STAGES[number + 1].stride > 1:
            taps.append(Tap(len(layers) - 1, stride, channels))
    return layers, taps


def _own_name(key: str) -> str:
    for pattern, replacement in VAINF_BLOCK_RULES:
        key = re.sub(pattern, replacement, key)
    return key


def _rounded(width: float) -> int:
    """The nearest multiple of 8, at least 8 and no more than a tenth below (halves are rounded up)."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest
