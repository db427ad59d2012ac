"""3x3 convolutions by minimal filtering (Winograd 1980; Lavin and Gray 2016, arXiv:1509.09308, section 4.1).

A tile of 2x2 outputs is a sum over channels of 16 products instead of 36. The products of all tiles are 16 matrix
products, made for a few rows of tiles at a time, so that what lies between stays in the processor's cache.

Shapes: B batch, C C' channels in and out, H W image, n rows of w tiles, each of which takes 4x4 cells and gives 2x2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.ops.host_values import from_host

__all__ = ["plain_winograd_conv", "winograd_conv", "winograd_weight"]

_FILTER = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
"""What the four products of a line take of a weight's three values: the paper's G."""
_BAND_BYTES = 1 << 25
"""Of a band's transformed cells and products. With 512 channels on two cores half or twice as much is slower."""


def winograd_weight(weight: Tensor) -> Tensor:
    """Returns what `winograd_conv` multiplies with, (16, C, C'), of a convolution's weight (C', C, 3, 3).

    Raises:
        InvalidValue: the weight is of another size.
    """
    if weight.ndim != 4 or weight.shape[2:] != (3, 3):
        raise InvalidValue(f"minimal filtering is of 3 x 3 weights (C', C, 3, 3), got {tuple(weight.shape)}")
    line = from_host(_FILTER, dtype=torch.float64, device=weight.device)
    sums = torch.kron(line, line).to(weight.dtype)  # (16, 9), exact in every dtype
    taps = weight.permute(2, 3, 1, 0).reshape(9, -1)  # (9, C C')
    return torch.matmul(sums, taps).view(16, weight.shape[1], weight.shape[0])


def winograd_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, dilation: int = 1) -> Tensor:
    """Convolves maps (B, C, H, W) with stride 1 and ``dilation`` zeros around: (B, C', H, W), channels_last.

    Not differentiable. The largest error, as a share of the largest value, of normal maps with 512 channels: 4e-7 in
    float32, where PyTorch's own form has 2e-6; 1e-2 in bfloat16, where its own has 4e-3.

    Args:
        x: Maps.
        weight: (16, C, C') of `winograd_weight`, in the dtype of the maps.
        bias: (C',), or None.
        dilation: Distance between the cells that a weight reads.

    Raises:
        InvalidValue: the weight is not one of `winograd_weight` for these maps.
    """
    if weight.ndim != 3 or weight.shape[:2] != (16, x.shape[1]) or weight.dtype != x.dtype:
        raise InvalidValue(
            f"maps {tuple(x.shape)} {x.dtype} take a weight (16, {x.shape[1]}, C') of their dtype, got "
            f"{tuple(weight.shape)} {weight.dtype}"
        )
    batch, _, height, width = x.shape
    images = x.permute(0, 2, 3, 1)
    out = x.new_empty(batch, height, width, weight.shape[2])
    for image, result in zip(images, out, strict=True):
        for row in range(min(dilation, height)):  # cells that are ``dilation`` apart are an image of their own
            for column in range(min(dilation, width)):
                part = slice(row, None, dilation), slice(column, None, dilation)
                _convolve(image[part], weight, bias, result[part])
    return out.permute(0, 3, 1, 2)


def plain_winograd_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, dilation: int = 1) -> Tensor:
    """Does what `winograd_conv` does, with the weight (C', C, 3, 3) as it is; its plain twin."""
    return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)


def _convolve(image: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """Fills ``out`` (H, W, C') from an image (H, W, C)."""
    height, width, channels = image.shape
    out_channels = weight.shape[2]
    down, across = -(-height // 2), -(-width // 2)
    rows = max(1, min(down, _BAND_BYTES // (16 * across * (channels + out_channels) * image.element_size())))
    padded = image.new_zeros(2 * rows + 2, 2 * across + 2, channels)
    taken = image.new_empty(16, rows * across, channels)
    given = image.new_empty(16, rows * across, out_channels)
    for first in range(0, down, rows):
        n = min(rows, down - first)
        _take_rows(image, 2 * first - 1, padded[: 2 * n + 2, 1 : width + 1])
        cells = taken[:, : n * across]
        places = cells.view(4, 4, n, across, channels)
        for i, line in enumerate(_differences([padded[k : k + 2 * n - 1 : 2] for k in range(4)])):
            _differences([line[:, k : k + 2 * across - 1 : 2] for k in range(4)], out=places[i])
        products = torch.bmm(cells, weight, out=given[:, : n * across]).view(4, 4, n, across, out_channels)
        if bias is not None:
            products[1, 1].add_(bias)  # is in each of the four outputs once
        for i, line in enumerate(_sums(products)):  # (4, n, w, C')
            place = out[2 * first + i : 2 * (first + n) : 2]
            _sums(line[:, : len(place)], into=place)


def _take_rows(image: Tensor, start: int, into: Tensor) -> None:
    """Copies rows of an image from ``start`` on, zeros where there are none."""
    above = max(0, -start)
    inside = image[start + above : start + len(into)]
    into[:above].zero_()
    into[above : above + len(inside)].copy_(inside)
    into[above + len(inside) :].zero_()


def _differences(d: list[Tensor], out: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a line of four cells gives to the four products: the paper's transposed B."""
    a, b, c, e = (None,) * 4 if out is None else out.unbind()
    return (
        torch.sub(d[0], d[2], out=a),
        torch.add(d[1], d[2], out=b),
        torch.sub(d[2], d[1], out=c),
        torch.sub(d[1], d[3], out=e),
    )


def _sums(m: Tensor, into: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The two outputs of four products along the first axis, ``into`` every other column: the paper's transposed A."""
    if into is None:
        return (m[0] + m[1]).add_(m[2]), (m[1] - m[2]).sub_(m[3])
    even, odd = into[:, 0::2], into[:, 1::2]
    few = m[:, :, : odd.shape[1]]
    return torch.add(m[0], m[1], out=even).add_(m[2]), torch.sub(few[1], few[2], out=odd).sub_(few[3])
