"""Any timm model with feature maps as a segmentation backbone.

Shapes: B batch, C channels, H W image; stage i gives (B, C_i, H / stride_i, W / stride_i), rounded up.

Output stride 8 or 16 replaces the strides of the last stages by dilation, in one of two conventions that are *not* the
same function: ``half`` leaves the first block of a dilated stage at the previous dilation (timm, torchvision,
TorchSeg), ``full`` dilates it like the rest (Caffe, semseg, segmentation_models.pytorch).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from perpixel.backbones.hub import cannot_fetch, hub_unless_unreachable
from perpixel.backbones.weight_files import read_checkpoint
from perpixel.errors import CheckpointError, InvalidValue, nearest
from perpixel.types import Preprocessing

__all__ = ["Backbone", "BackboneConfig", "create_backbone"]

_IMAGENET = Preprocessing()
# Arguments of timm's ResNet: the 3x3 stems hold (w, w, 2w) channels with w = stem_width.
_STEMS: dict[str, dict[str, Any]] = {
    "7x7": {"stem_type": "", "stem_width": 64},
    "deep32": {"stem_type": "deep", "stem_width": 32},
    "deep64": {"stem_type": "deep", "stem_width": 64},
}


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which trunk, from which weights, at which output stride.

    Raises:
        InvalidValue: a value is outside its choices.
    """

    name: str = "resnet18"
    weights: str = "none"
    """``none`` (random), ``timm`` (its pretrained weights) or the path of a weight file."""
    output_stride: int = 32
    dilation: Literal["half", "full"] = "half"
    stem: str = "default"
    """For ResNets: ``7x7``, ``deep32`` (v1c: 32, 32, 64) or ``deep64`` (TorchSeg's deep stem: 64, 64, 128)."""
    in_channels: int = 3
    num_stages: int = 4
    """How many of the coarsest feature maps are returned."""
    cut_stages: int = 0
    """How many of the coarsest stages are left away, and not built (the PSPNet of segmentation_models.pytorch: 2)."""
    multi_grid: tuple[int, ...] = ()
    """Factors on the dilation of the last stage's blocks, one each (DeepLab v3: 1, 2, 4), which make the first block's
    dilation the stage's own; empty leaves the dilation as it is."""

    def __post_init__(self) -> None:
        if self.output_stride not in (8, 16, 32):
            raise InvalidValue(f"output_stride is 8, 16 or 32, got {self.output_stride}")
        if self.dilation not in ("half", "full"):
            raise InvalidValue(f"dilation is 'half' or 'full', got {self.dilation!r}")
        if self.stem != "default" and self.stem not in _STEMS:
            raise InvalidValue(
                f"unknown stem {self.stem!r}{nearest(self.stem, _STEMS, end='.')} Known: default, {', '.join(_STEMS)}"
            )
        object.__setattr__(self, "multi_grid", tuple(self.multi_grid))
        if any(factor < 1 for factor in self.multi_grid):
            raise InvalidValue(f"factors of multi_grid must be >= 1, got {self.multi_grid}")
        if self.in_channels < 1 or self.num_stages < 1:
            raise InvalidValue(f"in_channels and num_stages must be >= 1, got {self.in_channels} and {self.num_stages}")
        if self.cut_stages < 0:
            raise InvalidValue(f"cut_stages must be >= 0, got {self.cut_stages}")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain Python values, one per field."""
        return {**asdict(self), "multi_grid": list(self.multi_grid)}


class Backbone(nn.Module):
    """Maps images (B, C, H, W) to a tuple of feature maps, finest first.

    Attributes:
        config: What it was built from.
        strides: Pixels of the image per cell of each map.
        channels: Channels of each map.
        preprocessing: How the weights want raw pixels to be normalised.
        notes: What was adapted on the way, in words for the user.
    """

    def __init__(
        self, net: nn.Module, config: BackboneConfig, preprocessing: Preprocessing, notes: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        info: Any = net.feature_info
        self.net = net
        self.config = config
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.preprocessing = preprocessing
        self.notes = notes
        self._channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.net(images)
        if self._channels_last:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        return tuple(maps)


def create_backbone(config: BackboneConfig) -> Backbone:
    """Builds a backbone and loads its weights.

    Raises:
        InvalidValue: timm has no such model, or the model cannot take this stem, output stride or number of stages.
        CheckpointError: the weights cannot be fetched or read, or do not fit; says what to do instead.
    """
    if not timm.is_model(config.name):
        raise InvalidValue(
            f"unknown backbone {config.name!r}{nearest(config.name, timm.list_models(), end='.')} "
            "Any timm model with feature maps works: python -c 'import timm; print(timm.list_models())' lists them."
        )
    net = _build_features(config, _stem_arguments(config))
    if config.cut_stages:
        _drop_stages_behind_the_last_map(net)
    if config.dilation == "full" and config.output_stride < 32:
        _dilate_first_blocks(net)
    if config.multi_grid:
        _apply_multi_grid(net, config)
    notes: tuple[str, ...] = ()
    if config.weights not in ("none", "timm"):
        notes = _load_file(net, config)
    elif config.weights == "timm" and config.in_channels != 3:
        notes = (f"the pretrained stem of {config.name} was adapted from 3 to {config.in_channels} input channels",)
    return Backbone(net, config, _preprocessing(net, config), notes)


def _stem_arguments(config: BackboneConfig) -> dict[str, Any]:
    if config.stem == "default":
        return {}
    if not re.match(r"(se|ecaa?|wide_)?resne(t|xt)\d", config.name):
        raise InvalidValue(f"stem {config.stem!r} is for ResNets; {config.name!r} has its own: use stem 'default'")
    return dict(_STEMS[config.stem])


def _build_features(config: BackboneConfig, arguments: dict[str, Any]) -> Any:
    with torch.device("meta"):  # only to count the maps
        available = len(_timm_features(config, arguments, pretrained=False).feature_info.reduction())
    last = available - config.cut_stages
    if config.num_stages > last:
        without = f" less cut_stages={config.cut_stages}" if config.cut_stages else ""
        raise InvalidValue(
            f"backbone {config.name!r} has {available} feature maps{without}, num_stages={config.num_stages} asked"
        )
    arguments = {**arguments, "out_indices": tuple(range(last - config.num_stages, last))}
    pretrained = config.weights == "timm"
    if pretrained and config.stem == "deep64" and config.name in ("resnet50", "resnet101", "resnet152"):
        config = BackboneConfig(**{**config.to_dict(), "name": config.name + "s"})  # timm's name of the same network
        arguments = {"out_indices": arguments["out_indices"]}
    if not pretrained:
        return _timm_features(config, arguments, pretrained=False)
    with hub_unless_unreachable():
        return _timm_features(config, arguments, pretrained=True)


def _timm_features(config: BackboneConfig, arguments: dict[str, Any], *, pretrained: bool) -> Any:
    if config.output_stride != 32:
        arguments = {**arguments, "output_stride": config.output_stride}
    try:
        return timm.create_model(
            config.name, pretrained=pretrained, features_only=True, in_chans=config.in_channels, **arguments
        )
    except (AssertionError, TypeError) as error:
        raise InvalidValue(
            f"backbone {config.name!r} cannot take output_stride={config.output_stride} with stem {config.stem!r} "
            f"({error or 'refused by timm'}); use output_stride 32 and stem 'default', or a ResNet."
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise cannot_fetch(config.name, error) from error


def _drop_stages_behind_the_last_map(net: Any) -> None:
    """timm's MobileNets and EfficientNets keep, and compute, stages that no map is taken from."""
    blocks, last = getattr(net, "blocks", None), net.feature_info.module_name()[-1]
    if isinstance(blocks, nn.Sequential) and last.startswith("blocks."):
        del blocks[int(last.split(".")[1]) + 1 :]


def _dilate_first_blocks(net: nn.Module) -> None:
    """Gives every spatial convolution of a dilated stage the stage's own dilation (the ``full`` convention)."""
    for stage in _stages(net):
        convs = _spatial_convs(stage)
        dilation = max((m.dilation[0] for m in convs), default=1)
        for conv in convs:
            _set_dilation(conv, dilation)


def _apply_multi_grid(net: nn.Module, config: BackboneConfig) -> None:
    """Multiplies the dilation of each block of the last stage by its factor."""
    blocks = [block for block in [*_stages(net)][-1].children() if _spatial_convs(block)]
    if len(blocks) != len(config.multi_grid):
        raise InvalidValue(
            f"multi_grid {config.multi_grid} has {len(config.multi_grid)} factors, the last stage of {config.name!r} "
            f"{len(blocks)} blocks"
        )
    rate = max(conv.dilation[0] for block in blocks for conv in _spatial_convs(block))
    for block, factor in zip(blocks, config.multi_grid, strict=True):
        for conv in _spatial_convs(block):
            _set_dilation(conv, rate * factor)


def _spatial_convs(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]


def _set_dilation(conv: nn.Conv2d, dilation: int) -> None:
    conv.dilation = (dilation, dilation)
    conv.padding = tuple(dilation * (k // 2) for k in conv.kernel_size)


def _stages(net: nn.Module) -> Iterator[nn.Module]:
    for name, child in net.named_children():
        if name in ("blocks", "stages", "features"):
            yield from child.children()
        else:
            yield child


def _load_file(net: nn.Module, config: BackboneConfig) -> tuple[str, ...]:
    found = read_checkpoint(config.weights)
    wanted = net.state_dict()
    loaded: dict[str, Tensor] = {}
    notes: list[str] = []
    problems: list[str] = []
    used: set[str] = set()
    for key, tensor in wanted.items():
        source = next((k for k in (key, _unflattened(key)) if k in found), None)
        if source is None:
            if not key.endswith("num_batches_tracked"):  # checkpoints from before PyTorch 0.4.1 have none
                problems.append(f"missing: {key} {tuple(tensor.shape)}")
            continue
        used.add(source)
        value = found[source]
        if value.ndim == 4 and tensor.ndim == 4 and value.shape[1] == 3 != tensor.shape[1] == config.in_channels:
            value = torch.as_tensor(adapt_input_conv(config.in_channels, value))
            notes.append(f"{source} was adapted from 3 to {config.in_channels} input channels")
        if value.shape != tensor.shape:
            problems.append(f"shape: {source} is {tuple(value.shape)}, the backbone wants {tuple(tensor.shape)}")
            continue
        loaded[key] = value
    left_over = sorted(set(found) - used - _classifier_keys(config, found))
    problems += [f"left over: {key} {tuple(found[key].shape)}" for key in left_over]
    if problems:
        shown = "\n  ".join(problems[:10])
        raise CheckpointError(
            f"{config.weights}: {len(problems)} tensors do not fit backbone {config.name!r} (stem {config.stem!r}):\n  "
            f"{shown}\nChoose the backbone and stem that the file was made with."
        )
    net.load_state_dict(loaded, strict=False)
    return tuple(notes)


def _classifier_keys(config: BackboneConfig, found: Mapping[str, Tensor]) -> set[str]:
    """Keys of the file that belong to the part of the classification network behind the last feature map."""
    with torch.device("meta"):
        whole = timm.create_model(config.name, in_chans=config.in_channels).state_dict()
    return {key for key in found if key in whole}


def _unflattened(key: str) -> str:
    """timm's feature wrappers flatten ``blocks.0.x`` to ``blocks_0.x``; this is the way back."""
    return re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", key)


def _preprocessing(net: nn.Module, config: BackboneConfig) -> Preprocessing:
    if config.in_channels != 3:
        return Preprocessing(mean=(0.5,) * config.in_channels, std=(0.25,) * config.in_channels)
    described = getattr(net, "default_cfg", None) or {}
    if config.weights == "none":
        return _IMAGENET
    return Preprocessing(
        mean=tuple(described.get("mean", _IMAGENET.mean)), std=tuple(described.get("std", _IMAGENET.std))
    )
