"""Convolution, normalisation and activation in one block: the unit that every network here is made of.

Shapes: B batch, C channels, h w feature map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConvNorm", "ConvNormAct", "PooledBatchNorm2d", "init_new_layers"]


class PooledBatchNorm2d(nn.BatchNorm2d):
    """Batch norm for globally pooled (B, C, 1, 1) maps that also trains with a batch of one.

    One value per channel has no variance: such a batch is normalised by the running statistics and leaves them as they
    are. Everything else is plain batch norm.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that nn.Module's callers use
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)


class ConvNormAct(nn.Module):
    """Convolution without bias (size kept at stride 1), batch norm, ReLU: (B, C, h, w) -> (B, C', h', w').

    ``pooled`` names a branch whose maps are 1x1: its norm then trains with a batch of one (`PooledBatchNorm2d`).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        pooled: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, dilation=dilation, bias=bias
        )
        self.norm = PooledBatchNorm2d(out_channels) if pooled else nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out


class ConvNorm(nn.Module):
    """Convolution without bias (size kept at stride 1) and batch norm, no activation: (B, C, h, w) -> (B, C', h', w').

    ``merged`` is the form of a release whose batch norms were folded into its convolutions: these have biases instead.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        momentum: float = 0.1,
        merged: bool = False,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel_size // 2)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, dilation=dilation, bias=merged
        )
        self.norm = nn.Identity() if merged else nn.BatchNorm2d(out_channels, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out


def init_new_layers(module: nn.Module) -> None:
    """Draws convolution weights from Kaiming's normal distribution (fan-in, ReLU), as TorchSeg does for new layers.

    Linear layers and biases keep PyTorch's defaults; batch norms keep weight 1 and bias 0.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
