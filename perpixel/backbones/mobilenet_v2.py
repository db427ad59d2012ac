"""MobileNet-v2 as DrSleep's networks have it (Sandler et al., CVPR 2018, arXiv:1801.04381, table 2).

It differs from torchvision's and timm's in one place: the first block, whose expansion is 1, keeps its 1x1 convolution
with batch norm and ReLU6 like every other block; theirs leave it out. With the identity in that layer the two are the
same function, which is how timm's weights are taken over.

Layers have the names of DrSleep/light-weight-refinenet: layer1 is the stem, layer2 to layer8 the stages, and the
convolutions of a block (1x1, 3x3 by channel, 1x1) stand under ``output``.

Shapes: B batch, C channels, H W image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn

from perpixel.backbones.hub import cannot_fetch, hub_unless_unreachable
from perpixel.backbones.timm_backbone import BackboneConfig
from perpixel.backbones.trunk_weights import fill_trunk_with, trunk_preprocessing
from perpixel.backbones.weight_files import read_checkpoint
from perpixel.errors import InvalidValue

__all__ = ["DRSLEEP_MOBILENET_V2", "MobileNetV2", "MobileNetV2Layout", "create_mobilenet_v2"]

DRSLEEP_MOBILENET_V2 = "drsleep_mobilenet_v2"
"""Its name among the trunks."""

_TIMM_NAME = "mobilenetv2_100"
_FIRST_EXPANSION = "layer2.0.output.0."
# timm's names of a block's layers -> the two numbers under ``output``.
_TIMM_BLOCK = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2.0", "bn3": "2.1"}
_TIMM_FIRST_BLOCK = {"conv_dw": "1.0", "bn1": "1.1", "conv_pw": "2.0", "bn2": "2.1"}


@dataclass(frozen=True, kw_only=True)
class MobileNetV2Layout:
    """Table 2 of the paper.

    Raises:
        InvalidValue: there are fewer than two stages, or a row is not (expansion, channels, blocks, stride).
    """

    stem: int = 32
    stages: tuple[tuple[int, int, int, int], ...] = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    """(expansion, channels, blocks, stride of the first block) of each stage."""

    def __post_init__(self) -> None:
        rows = tuple(tuple(row) for row in self.stages)
        object.__setattr__(self, "stages", rows)
        if self.stem < 1 or len(rows) < 2 or any(len(row) != 4 or min(row) < 1 or row[3] > 2 for row in rows):
            raise InvalidValue(
                "a MobileNet-v2 has a stem and at least two stages of (expansion, channels, blocks, stride 1 or 2), "
                f"got stem {self.stem} and {rows}"
            )


class MobileNetV2(nn.Module):
    """Maps images (B, C, H, W) to the maps behind all stages at its coarsest ``config.num_stages`` strides.

    Finest first; stages that share a stride give a map each: six maps at strides 4, 8, 16, 16, 32, 32 by default.

    Attributes:
        config: What it was built from.
        strides: Image pixels per cell of each map.
        channels: Channels of each map.
        preprocessing: How the weights want raw pixels.
        notes: What was adapted on the way, in words for the user.

    Raises:
        InvalidValue: there are fewer strides than ``config.num_stages``.
    """

    def __init__(self, config: BackboneConfig, layout: MobileNetV2Layout | None = None) -> None:
        super().__init__()
        layout = layout or MobileNetV2Layout()
        self.config = config
        self.preprocessing = trunk_preprocessing(config)
        self.notes: tuple[str, ...] = ()
        self.layer1 = _conv_norm_act(config.in_channels, layout.stem, 3, stride=2)
        channels, stride = layout.stem, 2
        maps = []
        for number, (expansion, width, blocks, step) in enumerate(layout.stages, start=2):
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(InvertedResidual(channels, width, expansion, stride=step if block == 0 else 1))
                channels = width
            self.add_module(f"layer{number}", stage)
            stride *= step
            maps.append((stride, width))
        levels = sorted({stride for stride, _ in maps})
        if config.num_stages > len(levels):
            raise InvalidValue(f"{config.name} has maps at {len(levels)} strides, num_stages={config.num_stages} asked")
        finest = levels[-config.num_stages]
        self._kept = tuple(stride >= finest for stride, _ in maps)
        self.strides: tuple[int, ...] = tuple(stride for stride, _ in maps if stride >= finest)
        self.channels: tuple[int, ...] = tuple(width for stride, width in maps if stride >= finest)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns the kept maps."""
        x = self.layer1(images)
        maps = []
        for number, kept in enumerate(self._kept, start=2):
            x = self.get_submodule(f"layer{number}")(x)
            if kept:
                maps.append(x)
        return tuple(maps)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 convolution by channel, 1x1 to the width: (B, C, h, w) -> (B, C', h', w').

    Batch norm behind each, ReLU6 behind the first two. The input is added where the size and the channels stay.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, *, stride: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        self.output = nn.Sequential(
            _conv_norm_act(in_channels, inner, 1),
            _conv_norm_act(inner, inner, 3, stride=stride, groups=inner),
            nn.Sequential(nn.Conv2d(inner, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output(x)
        return x + out if self.residual else out


def create_mobilenet_v2(config: BackboneConfig, layout: MobileNetV2Layout | None = None) -> MobileNetV2:
    """Builds the trunk and fills it with the weights that ``config`` names.

    ``config.weights`` is ``none``, ``timm`` (its mobilenetv2_100, the first block's expansion being the identity) or a
    file with the names of timm or of DrSleep's code; a classifier or decoder in it is left aside, and the notes say so.

    Raises:
        InvalidValue: the name is another's, there are fewer strides than asked for, or the configuration asks for
            dilation or another stem.
        CheckpointError: the weights cannot be had, or do not fit.
    """
    if config.name != DRSLEEP_MOBILENET_V2:
        raise InvalidValue(f"this trunk is called {DRSLEEP_MOBILENET_V2!r}, got backbone {config.name!r}")
    plain = BackboneConfig(
        name=config.name, weights=config.weights, in_channels=config.in_channels, num_stages=config.num_stages
    )
    if config != plain:
        raise InvalidValue(
            f"{config.name} is built as published: leave output_stride, dilation, stem, multi_grid and cut_stages away"
        )
    trunk = MobileNetV2(config, layout)
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    if config.weights != "none":
        found = _pretrained() if config.weights == "timm" else read_checkpoint(config.weights)
        trunk.notes = _fill(trunk, found, config)
    return trunk


def _pretrained() -> dict[str, Tensor]:
    try:
        with hub_unless_unreachable():
            return dict(timm.create_model(_TIMM_NAME, pretrained=True).state_dict())
    except (OSError, RuntimeError, ValueError) as error:
        raise cannot_fetch(_TIMM_NAME, error) from error


def _fill(trunk: MobileNetV2, found: Mapping[str, Tensor], config: BackboneConfig) -> tuple[str, ...]:
    notes: list[str] = []
    wanted = trunk.state_dict()
    if "conv_stem.weight" in found:
        found = {**dict(_from_timm(found)), **_identity(wanted)}
        notes.append("the weights have no expansion in the first block; its layer there starts as the identity")
    beside = [key for key in found if not key.startswith("layer")]
    if beside:
        notes.append(f"{len(beside)} tensors that are not of the trunk were left aside ({', '.join(beside[:3])}, …)")
    layers = {key: value for key, value in found.items() if key.startswith("layer")}
    return (*fill_trunk_with(trunk, layers, config, first="layer1.0.weight"), *notes)


def _from_timm(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """timm's names -> DrSleep's; keys of neither the stem nor a block keep their names."""
    for key, value in tensors.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(\w+)", key)
        if key.startswith("conv_stem."):
            yield key.replace("conv_stem.", "layer1.0."), value
        elif key.startswith("bn1."):
            yield key.replace("bn1.", "layer1.1."), value
        elif block is not None:
            places = _TIMM_BLOCK if int(block[1]) else _TIMM_FIRST_BLOCK
            yield f"layer{int(block[1]) + 2}.{block[2]}.output.{places[block[3]]}.{block[4]}", value
        else:
            yield key, value


def _identity(wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first block's expansion and its norm as the identity on what a ReLU6 lets through."""
    own = {key: torch.zeros_like(value) for key, value in wanted.items() if key.startswith(_FIRST_EXPANSION)}
    weight = own[_FIRST_EXPANSION + "0.weight"]
    weight.copy_(torch.eye(weight.shape[0])[:, : weight.shape[1], None, None])
    own[_FIRST_EXPANSION + "1.running_var"] += 1
    own[_FIRST_EXPANSION + "1.weight"] += (1 + nn.BatchNorm2d(1).eps) ** 0.5
    return own


def _conv_norm_act(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU6(inplace=True))
