"""DeconvNet (Noh, Hong, Han, ICCV 2015, arXiv:1505.04366, section 3 and figure 2).

VGG16 with batch norm down to one cell through its fully connected layers, then a mirrored network of deconvolutions and
unpoolings back to the image. 251.8 M parameters for 21 classes.

Shapes: B batch, C channels, H W image, K classes. The graph of the release (HyeonwooNoh/DeconvNet, stage_2_train):
convolutions and deconvolutions with bias, batch norm and ReLU, no dropout. It is made for 224 x 224 pixels, of which
fc6's 7x7 window leaves one cell; larger images give more cells and work too, and of smaller ones those down to 193
(`valid_size`). Differs from the release in that batch norm keeps running averages while it trains (there they are
measured afterwards), and that a single cell of a single image is normalised by them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perpixel.backbones import VGG16, FullyConnected, VGG16Layout
from perpixel.errors import InvalidValue
from perpixel.layers import PooledBatchNorm2d
from perpixel.layers.mirrored_decoder import MirroredDecoder, PooledMap
from perpixel.models.network import Network
from perpixel.types import SegOutput, Term

__all__ = ["DeconvNet", "DeconvNetConfig"]

_DECONVS = {5: 3, 4: 3, 3: 3, 2: 2, 1: 2}
"""Deconvolutions per block, coarsest first."""
_NEW_DEVIATION = 0.01
_NEW_SHIFT = 0.001


@dataclass(frozen=True, kw_only=True)
class DeconvNetConfig:
    """Widths and normalisation.

    Raises:
        InvalidValue: a width or the epsilon is not positive, or the kernel is below 2.
    """

    width: int = 64
    """Channels of the first block; the others have 2, 4, 8 and 8 times as many."""
    fc_width: int = 4096
    """Channels of fc6 and fc7."""
    fc_kernel: int = 7
    """Side of fc6's window, and of the deconvolution that undoes it."""
    norm_eps: float = 1e-9
    """Of all batch norms; 1e-9 in the release."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.fc_width < 1:
            raise InvalidValue(f"DeconvNet widths must be >= 1, got {self.width} and {self.fc_width}")
        if self.fc_kernel < 2:
            raise InvalidValue(f"fc_kernel must be >= 2, got {self.fc_kernel}")
        if not self.norm_eps > 0:
            raise InvalidValue(f"norm_eps must be positive, got {self.norm_eps}")

    @classmethod
    def small(cls) -> DeconvNetConfig:
        """A tiny preset for tests and tables; its window of 2x2 makes one cell of 64 pixels."""
        return cls(width=12, fc_width=64, fc_kernel=2)

    @property
    def layout(self) -> VGG16Layout:
        """The VGG16 that DeconvNet stands on: with batch norm and valid fully connected layers."""
        fully_connected = FullyConnected(kernel=self.fc_kernel, width=self.fc_width)
        return VGG16Layout(width=self.width, batch_norm=True, norm_eps=self.norm_eps, fully_connected=fully_connected)


class DeconvNet(Network):
    """Convolves to one cell and deconvolves back; logits come at the image's size.

    ``minimum_size`` is the least side that five poolings leave fc6's window of: 193 pixels for the published 7x7.
    """

    config: DeconvNetConfig
    backbone: VGG16

    def __init__(self, trunk: VGG16, num_classes: int, config: DeconvNetConfig | None = None) -> None:
        config = config or DeconvNetConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=trunk.preprocessing,
            logit_stride=1,
            align_corners=False,
            minimum_size=(config.fc_kernel - 1) * trunk.strides[-1] + 1,
        )
        self.backbone = trunk
        coarsest = trunk.channels[-1]
        eps = config.norm_eps
        self.bn_fc6 = PooledBatchNorm2d(config.fc_width, eps=eps)
        self.bn_fc7 = PooledBatchNorm2d(config.fc_width, eps=eps)
        self.fc6_deconv = nn.ConvTranspose2d(config.fc_width, coarsest, config.fc_kernel)
        self.bn_fc6_deconv = PooledBatchNorm2d(coarsest, eps=eps)
        self.decoder = MirroredDecoder(coarsest, _decoder_blocks(trunk.channels), _deconv, norm_eps=eps, dropout={})
        self.classifier = nn.Conv2d(self.decoder.out_channels, num_classes, 1)
        for part in (self.fc6_deconv, self.bn_fc6, self.bn_fc7, self.bn_fc6_deconv, self.decoder, self.classifier):
            _init(part)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H, W).

        Raises:
            InvalidValue: the images are smaller than fc6's window.
        """
        height, width = images.shape[-2:]
        if height < self.minimum_size or width < self.minimum_size:
            raise InvalidValue(
                f"DeconvNet takes images of at least {self.minimum_size} x {self.minimum_size} pixels, got "
                f"{height} x {width}; resize them, as its authors do to 224 x 224"
            )
        x = images
        pooled = []
        for block in sorted(_DECONVS):
            maps = self.backbone.convs(block, x)
            x, indices = self.backbone.pool_with_indices(block, maps)
            pooled.append(PooledMap(indices, maps.shape[-2:]))
        x = torch.relu(self.bn_fc6(self.backbone.fc6(x)))  # (B, 4096, h - 6, w - 6)
        x = torch.relu(self.bn_fc7(self.backbone.fc7(x)))
        x = torch.relu(self.bn_fc6_deconv(self.fc6_deconv(x)))  # (B, 512, h, w)
        return SegOutput(self.classifier(self.decoder(x, pooled[::-1])))

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy over all pixels of the window that are not ignored."""
        return (Term(name="main"),)


def _decoder_blocks(channels: tuple[int, ...]) -> dict[str, list[tuple[str, int]]]:
    """Each block's deconvolutions: the last one narrows to the next finer block's channels."""
    blocks = {}
    for block, deconvs in _DECONVS.items():
        widths = [channels[block - 1]] * (deconvs - 1) + [channels[max(block - 2, 0)]]
        blocks[f"block{block}"] = [(f"deconv{block}_{i}", width) for i, width in enumerate(widths, start=1)]
    return blocks


def _deconv(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, 3, padding=1)


def _init(module: nn.Module) -> None:
    """The release's fillers: N(0, 0.01), biases 0, batch norms 1 and 0.001."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=_NEW_DEVIATION)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.bias, _NEW_SHIFT)
