"""U-Net as published: valid convolutions, no norm, no padding (Ronneberger et al., MICCAI 2015, arXiv:1505.04597).

Five levels of two valid 3x3 convolutions with ReLU (section 2, figure 1); a 2x2 deconvolution halves the channels on
the way up, and its map stands before the centre crop of the skipped one. An image of 16k + 60 pixels gives logits of
16k - 124: a border of 92 pixels (``margin``) is lost on each side, and k >= 8.

Shapes: B batch, C channels, H W image, K classes, w base width.
Two forms. ``paper``: figure 1. ``released``: the Caffe network that the authors published (phseg_v5), which has a ReLU
behind each deconvolution and keeps 2w channels in the last one. Dropout follows the ReLU that ends the two deepest
levels; the skipped map of the last but one carries it too, as in the released network (the paper only names the end of
the contracting path).
Not verified: the images' scale. They are divided by 255, as the released test script does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from perpixel.errors import InvalidValue
from perpixel.layers import init_new_layers
from perpixel.models.network import Network
from perpixel.types import Preprocessing, SegOutput, Term

__all__ = ["OriginalUNet", "OriginalUNetConfig", "ValidDoubleConv", "ValidUpStage"]

_DEPTH = 4
_PERIOD = 1 << _DEPTH
_OFFSET = 60
_SMALLEST = 8 * _PERIOD + _OFFSET


@dataclass(frozen=True, kw_only=True)
class OriginalUNetConfig:
    """Image channels, base width and which of the two published forms.

    Raises:
        InvalidValue: a number is out of range or the form is unknown.
    """

    in_channels: int = 1
    width: int = 64
    """Channels of the finest level; each level below has twice as many."""
    form: Literal["paper", "released"] = "paper"
    dropout: float = 0.5
    """Probability of dropping a value at the end of the two deepest levels."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "width"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"OriginalUNet {name} must be >= 1, got {getattr(self, name)}")
        if self.form not in ("paper", "released"):
            raise InvalidValue(f"OriginalUNet form is 'paper' or 'released', got {self.form!r}")
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")

    @classmethod
    def small(cls) -> OriginalUNetConfig:
        """A tiny preset for tests and tables."""
        return cls(in_channels=3, width=16, dropout=0.0)


class OriginalUNet(Network):
    """The valid-convolution U-Net; logits cover the image less 92 pixels on each side.

    A logit sees 188 or 204 pixels of the image per side, depending on where it lies among the pooled cells.
    31,030,658 parameters with one image channel and two classes (paper), 31,100,354 (released).
    Weights start from N(0, 2 / N), N the incoming weights of a unit (section 3), biases from zero.
    """

    config: OriginalUNetConfig
    margin = 92
    receptive_field = 204

    def __init__(self, num_classes: int, config: OriginalUNetConfig | None = None) -> None:
        config = config or OriginalUNetConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=Preprocessing(mean=(0.0,) * config.in_channels, std=(1.0,) * config.in_channels),
            logit_stride=1,
            align_corners=False,
            minimum_size=_SMALLEST,
        )
        widths = [config.width * 2**level for level in range(_DEPTH + 1)]
        released = config.form == "released"
        self.down = nn.ModuleList(
            ValidDoubleConv(channels, width)
            for channels, width in zip((config.in_channels, *widths[:-1]), widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(config.dropout)
        self.up = nn.ModuleList(
            ValidUpStage(2 * width, 2 * width if released and level == 0 else width, width, relu=released)
            for level, width in enumerate(widths[:-1])
        )
        self.classifier = nn.Conv2d(config.width, num_classes, 1)
        init_new_layers(self)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W), both sides 16k + 60 with k >= 8, to logits (B, K, H - 184, W - 184).

        Raises:
            InvalidValue: a side is of another length; names the nearest lengths that the network takes.
        """
        for side in images.shape[-2:]:
            _check_side(int(side))
        skipped: list[Tensor] = []
        x = images
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            if level >= _DEPTH - 1:
                x = self.dropout(x)
            skipped.append(x)
        for level in reversed(range(_DEPTH)):
            x = self.up[level](x, skipped[level])
        logits: Tensor = self.classifier(x)
        return SegOutput(logits)

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the least size 16k + 60, k >= 8, that holds (height, width)."""
        return _next_side(height), _next_side(width)

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy weighted by class frequency and by closeness to two cells (equations 1 and 2).

        w0 = 10 and sigma = 5 pixels as published. Class 0 is the background. Not verified: the form of the class
        weights (here inverse frequency in the label map) and whether the border term holds in the background alone
        (here it does). The paper sums over pixels; the mean is taken here, since it states no learning rate.
        """
        return (Term(name="main", loss="distance_weighted"),)


class ValidDoubleConv(nn.Module):
    """Two valid 3x3 convolutions with ReLU: (B, C, h, w) -> (B, C', h - 4, w - 4)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3)
        self.second = nn.Conv2d(out_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))))


class ValidUpStage(nn.Module):
    """Doubles a map by a 2x2 deconvolution, appends the centre of the skipped map and fuses both.

    Args:
        below: Channels of the coarser map.
        upsampled: Channels that the deconvolution gives.
        width: Channels of the skipped map and of the result.
        relu: Whether a ReLU follows the deconvolution.
    """

    def __init__(self, below: int, upsampled: int, width: int, *, relu: bool) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(below, upsampled, 2, stride=2)
        self.fuse = ValidDoubleConv(upsampled + width, width)
        self.relu = relu

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        """Maps (B, 2w, h, w) and the larger skipped map (B, w, H, W) to (B, w, 2h - 4, 2w - 4)."""
        x = self.upsample(x)
        if self.relu:
            x = torch.relu(x)
        height, width = x.shape[-2:]
        top, left = (skipped.shape[-2] - height) // 2, (skipped.shape[-1] - width) // 2
        centre = skipped[..., top : top + height, left : left + width]
        return cast("Tensor", self.fuse(torch.cat([x, centre], dim=1)))


def _next_side(side: int) -> int:
    return max(_SMALLEST, -(-(side - _OFFSET) // _PERIOD) * _PERIOD + _OFFSET)


def _check_side(side: int) -> None:
    fitting = _next_side(side)
    if side == fitting:
        return
    nearest = str(fitting) if fitting == _SMALLEST else f"{fitting - _PERIOD} and {fitting}"
    raise InvalidValue(
        f"the original U-Net takes sides of 16k + 60 pixels, k >= 8, and got {side}; the nearest it takes: {nearest}. "
        "The Segmenter pads to such a size by itself; set data.crop_size to one for training"
    )
