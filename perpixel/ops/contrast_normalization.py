"""Normalisation of images by their own contrast: over channels (LRN), or over channels and a window (LCN).

Shapes: B batch, C channels, H W image. Both are sums of shifted maps, so that autocast leaves them in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = [
    "INPUT_NORMALISATIONS",
    "InputNormalisation",
    "local_contrast_normalization",
    "local_response_normalization",
]

InputNormalisation: TypeAlias = Literal["none", "lrn", "contrast"]


def local_response_normalization(
    x: Tensor, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Divides each value by a power of the energy of its neighbouring channels: (B, C, H, W) to the same shape.

    ``y = x / (k + alpha / size * sum of x**2 over the size channels around it) ** beta``; channels beyond the first
    and the last are zero. The defaults are those of SegNet-Basic's release, which feeds it pixels in 0..255. Source:
    Caffe's LRN across channels; Krizhevsky et al. 2012, section 3.3 (there alpha is not divided by ``size``).

    Raises:
        InvalidValue: ``size`` is not odd and positive.
    """
    _check_odd(size, "size")
    reach = size // 2
    squares = F.pad(x * x, (0, 0, 0, 0, reach, reach))
    channels = x.shape[1]
    energy = squares[:, :channels]
    for shift in range(1, size):
        energy = energy + squares[:, shift : shift + channels]
    return x * (k + alpha / size * energy) ** -beta


def local_contrast_normalization(x: Tensor, *, window: int = 9, sigma: float = 2.0, eps: float = 1e-3) -> Tensor:
    """Subtracts the local mean and divides by the local deviation: (B, C, H, W) to the same shape.

    ``v = x - m`` with m the Gaussian-weighted mean over all channels and the window; ``y = v / max(mean of s, s)``
    with s the root of the same weighted mean of ``v**2``, and its mean over the image. At the edges the weights inside
    the image are scaled to one. SegNet's paper names the operation for RGB input (arXiv:1511.00561); its form
    is the standard one of Jarrett et al. 2009, recalled and **not verified**: so are window, sigma and the edges.

    Args:
        x: Images, any range.
        window: Side of the window in pixels, odd.
        sigma: Deviation of the weights in pixels.
        eps: Least divisor, in units of ``x``: what a flat image is divided by.

    Raises:
        InvalidValue: the window is not odd and positive, or ``sigma`` or ``eps`` are not positive.
    """
    _check_odd(window, "window")
    if not (sigma > 0 and eps > 0):
        raise InvalidValue(f"sigma and eps must be positive, got {sigma} and {eps}")
    weights = [math.exp(-(((i - window // 2) / sigma) ** 2) / 2) for i in range(window)]
    inside = _blurred(torch.ones_like(x[:1, :1]), weights)
    centred = x - _blurred(x.mean(1, keepdim=True), weights) / inside
    deviation = (_blurred((centred * centred).mean(1, keepdim=True), weights) / inside).sqrt()  # (B, 1, H, W)
    mean_deviation = deviation.mean((2, 3), keepdim=True)
    return centred / torch.maximum(deviation, mean_deviation).clamp(min=eps)


def _blurred(x: Tensor, weights: list[float]) -> Tensor:
    """Weighted sums down the columns, then along the rows; zeros beyond the edges."""
    reach = len(weights) // 2
    rows, columns = x.shape[-2:]
    padded = F.pad(x, (0, 0, reach, reach))
    total = padded[:, :, :rows] * weights[0]
    for i, weight in enumerate(weights[1:], start=1):
        total = total + padded[:, :, i : i + rows] * weight
    padded = F.pad(total, (reach, reach))
    total = padded[..., :columns] * weights[0]
    for i, weight in enumerate(weights[1:], start=1):
        total = total + padded[..., i : i + columns] * weight
    return total


def _check_odd(value: int, name: str) -> None:
    if value < 1 or value % 2 == 0:
        raise InvalidValue(f"{name} must be odd and positive, got {value}")


def _unchanged(x: Tensor) -> Tensor:
    return x


INPUT_NORMALISATIONS: dict[InputNormalisation, Callable[[Tensor], Tensor]] = {
    "none": _unchanged,
    "lrn": local_response_normalization,
    "contrast": local_contrast_normalization,
}
"""What a network may do to its input before the first layer."""
