"""U-Net with padded convolutions and batch norm, the form that most people train (Ronneberger et al., MICCAI 2015).

The paper (arXiv:1505.04597) has valid convolutions and no norm: that network is models/unet_original.py. This one is
the exact function of milesial/Pytorch-UNet: logits of the image's own size, at any size.

Shapes: B batch, C channels, H W image, K classes, w_i width of level i, whose maps have stride 2**i.
Both forms of the public code: ``deconvolution`` (a 2x2 deconvolution halves the channels) and ``bilinear`` (upsampling
with aligned corners; the deepest level holds half its width, and each block narrows in its middle instead).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.errors import InvalidValue
from perpixel.layers import ConvNormAct
from perpixel.models.network import Network
from perpixel.ops import resize
from perpixel.types import Preprocessing, SegOutput, Term

__all__ = ["DoubleConv", "UNet", "UNetConfig", "UpStage"]

Upsampling = Literal["deconvolution", "bilinear"]


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Image channels, the widths of the levels and how maps are upsampled.

    Raises:
        InvalidValue: a number is not positive, there are fewer than two levels, the widths cannot be halved where they
            must be, or the upsampling is unknown.
    """

    in_channels: int = 3
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Channels of each level, finest first; ``bilinear`` gives the last one half of its number."""
    upsampling: Upsampling = "deconvolution"
    biased: bool = False
    """Biases in the 3x3 convolutions, as checkpoints from before the public code dropped them have."""

    def __post_init__(self) -> None:
        if self.in_channels < 1:
            raise InvalidValue(f"UNet in_channels must be >= 1, got {self.in_channels}")
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise InvalidValue(f"UNet widths are two or more positive numbers, finest level first; got {self.widths}")
        odd = [width for width in self.widths[1:] if width % 2]
        if odd:
            raise InvalidValue(f"every UNet width but the first is halved on the way up and must be even, got {odd[0]}")
        if self.upsampling not in ("deconvolution", "bilinear"):
            raise InvalidValue(f"UNet upsampling is 'deconvolution' or 'bilinear', got {self.upsampling!r}")

    @property
    def depth(self) -> int:
        """Number of poolings."""
        return len(self.widths) - 1

    @classmethod
    def small(cls) -> UNetConfig:
        """A tiny preset for tests and tables."""
        return cls(widths=(8, 16, 16))


class UNet(Network):
    """Contracting path, expanding path with the skipped maps, 1x1 classifier.

    31,037,698 parameters with three image channels and two classes (deconvolution), 17,263,042 (bilinear).
    ``receptive_field`` of the bilinear form is an upper bound: where it reads depends on the image's size.
    The layers keep PyTorch's initialisation, as the public code's do.
    """

    config: UNetConfig

    def __init__(self, num_classes: int, config: UNetConfig | None = None) -> None:
        config = config or UNetConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=Preprocessing(mean=(0.0,) * config.in_channels, std=(1.0,) * config.in_channels),
            logit_stride=1,
            align_corners=False,
            minimum_size=2 ** (config.depth + 1),
        )
        self.receptive_field = _receptive_field(config)
        bilinear = config.upsampling == "bilinear"
        widths = [*config.widths[:-1], config.widths[-1] // (2 if bilinear else 1)]
        self.down = nn.ModuleList(
            DoubleConv(channels, width, width, bias=config.biased)
            for channels, width in zip((config.in_channels, *widths[:-1]), widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        outs = [width // 2 if bilinear and level else width for level, width in enumerate(widths[:-1])]
        self.up = nn.ModuleList(
            UpStage(below, skipped, out, bilinear=bilinear, bias=config.biased)
            for below, skipped, out in zip((*outs[1:], widths[-1]), widths[:-1], outs, strict=True)
        )
        self.classifier = nn.Conv2d(outs[0], num_classes, 1)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H, W).

        Raises:
            InvalidValue: a side is too short for the poolings, which halve it ``depth`` times.
        """
        height, width = images.shape[-2:]
        least = 2**self.config.depth
        if height < least or width < least:
            raise InvalidValue(
                f"U-Net with {self.config.depth} poolings takes images of at least {least} x {least} pixels, got "
                f"{height} x {width}; the Segmenter pads smaller ones"
            )
        skipped: list[Tensor] = []
        x = images
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)  # (B, w_i, H / 2**i, W / 2**i), rounded down
            skipped.append(x)
        for level in reversed(range(self.config.depth)):
            x = self.up[level](x, skipped[level])
        logits: Tensor = self.classifier(x)
        return SegOutput(logits)

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy plus Dice with one sum over batch, pixels and all classes: milesial's loss, not the paper's."""
        return Term(name="main"), Term(name="dice", loss="dice", options={"classes": "pooled", "smooth": 1e-6})


class DoubleConv(nn.Module):
    """Two 3x3 convolution blocks: (B, C, h, w) -> (B, C', h, w)."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, *, bias: bool) -> None:
        super().__init__()
        self.first = ConvNormAct(in_channels, hidden, 3, bias=bias)
        self.second = ConvNormAct(hidden, out_channels, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))
        return out


class UpStage(nn.Module):
    """Doubles a map, puts the skipped map before it and fuses both.

    Args:
        below: Channels of the coarser map.
        skipped: Channels of the map from the contracting path.
        out_channels: Channels that leave the stage.
        bilinear: Upsample without parameters; the fusing block then narrows to half of its input in its middle.
        bias: Of the 3x3 convolutions.
    """

    def __init__(self, below: int, skipped: int, out_channels: int, *, bilinear: bool, bias: bool) -> None:
        super().__init__()
        self.upsample = None if bilinear else nn.ConvTranspose2d(below, below // 2, 2, stride=2)
        channels = skipped + (below if bilinear else below // 2)
        self.fuse = DoubleConv(channels, channels // 2 if bilinear else out_channels, out_channels, bias=bias)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        """Maps (B, C, h, w) and (B, w_i, H, W), h = H // 2, to (B, C', H, W); an odd side is filled with a zero."""
        height, width = x.shape[-2:]
        x = resize(x, (2 * height, 2 * width), align_corners=True) if self.upsample is None else self.upsample(x)
        rows, columns = skipped.shape[-2] - 2 * height, skipped.shape[-1] - 2 * width
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return cast("Tensor", self.fuse(torch.cat([skipped, x], dim=1)))


def _receptive_field(config: UNetConfig) -> int:
    """Side of the widest image region that one logit sees, over the 2**depth places that a logit can have."""
    reach = 1 if config.upsampling == "bilinear" else 0  # cells that bilinear upsampling reads beside its own
    widest = 0
    for position in range(2**config.depth):
        first = last = position
        for _ in range(config.depth):
            first, last = (first - 2) // 2 - reach, (last + 2) // 2 + reach  # two 3x3 convolutions, the cells below
        first, last = first - 2, last + 2
        for _ in range(config.depth):
            first, last = 2 * first - 2, 2 * last + 1 + 2  # the pooled cells, two 3x3 convolutions
        widest = max(widest, last - first + 1)
    return widest
