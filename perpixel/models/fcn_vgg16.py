"""FCN-32s, -16s and -8s on VGG16 (Long et al., CVPR 2015, arXiv:1411.4038; Shelhamer et al., PAMI, arXiv:1605.06211).

VGG16's fully connected layers as convolutions, class scores at stride 32, and learnable or fixed bilinear
deconvolutions up to the image's size; FCN-16s adds scores of pool4, FCN-8s of pool3 as well (figure 3).

Shapes: B batch, C channels, H W image, h w feature map, K classes.
The form is the authors' release: ``padding="pad100"`` pads the image by 100 pixels, so that fc6 fits any image, and
crops each map where the coordinates of the layers say. ``padding="same"`` keeps sizes in every layer, which takes half
the work on a 500x500 image; borders then differ, and weights trained in one form are not equal in the other.
Differs from the paper: all deconvolutions are fixed, as in the release; the paper learns all but the last
(``learn_upsampling="inner"``). The factors of the form trained at once are in the release, not in the paper of 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from perpixel.backbones import VGG16, FullyConnected, VGG16Layout
from perpixel.errors import InvalidValue
from perpixel.layers.bilinear_deconv import BilinearDeconv
from perpixel.models.network import Network
from perpixel.types import SegOutput, Term

__all__ = ["FCNVGG16", "FCNVGG16Config", "ScoreLayer"]

_STRIDES = (32, 16, 8)
_PAD = 100
_POOL4_OFFSET = 5
_POOL3_OFFSET = 9
_IMAGE_OFFSETS = {32: 19, 16: 27, 8: 31}
"""Cells to leave away at the top and left of the padded form: the shift that the layers add up to."""
_POOL4_SCALE = 0.01
_POOL3_SCALE = 0.0001
_FIELD_OF_FC7 = 404
"""Pixels: 212 of pool5, and six more cells of it at stride 32."""


@dataclass(frozen=True, kw_only=True)
class FCNVGG16Config:
    """Which FCN, in which form, and how wide.

    Raises:
        InvalidValue: a choice is unknown, a width not positive, the dropout no probability below 1, or an option is
            of a network with another stride.
    """

    stride: Literal[32, 16, 8] = 8
    """Of the finest scores: 32 reads fc7 alone, 16 pool4 too, 8 pool3 as well."""
    at_once: bool = False
    """For stride 8 trained in one stage: pool4 is multiplied by 0.01 and pool3 by 0.0001 before they are scored."""
    padding: Literal["pad100", "same"] = "pad100"
    upscore_bias: bool = False
    """The first of several deconvolutions has a bias (sadeepj's port and CRF-as-RNN)."""
    width: int = 64
    """Channels of VGG16's first block."""
    fc_width: int = 4096
    dropout: float = 0.5
    """Probability of dropping one value behind fc6 and fc7."""
    learn_upsampling: Literal["none", "inner", "all"] = "none"
    """Deconvolutions that train; the others need no gradient. ``inner``: all but the last one."""

    def __post_init__(self) -> None:
        choices = {"stride": _STRIDES, "padding": ("pad100", "same"), "learn_upsampling": ("none", "inner", "all")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InvalidValue(f"{name} of FCN is one of {allowed}, got {getattr(self, name)!r}")
        if self.at_once and self.stride != 8:
            raise InvalidValue(f"at_once is of the FCN of stride 8, got stride {self.stride}")
        if self.upscore_bias and self.stride == 32:
            raise InvalidValue("upscore_bias is of the FCN of stride 16 or 8: with stride 32 there is no upscore2")
        if self.width < 1 or self.fc_width < 1:
            raise InvalidValue(f"FCN widths must be >= 1, got {self.width} and {self.fc_width}")
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")

    @property
    def layout(self) -> VGG16Layout:
        """The VGG16 that this network stands on."""
        padded = self.padding == "pad100"
        return VGG16Layout(
            width=self.width,
            first_padding=_PAD if padded else None,
            fully_connected=FullyConnected(padding=0 if padded else 3, width=self.fc_width),
        )

    @classmethod
    def small(cls) -> FCNVGG16Config:
        """A tiny preset for tests and tables."""
        return cls(padding="same", width=8, fc_width=32, dropout=0.1)


class FCNVGG16(Network):
    """Class scores of VGG16's layers, coarse to fine, enlarged and added; the layers bear the release's names.

    Score layers begin with zeros, so that each new one leaves the scores of the stage before as they are.

    Raises:
        InvalidValue: the trunk is built in another layout than the configuration's.
    """

    config: FCNVGG16Config
    backbone: VGG16

    def __init__(self, trunk: VGG16, num_classes: int, config: FCNVGG16Config | None = None) -> None:
        config = config or FCNVGG16Config()
        super().__init__(config, num_classes, preprocessing=trunk.preprocessing, logit_stride=1, align_corners=False)
        if trunk.layout != config.layout:
            raise InvalidValue(f"FCN's vgg16 needs the configuration's layout, {config.layout}, got {trunk.layout}")
        self.backbone = trunk
        # The deconvolutions mix two neighbouring cells of fc7 along each axis, or three where there are several.
        self.receptive_field = _FIELD_OF_FC7 + 32 * (1 if config.stride == 32 else 2)
        self.drop6 = nn.Dropout(config.dropout)
        self.drop7 = nn.Dropout(config.dropout)
        self.score_fr = ScoreLayer(config.fc_width, num_classes)
        if config.stride == 32:
            self.upscore = self._deconv(32, last=True)
            return
        self.upscore2 = self._deconv(2, bias=config.upscore_bias)
        self.score_pool4 = ScoreLayer(trunk.channels[3], num_classes, _POOL4_SCALE if config.at_once else 1.0)
        if config.stride == 16:
            self.upscore16 = self._deconv(16, last=True)
            return
        self.upscore_pool4 = self._deconv(2)
        self.score_pool3 = ScoreLayer(trunk.channels[2], num_classes, _POOL3_SCALE if config.at_once else 1.0)
        self.upscore8 = self._deconv(8, last=True)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H, W)."""
        _, _, pool3, pool4, pool5 = self.backbone(images)
        fc6 = self.drop6(self.backbone.fc6(pool5).relu())
        fc7 = self.drop7(self.backbone.fc7(fc6).relu())
        scores = self.score_fr(fc7)  # (B, K, ~H/32, ~W/32)
        if self.config.stride == 32:
            return SegOutput(self._cropped(self.upscore(scores), images))
        scores = self._added(self.upscore2(scores), self.score_pool4(pool4), _POOL4_OFFSET)  # ~H/16
        if self.config.stride == 16:
            return SegOutput(self._cropped(self.upscore16(scores), images))
        scores = self._added(self.upscore_pool4(scores), self.score_pool3(pool3), _POOL3_OFFSET)  # ~H/8
        return SegOutput(self._cropped(self.upscore8(scores), images))

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy summed over the pixels, for which the published learning rates are made (release)."""
        return (Term(name="main", reduction="sum"),)

    def _deconv(self, stride: int, *, last: bool = False, bias: bool = False) -> BilinearDeconv:
        learned = self.config.learn_upsampling
        return BilinearDeconv(
            self.num_classes,
            stride,
            padding=0 if self.config.padding == "pad100" else stride // 2,
            bias=bias,
            fixed=learned == "none" or (learned == "inner" and last),
        )

    def _added(self, coarse: Tensor, fine: Tensor, offset: int) -> Tensor:
        """Adds two maps of (B, K, h, w): padded, the finer one reaches further; else the coarser, by its rounding."""
        if self.config.padding == "pad100":
            return coarse + _window(fine, coarse, offset)
        return _window(coarse, fine, 0) + fine

    def _cropped(self, scores: Tensor, images: Tensor) -> Tensor:
        offset = _IMAGE_OFFSETS[self.config.stride] if self.config.padding == "pad100" else 0
        return _window(scores, images, offset)


class ScoreLayer(nn.Module):
    """A fixed factor and a 1x1 convolution that begins with zeros: (B, C, h, w) -> (B, K, h, w)."""

    def __init__(self, in_channels: int, num_classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.classifier = nn.Conv2d(in_channels, num_classes, 1)
        nn.init.zeros_(self.classifier.weight)
        if self.classifier.bias is not None:
            nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(x if self.scale == 1 else x * self.scale)
        return scores


def _window(x: Tensor, like: Tensor, offset: int) -> Tensor:
    """Cuts a map to the height and width of another, beginning ``offset`` cells from the top and left."""
    height, width = like.shape[-2:]
    return x[..., offset : offset + height, offset : offset + width]
