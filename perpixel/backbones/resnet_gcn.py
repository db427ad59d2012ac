"""ResNet-GCN: a ResNet whose last two stages hold large separable kernels (Peng et al., CVPR 2017, arXiv:1703.02719).

In every bottleneck of layer3 and layer4 the first two convolutions (1x1 and 3x3) are replaced by a global convolution:
k x 1 then 1 x k, plus 1 x k then k x 1, with batch norm and ReLU behind each of the four. The paper keeps the cost of
ResNet-50: k = 5 with 85 channels in layer3, 7 with 128 in layer4 (read in a public port, which cannot run itself).
Where the stride sits is not stated; here, as in that port, it is in the closing 1x1 convolution.

Shapes: B batch, C channels, h w feature map, k kernel size.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace
from typing import cast

from torch import Tensor, nn

from perpixel.backbones.timm_backbone import Backbone, BackboneConfig, create_backbone
from perpixel.errors import InvalidValue, nearest

__all__ = ["RESNET_GCNS", "GlobalBottleneck", "create_resnet_gcn"]

RESNET_GCNS: dict[str, str] = {"resnet50_gcn": "resnet50"}
"""Name -> the ResNet of timm whose stem and first two stages it shares."""

_STAGES: dict[str, tuple[int, int]] = {"layer3": (5, 85), "layer4": (7, 128)}
"""Kernel size and inner channels of each stage of global bottlenecks."""
_BLOCKS: dict[str, int] = {"layer3": 6, "layer4": 3}
_CHANNELS: dict[str, tuple[int, int]] = {"layer3": (512, 1024), "layer4": (1024, 2048)}


def create_resnet_gcn(config: BackboneConfig) -> Backbone:
    """Builds a ResNet-GCN, with the same contract as `create_backbone`.

    ``config.weights`` are those of the plain ResNet; they fill stem, layer1 and layer2, the rest begins at random. No
    pretrained weights of the whole are known.

    Raises:
        InvalidValue: the name is unknown, or strides, dilation or stages are asked for that it does not have.
        CheckpointError: the weights cannot be had, or do not fit.
    """
    if config.name not in RESNET_GCNS:
        near = nearest(config.name, RESNET_GCNS, end=".")
        raise InvalidValue(f"no ResNet-GCN {config.name!r}{near} Known: {', '.join(RESNET_GCNS)}")
    if config.output_stride != 32 or config.multi_grid:
        raise InvalidValue(
            f"{config.name} has output stride 32 and no dilation, got output_stride={config.output_stride} and "
            f"multi_grid={config.multi_grid}"
        )
    plain = create_backbone(replace(config, name=RESNET_GCNS[config.name]))
    stages = cast("MutableMapping[str, nn.Module]", plain.net)
    replaced = [name for name in _STAGES if name in stages]
    for name in replaced:
        stages[name] = _stage(name)
    notes = plain.notes
    if config.weights != "none" and replaced:
        notes = (*notes, f"the weights fill the stem, layer1 and layer2; {', '.join(replaced)} begin at random")
    return Backbone(plain.net, config, plain.preprocessing, notes)


def _stage(name: str) -> nn.Sequential:
    inside, outside = _CHANNELS[name]
    kernel, width = _STAGES[name]
    blocks = [GlobalBottleneck(inside, outside, kernel, width, stride=2)]
    blocks += [GlobalBottleneck(outside, outside, kernel, width) for _ in range(_BLOCKS[name] - 1)]
    return nn.Sequential(*blocks)


class GlobalBottleneck(nn.Module):
    """relu(shortcut(x) + expand(global convolution(x))): (B, C, h, w) -> (B, C', h', w'); ``expand`` strides.

    Args:
        in_channels: C.
        out_channels: C'.
        kernel_size: k, odd.
        width: Channels of the global convolution.
        stride: Of the block.

    Raises:
        InvalidValue: the kernel is even or not positive.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, width: int, *, stride: int = 1) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise InvalidValue(f"a global convolution's kernel is odd, to keep sizes, got {kernel_size}")
        upright, flat = (kernel_size, 1), (1, kernel_size)
        self.vertical_first = nn.Sequential(_block(in_channels, width, upright), _block(width, width, flat))
        self.horizontal_first = nn.Sequential(_block(in_channels, width, flat), _block(width, width, upright))
        self.expand = _conv_norm(width, out_channels, stride)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = None if same else _conv_norm(in_channels, out_channels, stride)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.shortcut is None else self.shortcut(x)
        out: Tensor = kept + self.expand(self.vertical_first(x) + self.horizontal_first(x))
        return out.relu_()


def _block(in_channels: int, out_channels: int, kernel: tuple[int, int]) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=padding, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _conv_norm(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )
