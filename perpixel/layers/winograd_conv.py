"""A 3x3 convolution for inference that takes fewer multiplications where that is faster."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perpixel.ops.winograd_conv import winograd_conv, winograd_weight

__all__ = ["WinogradConv2d"]

_LEAST_CHANNELS = 170.0  # C C' / (C + C'): 512 and 256. Of 256 and 256 the gain is a fifth, below there is none
_LEAST_CELLS = 1024
_MOST_DILATION = 2
_DTYPES = (torch.float32, torch.bfloat16)


class WinogradConv2d(nn.Conv2d):
    """Does what a convolution does: (B, C, H, W) -> (B, C', H, W), by minimal filtering on large maps on the CPU.

    The transformed weight, 16/9 of the weight's memory, is made when the first such map comes; from then on the layer
    cannot be given other weights.

    Args:
        conv: A layer that `fits`; its parameters become this one's.
    """

    transformed: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        around = int(conv.dilation[0])
        super().__init__(
            conv.in_channels, conv.out_channels, 3, padding=around, dilation=around, bias=False, device="meta"
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.training = conv.training
        self.register_buffer("transformed", None, persistent=False)

    @staticmethod
    def fits(layer: nn.Module, dtype: torch.dtype) -> bool:
        """Whether a layer is a plain convolution of many channels, in ``dtype``, that this one can be put in for."""
        if type(layer) is not nn.Conv2d or layer._forward_hooks or layer._forward_pre_hooks:
            return False
        if layer.weight.device.type != "cpu" or layer.weight.dtype != dtype or dtype not in _DTYPES:
            return False
        enough = layer.in_channels * layer.out_channels >= _LEAST_CHANNELS * (layer.in_channels + layer.out_channels)
        plain = layer.kernel_size == (3, 3) and layer.stride == (1, 1) and layer.groups == 1
        around = layer.padding == layer.dilation and layer.padding_mode == "zeros"
        return enough and plain and around and layer.dilation in ((1, 1), (_MOST_DILATION, _MOST_DILATION))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in nn.Module
        dilation = int(self.dilation[0])
        large = input.ndim == 4 and input.shape[2] * input.shape[3] // dilation**2 >= _LEAST_CELLS
        differentiated = torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad)
        if not large or differentiated or torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return super().forward(input)
        if self.transformed is None:
            with torch.no_grad():
                self.transformed = winograd_weight(self.weight)
        return winograd_conv(input.to(self.transformed.dtype), self.transformed, self.bias, dilation=dilation)
