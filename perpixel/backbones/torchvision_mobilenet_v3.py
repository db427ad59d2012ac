"""MobileNet-v3 (Howard et al., ICCV 2019, arXiv:1905.02244) as torchvision has it in its DeepLab and LR-ASPP.

It is torchvision's own module, read as a pyramid. It differs from timm's network of that name in three places: batch
norms have eps 1e-3 and momentum 0.01; a map is taken behind the *first* block of its stage, the one that strides (timm:
behind the last); and the first block of a dilated stage is dilated like the rest.

Shapes: B batch, C channels, H W image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small

from perpixel.backbones.timm_backbone import BackboneConfig
from perpixel.backbones.trunk_weights import fill_trunk, refuse_variants, trunk_preprocessing
from perpixel.errors import InvalidValue

__all__ = ["TORCHVISION_MOBILENETS", "TorchvisionMobileNetV3", "create_torchvision_mobilenet_v3"]

_Builder = Callable[..., Any]

TORCHVISION_MOBILENETS: dict[str, tuple[_Builder, float]] = {
    "torchvision_mobilenetv3_large_100": (mobilenet_v3_large, 1.0),
    "torchvision_mobilenetv3_large_075": (mobilenet_v3_large, 0.75),
    "torchvision_mobilenetv3_large_050": (mobilenet_v3_large, 0.5),
    "torchvision_mobilenetv3_small_100": (mobilenet_v3_small, 1.0),
    "torchvision_mobilenetv3_small_075": (mobilenet_v3_small, 0.75),
    "torchvision_mobilenetv3_small_050": (mobilenet_v3_small, 0.5),
}
"""Name -> torchvision's builder and its factor on all widths."""

_OUTPUT_STRIDES = (16, 32)


class TorchvisionMobileNetV3(nn.Module):
    """Maps images (B, C, H, W) to the maps behind the strided blocks and the last 1x1 block, finest first.

    The maps of ``large`` have strides 4, 8, 16 and then the output stride; at width 1 they have 24, 40, 80 and 960
    channels. The strided block of the last stage gives none: the last 1x1 block stands for it.

    Attributes:
        config: What it was built from.
        strides: Image pixels per cell of each map.
        channels: Channels of each map.
        preprocessing: How the weights want raw pixels.
        notes: What was adapted on the way, in words for the user.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        builder, width = TORCHVISION_MOBILENETS[config.name]
        self.net: nn.Sequential = builder(
            weights=None, dilated=config.output_stride == _OUTPUT_STRIDES[0], width_mult=width
        ).features
        if config.in_channels != 3:
            self.net[0][0] = _with_channels(self.net[0][0], config.in_channels)
        self.config = config
        self.preprocessing = trunk_preprocessing(config)
        self.notes: tuple[str, ...] = ()
        taps = _taps(self.net, config.output_stride)
        if config.num_stages > len(taps):
            raise InvalidValue(
                f"backbone {config.name!r} has {len(taps)} feature maps, num_stages={config.num_stages} asked"
            )
        taps = taps[-config.num_stages :]
        self.strides: tuple[int, ...] = tuple(stride for _, stride in taps)
        self.channels: tuple[int, ...] = tuple(self.net[position].out_channels for position, _ in taps)
        self._positions = tuple(position for position, _ in taps)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = images
        maps = []
        for position, layer in enumerate(self.net):
            x = layer(x)
            if position in self._positions:
                maps.append(x)
        return tuple(maps)


def create_torchvision_mobilenet_v3(config: BackboneConfig) -> TorchvisionMobileNetV3:
    """Builds torchvision's MobileNet-v3 and fills it with the weights that ``config`` names.

    ``config.weights`` is ``none`` or a file of torchvision's classification network, whose classifier is left aside.

    Raises:
        InvalidValue: the output stride is 8, a variant is asked for that it does not have (dilation, stem, multi-grid,
            cut stages, timm's weights), or there are fewer stages than asked for.
        CheckpointError: the weights cannot be read, or do not fit.
    """
    if config.output_stride not in _OUTPUT_STRIDES:
        raise InvalidValue(f"{config.name} has output_stride 16 or 32, got {config.output_stride}")
    refuse_variants(config)
    if config.weights == "timm":
        raise InvalidValue(
            f"timm has no weights of {config.name}: its MobileNet-v3 has other batch norms. Give torchvision's file as "
            "model.backbone.weights=FILE, or take the backbone mobilenetv3_large_100"
        )
    trunk = TorchvisionMobileNetV3(config)
    if config.weights != "none":
        trunk.notes = fill_trunk(
            trunk,
            config,
            first="net.0.0.weight",
            rename=lambda key: "net." + key.removeprefix("features."),
            aside=("classifier.",),
        )
    return trunk


def _taps(net: nn.Sequential, output_stride: int) -> list[tuple[int, int]]:
    """(position, stride) of the first layer at every stride up to 16, and of the last layer."""
    taps = []
    stride = 1
    for position, layer in enumerate(net):
        step = math.prod(conv.stride[0] for conv in layer.modules() if isinstance(conv, nn.Conv2d))
        stride *= step
        if step > 1 and stride <= _OUTPUT_STRIDES[0]:
            taps.append((position, stride))
    return [*taps, (len(net) - 1, output_stride)]


def _with_channels(conv: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    """The same first convolution for images of other channels, with new weights of the same distribution."""
    other = nn.Conv2d(in_channels, conv.out_channels, 3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(other.weight, mode="fan_out")
    return other
