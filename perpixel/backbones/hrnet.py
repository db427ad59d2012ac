"""HRNetV2 in its segmentation form (Wang et al., PAMI 2020, arXiv:1908.07919; Sun et al., 2019, arXiv:1904.04514).

Branches at strides 4, 8, 16 and 32 run side by side, and after every few blocks each receives the maps of all others:
finer ones through 3x3 convolutions of stride 2, coarser ones through a 1x1 convolution and enlargement (figure 3).

timm's networks of the same names repeat coarse cells by a fixed factor (classification); here, as in the authors'
segmentation code, coarse maps are resized bilinearly to the finer map's own size, so that images have any size. The
weights are the same: layers have the authors' names, which are timm's too.

Shapes: B batch, C channels, H W image, h w map of a branch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import timm
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from perpixel.backbones.hub import cannot_fetch, hub_unless_unreachable
from perpixel.backbones.timm_backbone import BackboneConfig
from perpixel.backbones.trunk_weights import fill_trunk_with, trunk_preprocessing
from perpixel.backbones.weight_files import read_checkpoint
from perpixel.errors import InvalidValue, nearest
from perpixel.ops import resize

__all__ = ["HRNETS", "HRNet", "HRNetLayout", "HighResolutionModule", "create_hrnet"]

_STRIDES = (4, 8, 16, 32)
_EXPANSION = 4
_CLASSIFICATION = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")
_SEGMENTATION = ("last_layer.", "aux_head.", "conv3x3_ocr.", "ocr_distri_head.", "cls_head.")


@dataclass(frozen=True, kw_only=True)
class HRNetLayout:
    """Widths and depths.

    Raises:
        InvalidValue: a number is not positive, or there are not three counts of modules.
    """

    width: int = 18
    """Channels of the finest branch; the others have 2, 4 and 8 times as many."""
    stem_width: int = 64
    """Channels of the two convolutions that bring the image to stride 4."""
    bottleneck_width: int = 64
    """Inner channels of the bottlenecks behind the stem, which return four times as many."""
    num_bottlenecks: int = 4
    num_modules: tuple[int, ...] = (1, 4, 3)
    """Modules (blocks of every branch, then the exchange) with two, three and four branches."""
    num_blocks: int = 4
    """Basic blocks per branch and module."""

    def __post_init__(self) -> None:
        if len(self.num_modules) != len(_STRIDES) - 1 or min(self.num_modules) < 1:
            raise InvalidValue(f"num_modules has three counts >= 1, for 2, 3 and 4 branches, got {self.num_modules}")
        for name in ("width", "stem_width", "bottleneck_width", "num_bottlenecks", "num_blocks"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"HRNet {name} must be >= 1, got {getattr(self, name)}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the four branches, finest first."""
        return tuple(self.width * stride // _STRIDES[0] for stride in _STRIDES)


HRNETS: dict[str, HRNetLayout] = {
    "hrnet_w18_small": HRNetLayout(
        width=16, bottleneck_width=32, num_bottlenecks=1, num_modules=(1, 1, 1), num_blocks=2
    ),
    "hrnet_w18_small_v2": HRNetLayout(width=18, num_bottlenecks=2, num_modules=(1, 3, 2), num_blocks=2),
    "hrnet_w18": HRNetLayout(width=18),
    "hrnet_w30": HRNetLayout(width=30),
    "hrnet_w32": HRNetLayout(width=32),
    "hrnet_w40": HRNetLayout(width=40),
    "hrnet_w44": HRNetLayout(width=44),
    "hrnet_w48": HRNetLayout(width=48),
    "hrnet_w64": HRNetLayout(width=64),
}
"""The published layouts, under timm's names; "W18-small-v1" of the authors is ``hrnet_w18_small``."""


class HRNet(nn.Module):
    """Maps images (B, C, H, W) to the maps of the four branches, finest first, each side H / stride rounded up.

    Args:
        config: Name, weights and image channels.
        layout: Widths and depths.
        align_corners: How coarse maps are enlarged where branches exchange.

    Attributes:
        config: What it was built from.
        strides: Image pixels per cell of each map.
        channels: Channels of each map.
        preprocessing: How the weights want raw pixels.
        notes: What was adapted on the way, in words for the user.
    """

    def __init__(self, config: BackboneConfig, layout: HRNetLayout, *, align_corners: bool) -> None:
        super().__init__()
        self.config = config
        self.preprocessing = trunk_preprocessing(config)
        self.notes: tuple[str, ...] = ()
        self.strides: tuple[int, ...] = _STRIDES
        self.channels: tuple[int, ...] = layout.channels
        self.conv1 = _conv3x3(config.in_channels, layout.stem_width, stride=2)
        self.bn1 = nn.BatchNorm2d(layout.stem_width)
        self.conv2 = _conv3x3(layout.stem_width, layout.stem_width, stride=2)
        self.bn2 = nn.BatchNorm2d(layout.stem_width)
        self.layer1 = _bottlenecks(layout)
        before: tuple[int, ...] = (layout.bottleneck_width * _EXPANSION,)
        for stage, num_modules in enumerate(layout.num_modules, start=2):
            channels = layout.channels[:stage]
            self.add_module(f"transition{stage - 1}", _transition(before, channels))
            modules = (
                HighResolutionModule(channels, layout.num_blocks, align_corners=align_corners)
                for _ in range(num_modules)
            )
            self.add_module(f"stage{stage}", nn.Sequential(*modules))
            before = channels

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns the maps of the four branches."""
        maps: tuple[Tensor, ...] = (self.layer1(self._stem(images)),)
        for stage in range(2, len(_STRIDES) + 1):
            maps = _entered(self.get_submodule(f"transition{stage - 1}"), maps)
            maps = self.get_submodule(f"stage{stage}")(maps)
        return maps

    def _stem(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)), inplace=True)


class HighResolutionModule(nn.Module):
    """Basic blocks on every branch, then the exchange between all: maps in, maps of the same shapes out.

    Branch i becomes relu(x_i + sum over j of x_j brought to branch i) (section 3.2).
    """

    def __init__(self, channels: Sequence[int], num_blocks: int, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(c, c) for _ in range(num_blocks))) for c in channels)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_exchange(channels, source, target) for source in range(len(channels)))
            for target in range(len(channels))
        )

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maps = tuple(branch(x) for branch, x in zip(self.branches, maps, strict=True))
        return tuple(self._received(maps, target) for target in range(len(maps)))

    def _received(self, maps: tuple[Tensor, ...], target: int) -> Tensor:
        own = maps[target]
        total: Tensor | None = None
        for source, layer in enumerate(cast(nn.ModuleList, self.fuse_layers[target])):
            if source != target:
                brought = resize(layer(maps[source]), own.shape[-2:], align_corners=self.align_corners)
                total = brought if total is None else total.add_(brought)
        return F.relu(own if total is None else total.add_(own), inplace=True)


def create_hrnet(config: BackboneConfig, *, layout: HRNetLayout | None = None, align_corners: bool = True) -> HRNet:
    """Builds an HRNet and fills it with the weights that ``config`` names.

    ``config.weights`` is ``none``, ``timm``, or a file: the authors' or timm's ImageNet weights, or a segmentation
    checkpoint of the authors, with or without its prefix ``model.``; heads in it are left aside.

    Args:
        config: Name, weights and image channels; an HRNet has four maps and strides of its own, so the rest keeps its
            defaults.
        layout: Widths and depths; None takes those of the name.
        align_corners: How coarse maps are enlarged inside.

    Raises:
        InvalidValue: the name is unknown, or the configuration asks for what an HRNet cannot be.
        CheckpointError: the weights cannot be had, or do not fit.
    """
    if config.name not in HRNETS:
        near = nearest(config.name, HRNETS, end=".")
        raise InvalidValue(f"no HRNet {config.name!r}{near} Known: {', '.join(HRNETS)}")
    plain = BackboneConfig(name=config.name, weights=config.weights, in_channels=config.in_channels).to_dict()
    asked = [f"{field}={value!r}" for field, value in config.to_dict().items() if value != plain[field]]
    if asked:
        raise InvalidValue(
            f"{config.name} has a stem of its own and four maps at strides {', '.join(map(str, _STRIDES))}, got "
            f"{', '.join(asked)}; leave that away"
        )
    trunk = HRNet(config, layout or HRNETS[config.name], align_corners=align_corners)
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    if config.weights != "none":
        trunk.notes = _fill(trunk, config)
    return trunk


def _conv3x3(in_channels: int, out_channels: int, *, stride: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def _bottlenecks(layout: HRNetLayout) -> nn.Sequential:
    inside, outside = layout.stem_width, layout.bottleneck_width * _EXPANSION
    blocks = []
    for _ in range(layout.num_bottlenecks):
        shortcut = None
        if inside != outside:
            shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside))
        blocks.append(Bottleneck(inside, layout.bottleneck_width, downsample=shortcut))
        inside = outside
    return nn.Sequential(*blocks)


def _conv_norm_relu(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    conv = _conv3x3(in_channels, out_channels, stride=stride)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def _transition(before: Sequence[int], after: Sequence[int]) -> nn.ModuleList:
    """One layer per branch of the next stage: nothing where the width stays, and one branch more from the coarsest."""
    layers: list[nn.Module] = []
    for i, channels in enumerate(after):
        if i >= len(before):
            layers.append(nn.Sequential(_conv_norm_relu(before[-1], channels, stride=2)))
        elif before[i] == channels:
            layers.append(nn.Identity())
        else:
            layers.append(_conv_norm_relu(before[i], channels, stride=1))
    return nn.ModuleList(layers)


def _entered(transition: nn.Module, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    layers = cast(nn.ModuleList, transition)
    return tuple(layer(maps[min(i, len(maps) - 1)]) for i, layer in enumerate(layers))


def _exchange(channels: Sequence[int], source: int, target: int) -> nn.Module:
    """What branch ``source`` goes through before it is added to branch ``target``, but for the enlargement."""
    if source == target:
        return nn.Identity()
    if source > target:
        conv = nn.Conv2d(channels[source], channels[target], 1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(channels[target]))
    steps = [_conv_norm_relu(channels[source], channels[source], stride=2) for _ in range(target - source - 1)]
    last = _conv3x3(channels[source], channels[target], stride=2)
    return nn.Sequential(*steps, nn.Sequential(last, nn.BatchNorm2d(channels[target])))


def _fill(trunk: HRNet, config: BackboneConfig) -> tuple[str, ...]:
    found = _pretrained(config.name) if config.weights == "timm" else _of_the_trunk(read_checkpoint(config.weights))
    advice = "Give weights of an HRNet of the same width and depth, of its authors or of timm."
    return fill_trunk_with(trunk, found, config, first="conv1.weight", advice=advice)


def _of_the_trunk(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint without its heads."""
    return {key: value for key, value in found.items() if not key.startswith(_CLASSIFICATION + _SEGMENTATION)}


def _pretrained(name: str) -> dict[str, Tensor]:
    try:
        with hub_unless_unreachable():
            whole: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        raise cannot_fetch(name, error) from error
    return _of_the_trunk(whole)
