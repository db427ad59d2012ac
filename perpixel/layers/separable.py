"""Depthwise separable convolution: space and channels one after the other (Chollet, CVPR 2017, arXiv:1610.02357).

Shapes: B batch, C channels, h w feature map.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["SeparableConvNormAct"]


class SeparableConvNormAct(nn.Module):
    """Depthwise convolution, 1x1 convolution, batch norm, ReLU, no biases: (B, C, h, w) -> (B, C', h, w).

    ``norm_between`` puts a batch norm and a ReLU between the two convolutions, as the code of DeepLab v3+'s authors
    does (arXiv:1802.02611, section 3.1, calls the dilated form atrous separable convolution); ports to PyTorch leave
    them away.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        dilation: int = 1,
        norm_between: bool = False,
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels,
            in_channels,
            kernel_size,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=in_channels,
            bias=False,
        )
        self.between = (
            nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True)) if norm_between else nn.Identity()
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(self.depthwise(x))
        out: Tensor = self.act(self.norm(self.pointwise(x)))
        return out
