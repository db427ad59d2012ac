"""Bilinear resizing with OpenCV's numbers, without OpenCV: what published evaluation code did to images and scores.

Pixels are areas (half-pixel centres), shrinking does not smooth. What differs from `perpixel.ops.resize`:

- uint8 is computed in whole numbers: weights of 11 bits, 4 bits dropped between the two directions, rounded at the end;
- weights are rounded to float32 whatever the image's type, but for floating images of 1, 3 and 4 channels, which the
  published binaries hand to Intel's library, whose weights are exact;
- halving both sides averages blocks of 2x2 pixels, ties upwards for 1, 3 and 4 channels and to even for the others;
- a given *factor*, not the ratio of the sizes, sets the step between output pixels.

Compared with OpenCV 5.0 on x86: uint8 is equal, floating images up to rounding. Builds without Intel's library differ
for 1, 3 and 4 floating channels by up to 1e-5 of the step between neighbouring pixels.

Shapes: C channels, H W source, h w result.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = ["opencv_resize", "opencv_scale"]

_WEIGHT_ONE = 2048
_WEIGHT_SHIFT = 4
_COMMON_CHANNELS = (1, 3, 4)


def opencv_scale(images: Tensor, factor: float) -> Tensor:
    """Resizes (..., C, H, W) by one factor for both sides; sides are rounded, halves to the even number.

    Raises:
        InvalidValue: the factor is not positive and finite, or leaves no pixel.
    """
    if not (factor > 0 and math.isfinite(factor)):
        raise InvalidValue(f"a scale is a positive number, got {factor}")
    height, width = (round(side * factor) for side in images.shape[-2:])
    return _resized(images, (height, width), (1 / factor, 1 / factor), images.shape[-3])


def opencv_resize(images: Tensor, size: tuple[int, int], *, channels: int | None = None) -> Tensor:
    """Resizes (..., C, H, W), uint8, 16-bit values in int32, or floating, to (..., C, h, w) of the same type.

    ``channels`` says how many OpenCV would have seen when ``images`` are a part of them.

    Raises:
        InvalidValue: a side of the size is not positive.
    """
    height, width = images.shape[-2:]
    if (height, width) == tuple(size):
        return images
    steps = (height / max(size[0], 1), width / max(size[1], 1))
    return _resized(images, size, steps, images.shape[-3] if channels is None else channels)


def _resized(images: Tensor, size: tuple[int, int], steps: tuple[float, float], channels: int) -> Tensor:
    if min(size) < 1:
        raise InvalidValue(f"an image of {tuple(images.shape[-2:])} pixels cannot become {size}; use a larger scale")
    if tuple(images.shape[-2:]) == tuple(size):  # whatever the factor
        return images
    if images.dtype == torch.uint8:
        return _halved(images, size) if steps == (2.0, 2.0) else _fixed_point(images, size, steps)
    if images.dtype == torch.int32:
        return _interpolated(images.double(), size, steps, exact=False).round().to(images.dtype)
    return _interpolated(images, size, steps, exact=channels in _COMMON_CHANNELS and min(images.shape[-2:]) > 1)


def _interpolated(x: Tensor, size: tuple[int, int], steps: tuple[float, float], *, exact: bool) -> Tensor:
    left, right, across = _taps(x.shape[-1], size[1], steps[1], clamped=True, exact=exact)
    above, below, down = _taps(x.shape[-2], size[0], steps[0], clamped=exact, exact=exact)
    left, right, above, below = (index.to(x.device) for index in (left, right, above, below))
    # 1 - w is rounded to float32 before it meets the pixels, as OpenCV's tables hold it.
    first, second = ((1 - across).to(x), across.to(x))
    rows = (x[..., left] * first).add_(x[..., right] * second)  # (..., H, w)
    first, second = ((1 - down).to(x)[:, None], down.to(x)[:, None])
    return (rows[..., above, :] * first).add_(rows[..., below, :] * second)


def _fixed_point(images: Tensor, size: tuple[int, int], steps: tuple[float, float]) -> Tensor:
    device = images.device
    left, right, across = _taps(images.shape[-1], size[1], steps[1], clamped=True)
    above, below, down = _taps(images.shape[-2], size[0], steps[0], clamped=False)
    x = images.int()
    rows = x[..., left.to(device)] * _whole(1 - across).to(device) + x[..., right.to(device)] * _whole(across).to(
        device
    )
    rows >>= _WEIGHT_SHIFT
    first, second = _whole(1 - down).to(device)[:, None], _whole(down).to(device)[:, None]
    values = (rows[..., above.to(device), :] * first >> 16) + (rows[..., below.to(device), :] * second >> 16)
    return ((values + 2) >> 2).clamp_(0, 255).to(torch.uint8)


def _halved(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Means of 2x2 pixels; at an odd edge of those that there are."""
    ties_upwards = images.shape[-3] in _COMMON_CHANNELS
    rows, columns = images.shape[-2] // 2, images.shape[-1] // 2
    x = images[..., : size[0] * 2, : size[1] * 2].int()
    inner = x[..., : rows * 2, : columns * 2]
    blocks = inner.reshape(*x.shape[:-2], rows, 2, columns, 2).sum((-1, -3))
    whole = (blocks + 2) >> 2 if ties_upwards else (blocks.double() / 4).round().int()
    result = whole.new_empty((*images.shape[:-2], *size))
    result[..., :rows, :columns] = whole[..., : size[0], : size[1]]
    if size[1] > columns:
        edge = x[..., : rows * 2, -1].reshape(*x.shape[:-2], rows, 2).double().mean(-1)
        result[..., :rows, -1] = edge[..., : size[0]].round().int()
    if size[0] > rows:
        edge = x[..., -1, : columns * 2].reshape(*x.shape[:-2], columns, 2).double().mean(-1)
        result[..., -1, :columns] = edge[..., : size[1]].round().int()
    if size[0] > rows and size[1] > columns:
        result[..., -1, -1] = x[..., -1, -1]
    return result.to(torch.uint8)


def _taps(
    source: int, wanted: int, step: float, *, clamped: bool, exact: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns both source indices of each output pixel and the second one's weight, float32 unless exact.

    Across, OpenCV lets the edge pixel stand alone; down, it mixes the edge row with itself, which rounds otherwise.
    """
    position = (torch.arange(wanted, dtype=torch.float64) + 0.5) * step - 0.5
    position = position if exact else position.float()
    first = position.floor()
    weight = position - first
    index = first.long()
    if clamped:
        weight = weight.masked_fill((index < 0) | (index >= source - 1), 0.0)
    return index.clamp(0, source - 1), (index + 1).clamp(0, source - 1), weight


def _whole(weights: Tensor) -> Tensor:
    """Returns weights in [0, 1] as whole numbers of 2048, halves to the even one."""
    return (weights * _WEIGHT_ONE).round().int()
