"""The two trunks of ICNet (Zhao et al., ECCV 2018, arXiv:1704.08545, figure 2): a finer and a coarser map of an image.

The authors' (hszhao/ICNet, icnet_cityscapes_bnnomerge.prototxt) runs its first layers once, on the image at half its
size; behind the first block of the third stage the map is shrunk again, and the rest runs on that. With width 32 it is
the published network, half of a ResNet-50 in every layer; with width 64 the one that this was pruned from.

Ports to PyTorch run a whole ResNet twice with the same weights, on the image at a half and at a quarter of its size.

Shapes: B batch, C channels, H W image.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models._features import FeatureListNet
from torch import Tensor, nn

from perpixel.backbones.caffe_resnet import Bottleneck
from perpixel.backbones.timm_backbone import Backbone, BackboneConfig, create_backbone
from perpixel.backbones.trunk_weights import trunk_preprocessing
from perpixel.errors import InvalidValue
from perpixel.layers import ConvNorm
from perpixel.ops import resize

__all__ = ["ICNET_TRUNK", "ICNetTrunk", "TwoScaleTrunk", "create_icnet_trunk"]

ICNET_TRUNK = "icnet_resnet50"
"""The name of the authors' trunk; every other name is one of timm's."""

_BLOCKS = (3, 4, 6, 3)
_DILATIONS = (1, 1, 2, 4)
_EXPANSION = 4
_TIMM_WIDTH = 64
# timm's name -> ours, for the ResNet-50 with three 3x3 convolutions as its stem.
_TIMM_RULES = (
    (r"^conv1\.0\.", "conv1_1.conv."),
    (r"^conv1\.1\.", "conv1_1.norm."),
    (r"^conv1\.3\.", "conv1_2.conv."),
    (r"^conv1\.4\.", "conv1_2.norm."),
    (r"^conv1\.6\.", "conv1_3.conv."),
    (r"^bn1\.", "conv1_3.norm."),
    (r"\.conv1\.", ".reduce.conv."),
    (r"\.bn1\.", ".reduce.norm."),
    (r"\.conv2\.", ".conv3x3.conv."),
    (r"\.bn2\.", ".conv3x3.norm."),
    (r"\.conv3\.", ".increase.conv."),
    (r"\.bn3\.", ".increase.norm."),
    (r"\.downsample\.0\.", ".shortcut.conv."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"^layer1\.", "conv2."),
    (r"^layer2\.", "conv3."),
    (r"^layer3\.", "conv4."),
    (r"^layer4\.", "conv5."),
)


class ICNetTrunk(nn.Module):
    """Maps images (B, C, H, W) to (B, 8 width, H/16, W/16) and (B, 32 width, H/32, W/32), sizes rounded up.

    Cells lie on every 16th and 32nd pixel from the first on, so that 32n + 1 pixels give n + 1 cells.

    Args:
        config: Name, weights and image channels; the network decides about the rest.
        width: Channels of the first layer.
        stride_on_1x1: Where the stride of the third stage sits: in the first 1x1 convolution, or in the 3x3.
        merged: Convolutions with biases in place of batch norms, as in one of the authors' releases.
        norm_momentum: Share of a batch in the running statistics.

    Attributes:
        config: What it was built from.
        strides: Image pixels per cell of each map.
        channels: Channels of each map.
        preprocessing: How the weights want raw pixels.
        notes: What was adapted on the way, in words for the user.
    """

    strides: tuple[int, ...] = (16, 32)
    minimum_size = 33
    """The smallest side that leaves two cells in the coarser map."""

    def __init__(
        self, config: BackboneConfig, *, width: int, stride_on_1x1: bool, merged: bool, norm_momentum: float
    ) -> None:
        super().__init__()
        self.config = config
        self.preprocessing = trunk_preprocessing(config)
        self.notes: tuple[str, ...] = ()
        norm: dict[str, Any] = {"momentum": norm_momentum, "merged": merged}
        self.conv1_1 = ConvNorm(config.in_channels, width, 3, stride=2, **norm)
        self.conv1_2 = ConvNorm(width, width, 3, **norm)
        self.conv1_3 = ConvNorm(width, 2 * width, 3, **norm)
        channels = 2 * width
        for i, (blocks, dilation) in enumerate(zip(_BLOCKS, _DILATIONS, strict=True)):
            inner = width * 2**i
            stage = nn.Sequential()
            for block in range(blocks):
                stage.append(
                    Bottleneck(
                        channels,
                        inner,
                        stride=2 if (i, block) == (1, 0) else 1,
                        dilation=dilation,
                        shortcut=block == 0,
                        stride_on_1x1=stride_on_1x1,
                        **norm,
                    )
                )
                channels = inner * _EXPANSION
            self.add_module(f"conv{i + 2}", stage)
        self.channels: tuple[int, ...] = (8 * width, channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the finer and the coarser map."""
        x = _halved(images)
        for stem in (self.conv1_1, self.conv1_2, self.conv1_3):
            x = torch.relu(stem(x))
        x = F.max_pool2d(x, 3, 2, 1)
        x = self.get_submodule("conv2")(x)
        first, *others = cast("nn.Sequential", self.get_submodule("conv3"))
        finer: Tensor = first(x)
        x = _halved(finer)
        for block in others:
            x = block(x)
        for name in ("conv4", "conv5"):
            x = self.get_submodule(name)(x)
        return finer, x

    def num_blocks(self, stage: int) -> int:
        """Returns the residual blocks of conv2 to conv5."""
        return len(cast("nn.Sequential", self.get_submodule(f"conv{stage}")))

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the smallest 32n + 1 that hold a size: the last pixel then bears a cell of every map."""
        return height + (1 - height) % 32, width + (1 - width) % 32


class TwoScaleTrunk(nn.Module):
    """A trunk run twice with the same weights: its third coarsest map of the halved image, its coarsest of a quarter.

    On the halved image it stops behind the map that is wanted, where the public code goes on and drops the rest.
    Attributes are those of `ICNetTrunk`.

    Raises:
        InvalidValue: the trunk has fewer than three feature maps.
    """

    def __init__(self, trunk: Backbone) -> None:
        super().__init__()
        if len(trunk.channels) < 3:
            raise InvalidValue(
                f"ICNet takes the third coarsest map of {trunk.config.name!r}, which has {len(trunk.channels)} here; "
                "set num_stages to 3 or more"
            )
        self.trunk = trunk
        self.config = trunk.config
        self.preprocessing = trunk.preprocessing
        self.notes = trunk.notes
        self.strides: tuple[int, ...] = (2 * trunk.strides[-3], 4 * trunk.strides[-1])
        self.channels: tuple[int, ...] = (trunk.channels[-3], trunk.channels[-1])
        self.minimum_size = self.strides[1] + 4

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps images (B, C, H, W) to (B, C', H/16, W/16) and (B, C'', H/32, W/32) for a trunk of output stride 8."""
        height, width = images.shape[-2:]
        half = resize(images, (height // 2, width // 2), align_corners=True)
        quarter = resize(images, (height // 4, width // 4), align_corners=True)
        coarser: Tensor = self.trunk(quarter)[-1]
        return self._finer(half), coarser

    def _finer(self, x: Tensor) -> Tensor:
        net: Any = self.trunk.net
        if type(net) is not FeatureListNet or net.output_fmt != "NCHW":  # timm may wrap a trunk otherwise
            finer: Tensor = self.trunk(x)[-3]
            return finer
        left = len(net.return_layers) - 2
        for name, layer in net.items():
            x = layer(x)
            left -= name in net.return_layers
            if not left:
                break
        return x

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the smallest multiples of the coarser stride that hold a size."""
        stride = self.strides[1]
        return -(-height // stride) * stride, -(-width // stride) * stride


def create_icnet_trunk(
    config: BackboneConfig, *, width: int, stride_on_1x1: bool, merged: bool, norm_momentum: float
) -> ICNetTrunk | TwoScaleTrunk:
    """Builds the authors' trunk, or any of timm's run at two scales, with the weights that ``config`` names.

    timm's ``resnet50s`` has the layers of the authors' trunk of width 64 (its stride sits in the 3x3), so this takes
    ``timm`` or a file with those names for its weights.

    Raises:
        InvalidValue: timm has no such model, the authors' trunk is asked for strides that it sets itself, or for
            weights at another width than 64.
        CheckpointError: the weights cannot be had, or do not fit.
    """
    if config.name != ICNET_TRUNK:
        return TwoScaleTrunk(create_backbone(config))
    if config != BackboneConfig(name=config.name, weights=config.weights, in_channels=config.in_channels):
        raise InvalidValue(
            f"{ICNET_TRUNK} sets its strides, dilation, first layers and maps itself, got {config}; leave away all but "
            "name, weights and in_channels"
        )
    if config.weights != "none" and (width != _TIMM_WIDTH or merged):
        raise InvalidValue(
            f"weights {config.weights!r} are those of a ResNet-50 of width {_TIMM_WIDTH} with batch norms, the trunk "
            f"has width {width}{' and none' if merged else ''}; take weights 'none', and start from a pruned model or "
            "an imported checkpoint"
        )
    trunk = ICNetTrunk(config, width=width, stride_on_1x1=stride_on_1x1, merged=merged, norm_momentum=norm_momentum)
    for layer in trunk.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    if config.weights != "none":
        _fill(trunk, config)
    return trunk


def _fill(trunk: ICNetTrunk, config: BackboneConfig) -> None:
    source = create_backbone(replace(config, name="resnet50", stem="deep64", num_stages=4))
    trunk.load_state_dict({_own_name(key): value for key, value in source.net.state_dict().items()})
    trunk.preprocessing = source.preprocessing
    trunk.notes = source.notes


def _own_name(key: str) -> str:
    for pattern, replacement in _TIMM_RULES:
        key = re.sub(pattern, replacement, key)
    return key


def _halved(x: Tensor) -> Tensor:
    """Every second pixel: aligned corners bring n = 2m + 1 of them to m + 1."""
    height, width = x.shape[-2:]
    return resize(x, ((height + 1) // 2, (width + 1) // 2), align_corners=True)
