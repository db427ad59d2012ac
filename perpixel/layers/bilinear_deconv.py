"""Transposed convolution that begins as bilinear interpolation (Long et al., CVPR 2015, arXiv:1411.4038, section 3.3).

Shapes: B batch, C channels, h w feature map, k kernel size, s stride, p padding.
Where it is not cut by an edge, k = 2s with p = s/2 is `ops.resize(..., align_corners=False)`; within half a cell of the
edge it differs, for it mixes in the zeros outside where interpolation repeats the edge.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perpixel.errors import InvalidValue

__all__ = ["BilinearDeconv", "bilinear_kernel"]


def bilinear_kernel(size: int, *, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
    """Returns the (size, size) weights of bilinear enlargement by (size + 1) // 2, the largest in the middle.

    Raises:
        InvalidValue: the size is not positive.
    """
    if size < 1:
        raise InvalidValue(f"the size of a bilinear kernel must be >= 1, got {size}")
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    ramp = 1 - (torch.arange(size, dtype=torch.float64, device=device) - centre).abs() / factor
    return torch.outer(ramp, ramp).to(dtype or torch.get_default_dtype())


class BilinearDeconv(nn.ConvTranspose2d):
    """Enlarges each channel by itself: (B, C, h, w) -> (B, C, s(h - 1) + k - 2p + o, s(w - 1) + k - 2p + o).

    The weights (C, C / groups, k, k) begin with the bilinear kernel where a channel meets itself and zero elsewhere,
    the bias with zero; training may change them all.

    Args:
        channels: C, in and out.
        stride: s, the enlargement.
        kernel_size: k; None takes 2s for an even and 2s - 1 for an odd stride, which interpolates.
        padding: p cells cut off each side of the result.
        output_padding: o cells added to its end, below the stride; an odd kernel needs one to double a size.
        groups: 1 holds a weight for every pair of channels (FCN), C one kernel per channel.
        bias: Adds one learned value per channel.
        fixed: The weights (and bias) need no gradient: no optimiser takes them, and no weight decay shrinks them.

    Raises:
        InvalidValue: a number is not positive, a padding negative or too large, or the groups do not divide the
            channels.
    """

    def __init__(
        self,
        channels: int,
        stride: int,
        *,
        kernel_size: int | None = None,
        padding: int = 0,
        output_padding: int = 0,
        groups: int = 1,
        bias: bool = False,
        fixed: bool = False,
    ) -> None:
        kernel_size = 2 * stride - stride % 2 if kernel_size is None else kernel_size
        if min(channels, stride, kernel_size, groups) < 1 or padding < 0 or channels % groups:
            raise InvalidValue(
                f"no bilinear deconvolution of {channels} channels in {groups} groups, stride {stride}, kernel "
                f"{kernel_size}, padding {padding}: all must be positive, the padding >= 0, the groups a divisor"
            )
        if not 0 <= output_padding < stride:
            raise InvalidValue(f"output_padding must lie in [0, stride), got {output_padding} with stride {stride}")
        super().__init__(
            channels,
            channels,
            kernel_size,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            groups=groups,
            bias=bias,
        )
        self.requires_grad_(not fixed)

    def reset_parameters(self) -> None:
        """Sets weights and bias to those of bilinear enlargement."""
        per_group = self.in_channels // self.groups
        with torch.no_grad():
            weight = self.weight
            weight.zero_()
            own = weight.view(self.groups, per_group, per_group, *weight.shape[2:]).diagonal(dim1=1, dim2=2)
            kernel = bilinear_kernel(weight.shape[-1], dtype=weight.dtype, device=weight.device)
            own.copy_(kernel[:, :, None])  # (groups, k, k, C / groups)
            if self.bias is not None:
                self.bias.zero_()
