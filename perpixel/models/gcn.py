"""GCN, large kernels and boundary refinement (Peng et al., CVPR 2017, arXiv:1703.02719, section 3, figure 2).

Every stage of a ResNet is scored by a pair of large separable kernels (the global convolutional network), because
classification wants as dense a connection to the whole object as a fully connected layer has; residual blocks sharpen
the borders of the scores (boundary refinement), and the scores of coarse stages are enlarged and added to finer ones.
All maps behind the backbone have one channel per class.

Shapes: B batch, C channels, H W image, K classes, k kernel size; backbone stages at strides 4, 8, 16, 32.
The authors published no code. The blocks and their order are those of two ports (zijundeng's and yassouali's), which
agree on them; the ports enlarge bilinearly with aligned corners, the paper by learned deconvolution. The size of the
paper's deconvolution kernel is not known here: 3, yassouali's, is taken. Differs from both ports in that sizes follow
the backbone's maps and any image size works.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from perpixel.backbones import Backbone
from perpixel.errors import InvalidValue
from perpixel.layers import init_new_layers
from perpixel.layers.bilinear_deconv import BilinearDeconv
from perpixel.models.network import Network
from perpixel.ops import resize
from perpixel.types import SegOutput, Term

__all__ = ["GCN", "BoundaryRefinement", "GCNConfig", "GlobalConvolution"]

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class GCNConfig:
    """Kernels, the ablation of boundary refinement, how scores are enlarged, and the ports' alternative forms.

    Raises:
        InvalidValue: a large kernel is even or not positive, a choice is unknown, or deconvolution is asked to do what
            a doubling cannot.
    """

    kernel_sizes: tuple[int, ...] = (15,)
    """k of the large kernels, odd: one per stage, coarsest first, or one for all. 15 for crops of 512 pixels (VOC), 25
    for 800 (Cityscapes): about the coarsest map's size."""
    refinement: bool = True
    """Off: no boundary refinement (the paper's ablation)."""
    upsampling: Literal["deconvolution", "bilinear"] = "deconvolution"
    deconvolution_kernel: int = 3
    """Side of the kernels that double; begins as bilinear interpolation."""
    deconvolution_crop: Literal["end", "start"] = "end"
    """Which rows and columns go where a finer map has an odd size: ``end`` keeps cells in place, ``start`` is
    yassouali's."""
    align_corners: bool = True
    """Of bilinear enlargement; both ports align corners."""
    half_scale: bool = True
    """Refine at half the image's size too, on the way to the whole; False is yassouali's bilinear form, which goes from
    a quarter to the whole at once."""
    final_convolution: bool = False
    """A 1x1 convolution behind everything (yassouali's)."""

    def __post_init__(self) -> None:
        if not self.kernel_sizes or any(k < 1 or k % 2 == 0 for k in self.kernel_sizes):
            raise InvalidValue(f"GCN kernel_sizes are odd, to keep sizes, got {list(self.kernel_sizes)}")
        if self.upsampling not in ("deconvolution", "bilinear"):
            raise InvalidValue(f"GCN upsampling is 'deconvolution' or 'bilinear', got {self.upsampling!r}")
        if self.deconvolution_crop not in ("end", "start"):
            raise InvalidValue(f"GCN deconvolution_crop is 'end' or 'start', got {self.deconvolution_crop!r}")
        if self.deconvolution_kernel < 2:
            raise InvalidValue(f"deconvolution_kernel must be >= 2 to double a map, got {self.deconvolution_kernel}")
        if self.upsampling == "deconvolution" and not self.half_scale:
            raise InvalidValue("half_scale=False leaves a step of 4, which is for bilinear upsampling alone")

    @classmethod
    def small(cls) -> GCNConfig:
        """A tiny preset for tests and tables."""
        return cls(kernel_sizes=(3,))


class GCN(Network):
    """Large kernels on every stage of the backbone, boundary refinement, sums from coarse to fine.

    ``logits`` have the image's own size: the last enlargement is followed by refinement. There is nothing in ``deep``.
    """

    config: GCNConfig
    backbone: Backbone

    def __init__(self, backbone: Backbone, num_classes: int, config: GCNConfig | None = None) -> None:
        config = config or GCNConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=1,
            align_corners=config.align_corners,
            minimum_size=2 * backbone.strides[-1],
        )
        self.backbone = backbone
        channels = backbone.channels[::-1]
        kernels = config.kernel_sizes * (len(channels) if len(config.kernel_sizes) == 1 else 1)
        if len(kernels) != len(channels):
            raise InvalidValue(
                f"GCN kernel_sizes has {len(kernels)} numbers, the backbone {len(channels)} stages: give one per "
                "stage, coarsest first, or one for all"
            )
        self.stages = nn.ModuleList(
            nn.Sequential(GlobalConvolution(inside, num_classes, k), _refinement(num_classes, config))
            for inside, k in zip(channels, kernels, strict=True)
        )
        # Behind each sum of two stages, at half the image's size, and at the whole.
        self.refine = nn.ModuleList(_refinement(num_classes, config) for _ in range(len(channels) + 1))
        self.classifier = nn.Conv2d(num_classes, num_classes, 1) if config.final_convolution else None
        init_new_layers(self.stages)
        init_new_layers(self.refine)
        factors = _factors(backbone.strides, config)
        self.enlarge = (
            nn.ModuleList(_doubling(num_classes, factor, config) for factor in factors)
            if config.upsampling == "deconvolution"
            else None
        )

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H, W)."""
        features = self.backbone(images)
        height, width = images.shape[-2:]
        x: Tensor = self.stages[0](features[-1])
        for step, feature in enumerate(reversed(features[:-1])):
            x = self._enlarged(x, step, (feature.shape[-2], feature.shape[-1]))
            x = self.refine[step](x + self.stages[step + 1](feature))  # (B, K, h_i, w_i)
        last = len(features)
        if self.config.half_scale:
            x = self._enlarged(x, last - 1, ((height + 1) // 2, (width + 1) // 2))
        x = self.refine[last - 1](x)  # (B, K, H/2, W/2), rounded up
        x = self.refine[last](self._enlarged(x, last, (height, width)))  # (B, K, H, W)
        return SegOutput(x if self.classifier is None else self.classifier(x))

    def _enlarged(self, x: Tensor, step: int, size: Size) -> Tensor:
        if self.enlarge is None:
            return resize(x, size, align_corners=self.config.align_corners)
        x = self.enlarge[step](x)
        height, width = size
        if self.config.deconvolution_crop == "end":
            return x[..., :height, :width]
        return x[..., x.shape[-2] - height :, x.shape[-1] - width :]

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Sizes over which every step doubles exactly, as in training crops.

        Bilinear enlargement with aligned corners is used as published, at any size.
        """
        height, width = super().valid_size(height, width)
        if self.enlarge is None and self.align_corners:
            return height, width
        stride: int = self.backbone.strides[-1]
        return -(-height // stride) * stride, -(-width // stride) * stride

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy at the image's resolution."""
        return (Term(name="main"),)


class GlobalConvolution(nn.Module):
    """k x 1 then 1 x k, plus 1 x k then k x 1, nothing between: (B, C, h, w) -> (B, K, h, w) (figure 2B).

    A dense k x k neighbourhood is reached with O(k) instead of O(k²) weights.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.vertical_first = _separable(in_channels, out_channels, (kernel_size, 1))
        self.horizontal_first = _separable(in_channels, out_channels, (1, kernel_size))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.vertical_first(x) + self.horizontal_first(x)
        return out


class BoundaryRefinement(nn.Module):
    """BR: x + conv3x3(relu(conv3x3(x))), biased and without norm: (B, K, h, w) -> (B, K, h, w) (figure 2C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.residual(x)
        return out


def _separable(in_channels: int, out_channels: int, kernel: Size) -> nn.Sequential:
    """The kernel, then the same one turned."""
    turned = kernel[::-1]
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=(kernel[0] // 2, kernel[1] // 2)),
        nn.Conv2d(out_channels, out_channels, turned, padding=(turned[0] // 2, turned[1] // 2)),
    )


def _refinement(channels: int, config: GCNConfig) -> nn.Module:
    return BoundaryRefinement(channels) if config.refinement else nn.Identity()


def _factors(strides: tuple[int, ...], config: GCNConfig) -> list[int]:
    """By how much each step enlarges, coarsest first.

    Raises:
        InvalidValue: half the image's size is finer than a doubling reaches, or deconvolution meets another step.
    """
    if config.half_scale and strides[0] == 1:
        raise InvalidValue(
            "half_scale refines at stride 2, but the backbone's finest map has stride 1; set it to False"
        )
    factors = [coarse // fine for fine, coarse in reversed([*pairwise(strides)])]
    factors += [strides[0] // 2, 2] if config.half_scale else [1, strides[0]]
    if config.upsampling == "deconvolution" and not set(factors) <= {1, 2}:
        raise InvalidValue(
            f"deconvolution doubles, but with the backbone's strides {list(strides)} the steps are {factors}; "
            "take upsampling='bilinear' or another backbone"
        )
    return factors


def _doubling(channels: int, factor: int, config: GCNConfig) -> nn.Module:
    if factor == 1:
        return nn.Identity()
    kernel = config.deconvolution_kernel
    return BilinearDeconv(channels, 2, kernel_size=kernel, padding=(kernel - 1) // 2, output_padding=kernel % 2)
