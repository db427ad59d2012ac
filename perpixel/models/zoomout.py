"""Zoom-out features (Mostajabi, Yadollahpour & Shakhnarovich, CVPR 2015, arXiv:1412.0774).

A small region is described by what a network sees in nested regions around it, from itself to the whole image, and
classified by a small feedforward network under a loss in which every class counts alike. Nothing else is structured.

Shapes: B batch, C channels, H W image, K classes, S regions, D features of a region.
Features of a region, with the widths of VGG16 (D = 4,224 + 4,096 + 4,096 = 12,416, the number of the specification):

=================== ============================================================= ======
extent              features                                                      number
=================== ============================================================= ======
region, proximity   each of the 13 convolutions' maps, upsampled, region's mean   4,224
sub-scene           fc7 in the box around the neighbours up to 3 borders away     4,096
scene               fc7's mean over the image                                     4,096
=================== ============================================================= ======

Parameters, derived by hand for K = 21: VGG16 with fc6 and fc7 134,260,544; classifier 12416·1024 + 1024, twice
1024·1024 + 1024, 1024·21 + 21, together 14,835,733; in all 149,096,277.

Named differences: the paper (as recalled) cuts each of 500 sub-scenes out of the image and runs the network on it; here
fc6 and fc7 stand on as convolutions and the box is averaged over their map (one pass instead of 501). Features are
standardised by the mean and deviation over all training regions; here these are gathered while training. Pixels of a
region share its scores, so that the loss counts a region by its pixels.
Recalled or assumed, not verified, hence options: 500 regions, compactness, reach of the sub-scene, hidden widths (the
Torch release has four layers) and dropout. There is no reference vector.
`torch.export` of the superpixel form is not offered: pieces of regions are joined in loops whose length depends on the
image. With ``regions="pixels"``, which works on the cells of a grid, it exports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from perpixel.backbones import VGG16, FullyConnected, VGG16Layout
from perpixel.errors import InvalidValue
from perpixel.layers import init_new_layers
from perpixel.models.network import Network
from perpixel.ops.resize import average_to, resize
from perpixel.ops.superpixels import neighbourhood_boxes, region_means, rgb_to_lab, slic, superpixel_grid
from perpixel.types import SegOutput, Term

__all__ = ["RunningStandardization", "ZoomOut", "ZoomOutConfig", "box_means"]

_CONVS_PER_BLOCK = (2, 2, 3, 3, 3)


@dataclass(frozen=True, kw_only=True)
class ZoomOutConfig:
    """What is classified, from which extents, by how large a classifier.

    Raises:
        InvalidValue: a choice is unknown or a number out of range.
    """

    regions: Literal["superpixels", "pixels"] = "superpixels"
    """``pixels``: the cells of a grid of ``stride`` pixels."""
    stride: int = 4
    """Of that grid."""
    num_superpixels: int = 500
    compactness: float = 10.0
    sub_scene: bool = True
    scene: bool = True
    sub_scene_hops: int = 3
    """Borders between a region and the farthest neighbours in its sub-scene; grid cells take fc7 where they lie."""
    hidden: tuple[int, ...] = (1024, 1024, 1024)
    dropout: float = 0.5
    """Behind each hidden layer."""
    width: int = 64
    """Channels of VGG16's first block."""
    fc_width: int = 4096

    def __post_init__(self) -> None:
        if self.regions not in ("superpixels", "pixels"):
            raise InvalidValue(f"regions is 'superpixels' or 'pixels', got {self.regions!r}")
        if min(self.stride, self.num_superpixels, self.width, self.fc_width, *self.hidden) < 1:
            raise InvalidValue(
                f"Zoom-out numbers must be >= 1, got stride {self.stride}, num_superpixels {self.num_superpixels}, "
                f"hidden {self.hidden}, width {self.width}, fc_width {self.fc_width}"
            )
        if not self.compactness > 0 or self.sub_scene_hops < 0:
            raise InvalidValue(
                f"compactness must be > 0 and sub_scene_hops >= 0, got {self.compactness} and {self.sub_scene_hops}"
            )
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")

    @classmethod
    def small(cls) -> ZoomOutConfig:
        """A tiny preset for tests and tables."""
        return cls(regions="pixels", hidden=(32,), dropout=0.0, width=8, fc_width=32)

    @property
    def layout(self) -> VGG16Layout:
        """VGG16 whose fc6 is padded, so that its map covers the image."""
        return VGG16Layout(width=self.width, fully_connected=FullyConnected(padding=3, width=self.fc_width))


class ZoomOut(Network):
    """Classifies regions and gives each pixel the scores of its region; there is no ``deep`` output."""

    config: ZoomOutConfig
    backbone: VGG16

    def __init__(self, trunk: VGG16, num_classes: int, config: ZoomOutConfig | None = None) -> None:
        config = config or ZoomOutConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=trunk.preprocessing,
            logit_stride=1 if config.regions == "superpixels" else config.stride,
            align_corners=False,
            minimum_size=32,
        )
        self.backbone = trunk
        local = sum(convs * width for convs, width in zip(_CONVS_PER_BLOCK, trunk.channels, strict=True))
        features = local + config.fc_width * (config.sub_scene + config.scene)
        self.standardize = RunningStandardization(features)
        layers: list[nn.Module] = []
        for width in config.hidden:
            layers += [nn.Conv2d(features, width, 1), nn.ReLU(), nn.Dropout(config.dropout)]
            features = width
        self.hidden = nn.Sequential(*layers)
        self.classifier = nn.Conv2d(features, num_classes, 1)
        init_new_layers(self.hidden)

    def forward(self, images: Tensor, regions: Tensor | None = None) -> SegOutput:
        """Maps images (B, C, H, W) to logits: (B, K, H, W), or one per cell of the grid.

        Args:
            images: Normalised.
            regions: (B, H, W) int64 from 0: what to classify, instead of this network's own superpixels.
        """
        maps = self._convolutions(images)
        fc7 = torch.relu(self.backbone.fc7(torch.relu(self.backbone.fc6(self.backbone.pool(5, maps[-1])))))
        if self.config.regions == "pixels" and regions is None:
            return SegOutput(self._classify(self._grid_features(images, maps, fc7)))
        if regions is None:
            regions, number = self.superpixels(images)
        else:
            number = int(regions.max()) + 1
        features, filled = self._region_features(maps, fc7, regions, number)
        scores = self._classify(features[..., None], filled[..., None])[..., 0]  # (B, K, S)
        index = regions.flatten(1)[:, None].expand(-1, self.num_classes, -1)
        return SegOutput(scores.gather(2, index).view(-1, self.num_classes, *images.shape[-2:]))

    @torch.no_grad()
    def superpixels(self, images: Tensor) -> tuple[Tensor, int]:
        """Returns SLIC regions (B, H, W) of normalised images, and how many there may be."""
        height, width = images.shape[-2:]
        stated = self.preprocessing
        mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (stated.mean, stated.std))
        raw = ((images * std + mean) / stated.value_range).clamp(0, 1)
        if stated.channel_order == "bgr":
            raw = raw.flip(1)
        # Other than three channels are brought to the range of L*, so that compactness means the same.
        raw = rgb_to_lab(raw) if raw.shape[1] == 3 else raw * 100
        rows, columns = superpixel_grid(height, width, self.config.num_superpixels)
        regions = slic(raw, num_segments=self.config.num_superpixels, compactness=self.config.compactness)
        return regions, rows * columns

    def default_terms(self) -> tuple[Term, ...]:
        """Softmax loss over the pixels; the stage's ``class_weights`` make it asymmetric, as published.

        The paper weighs each class by one over its frequency and divides by the number of regions, not by the weights.
        """
        return (Term(name="main", options={"normalise": "pixels"}),)

    def _classify(self, features: Tensor, counts: Tensor | None = None) -> Tensor:
        scores: Tensor = self.classifier(self.hidden(self.standardize(features, counts)))
        return scores

    def _convolutions(self, images: Tensor) -> list[Tensor]:
        """The maps of all 13 convolutions, after their ReLU."""
        maps: list[Tensor] = []
        x = images
        for block in range(1, len(_CONVS_PER_BLOCK) + 1):
            maps += self.backbone.each_conv(block, x)
            x = self.backbone.pool(block, maps[-1]) if block < len(_CONVS_PER_BLOCK) else x
        return maps

    def _grid_features(self, images: Tensor, maps: list[Tensor], fc7: Tensor) -> Tensor:
        """Features (B, D, h, w) of the cells of the grid."""
        size = (-(-images.shape[-2] // self.config.stride), -(-images.shape[-1] // self.config.stride))
        parts = [average_to(x, size) if x.shape[-2] > size[0] else resize(x, size, align_corners=False) for x in maps]
        if self.config.sub_scene:
            parts.append(resize(fc7, size, align_corners=False))
        if self.config.scene:
            parts.append(fc7.mean(dim=(2, 3), keepdim=True).expand(-1, -1, *size))
        return torch.cat(parts, dim=1)

    def _region_features(self, maps: list[Tensor], fc7: Tensor, regions: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Features (B, D, S) of the regions, and which of them hold a pixel (B, S)."""
        size = regions.shape[-2:]
        parts = [region_means(resize(x, size, align_corners=False), regions, number) for x in maps]
        if self.config.sub_scene:
            boxes = neighbourhood_boxes(regions, number, hops=self.config.sub_scene_hops)
            parts.append(box_means(fc7, boxes, (size[0], size[1])))
        if self.config.scene:
            parts.append(fc7.mean(dim=(2, 3))[..., None].expand(-1, -1, number))
        pixels = torch.ones_like(regions, dtype=fc7.dtype)[:, None]
        filled = region_means(pixels, regions, number)[:, 0] > 0
        return torch.cat(parts, dim=1), filled


class RunningStandardization(nn.Module):
    """Takes the mean of all vectors seen in training away and divides by their deviation, per feature.

    Unlike batch norm it uses the same numbers in training and after it, and a batch may be one vector. Each process of
    a distributed training gathers its own.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, features: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor, counts: Tensor | None = None) -> Tensor:
        """Maps (B, D, h, w) to the same shape; in training learns from it where ``counts`` (B, h, w) is true."""
        if self.training:
            self._learn(x.detach(), counts)
        mean, variance = self.mean.to(x.dtype), self.variance.to(x.dtype)
        deviation = (variance + self.eps).sqrt()
        return (x - mean[:, None, None]) / deviation[:, None, None]

    def _learn(self, x: Tensor, counts: Tensor | None) -> None:
        weights = torch.ones_like(x[:, :1]) if counts is None else counts[:, None].to(x.dtype)
        new = weights.sum()
        mean = (x * weights).sum(dim=(0, 2, 3)) / new
        variance = ((x - mean[:, None, None]).square() * weights).sum(dim=(0, 2, 3)) / new
        share = (new / (new + self.count)).to(self.mean.dtype)
        step = mean.to(self.mean.dtype) - self.mean
        # Both parts' variances, and that between their means (Chan et al.); before the first vector there is none.
        own = torch.where(self.count > 0, self.variance, 0.0)
        self.variance.copy_((1 - share) * own + share * variance + share * (1 - share) * step.square())
        self.mean.add_(share * step)
        self.count.add_(new.to(self.count.dtype))


def box_means(x: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Averages a map (B, C, h, w) that covers an image of (H, W) pixels over boxes of it: (B, C, S).

    A cell counts by the part of it in the box. ``boxes`` are (B, S, 4): first row and column, one past the last ones.
    """
    y0, x0, y1, x1 = boxes.to(x.dtype).unbind(dim=2)
    rows = _overlaps(y0, y1, size[0], x.shape[2])  # (B, S, h)
    columns = _overlaps(x0, x1, size[1], x.shape[3])
    return torch.einsum("bsi,bsj,bcij->bcs", rows, columns, x)


def _overlaps(first: Tensor, last: Tensor, pixels: int, cells: int) -> Tensor:
    """Share of an interval (B, S) of pixels in each of the equal cells: (B, S, cells)."""
    edges = torch.arange(cells + 1, dtype=first.dtype, device=first.device) * (pixels / cells)
    part = torch.minimum(last[..., None], edges[1:]) - torch.maximum(first[..., None], edges[:-1])
    return part.clamp(min=0) / (last - first)[..., None]
