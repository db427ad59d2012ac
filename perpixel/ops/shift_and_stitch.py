"""Dense scores from a network that subsamples, in two ways that agree (Long et al., CVPR 2015, arXiv:1411.4038, 3.2).

Shift-and-stitch runs the network once per shift of the image; the rewrite runs it once, with every stride taken out and
every later filter dilated by it. FCN uses neither: it learns its upsampling.

Shapes: B batch, C channels, H W image, K channels of the result, h w its cells, f output stride.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.errors import InvalidValue

__all__ = ["dilate_subsampling", "shift_and_stitch"]

_POINTWISE = (nn.ReLU, nn.Dropout, nn.Dropout2d, nn.BatchNorm2d, nn.Identity)


def shift_and_stitch(network: Callable[[Tensor], Tensor], images: Tensor, stride: int) -> Tensor:
    """Runs a network on f x f shifted copies of the images and interlaces what comes out, one cell per pixel.

    The images are moved right and down by 0 to f - 1 pixels, zeros fill the place; cell i of a copy moved by x is the
    score at pixel f i - x, counted from the network's first one. Cells left of that first pixel are dropped.

    Args:
        network: Maps (B, C, H, W) to (B, K, h, w) with f image pixels per cell; its sizes may follow any rounding.
        images: (B, C, H, W).
        stride: f of the network, >= 1.

    Returns:
        (B, K, H - r + 1, W - r + 1) for a valid-convolution network that sees r pixels; (B, K, H, W) for one whose
        maps cover the image, rounded up.

    Raises:
        InvalidValue: the stride is not positive, or what comes out of the copies does not interlace.
    """
    if stride < 1:
        raise InvalidValue(f"the output stride must be >= 1, got {stride}")
    parts = {
        (down, right): network(F.pad(images, (right, 0, down, 0)))[..., min(down, 1) :, min(right, 1) :]
        for down in range(stride)
        for right in range(stride)
    }
    first = parts[0, 0]
    height = sum(parts[down, 0].shape[-2] for down in range(stride))
    width = sum(parts[0, right].shape[-1] for right in range(stride))
    dense = first.new_empty(*first.shape[:-2], height, width)
    for (down, right), part in parts.items():
        cells = dense[..., -down % stride :: stride, -right % stride :: stride]
        if cells.shape != part.shape:
            raise InvalidValue(
                f"moved by ({down}, {right}) pixels the network gives {tuple(part.shape)}, stitching needs "
                f"{tuple(cells.shape)}: its output stride is not {stride}"
            )
        cells.copy_(part)
    return dense


def dilate_subsampling(network: nn.Sequential) -> nn.Sequential:
    """Returns a copy whose strides are 1 and whose later filters are dilated by the strides before them.

    Without padding it computes exactly what `shift_and_stitch` does. Padding grows with the dilation, so that sizes
    follow the image; near the edges the two then differ.

    Raises:
        InvalidValue: a layer is none of convolution, max pooling, ReLU, dropout, batch norm and Sequential.
    """
    dense = deepcopy(network)
    _dilate(dense, (1, 1))
    return dense


def _dilate(layers: nn.Sequential, rate: tuple[int, int]) -> tuple[int, int]:
    """Rewrites layers behind a subsampling of ``rate`` (rows, columns) in place and returns the rate behind them."""
    for name, layer in layers.named_children():
        if isinstance(layer, nn.Sequential):
            rate = _dilate(layer, rate)
        elif isinstance(layer, nn.Conv2d | nn.MaxPool2d) and not isinstance(layer.padding, str):
            behind = _times(layer.stride, rate)
            layer.dilation, layer.padding = _times(layer.dilation, rate), _times(layer.padding, rate)
            layer.stride, rate = (1, 1), behind
        elif not isinstance(layer, _POINTWISE):
            raise InvalidValue(
                f"layer {name!r} ({type(layer).__name__}) has no rewrite without subsampling; there is one for "
                "Conv2d with padding in numbers, MaxPool2d, ReLU, Dropout, BatchNorm2d and Sequential"
            )
    return rate


def _times(value: int | tuple[int, ...], rate: tuple[int, int]) -> tuple[int, int]:
    rows, columns = (value, value) if isinstance(value, int) else value
    return rows * rate[0], columns * rate[1]
