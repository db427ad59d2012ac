"""From raw pixels to what a network wants: colour jitter and normalisation, per batch, on the batch's device.

Letters: B batch, C channels, H W image. Stored images are in RGB order; ``Preprocessing.mean``, ``std`` and
``padding`` are in the network's order, which is the reverse for ``channel_order="bgr"``.

Differs from torchvision's ColorJitter: the order is fixed (brightness, contrast, saturation), nothing is rounded
between the steps, and values are clamped to the image range once, at the end.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.types import Preprocessing

__all__ = ["FULL_SCALE", "normalize", "padding_fractions"]

FULL_SCALE: dict[torch.dtype, float] = {torch.uint8: 255.0, torch.int32: 65535.0}
"""Largest stored value: 8-bit images are uint8, 16-bit images are int32 (PyTorch computes little on uint16)."""

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, red green blue


def normalize(images: Tensor, preprocessing: Preprocessing, *, jitter: Tensor | None = None) -> Tensor:
    """Returns ``(jittered pixel / full_scale * value_range - mean) / std`` as float32.

    With u = pixel / full_scale, b c s the image's three factors, and grey the BT.601 luma (the channel mean unless
    C = 3): ``u <- b u``, then ``u <- c u + (1 - c) mean(grey(u))`` over the whole image, padding included, then
    ``u <- s u + (1 - s) grey(u)``, then a clamp to [0, 1]. Saturation is ignored unless C = 3.

    The three steps are folded into one affine map: a factor per image, plus one grey plane. It is evaluated
    elementwise and not as a matrix product, so that neither TF32 nor autocast can touch it.

    Args:
        images: (B, C, H, W) uint8, or int32 for 16-bit images in [0, 65535]; stored channel order.
        preprocessing: The network's; C must be its number of channels.
        jitter: (B, 3) factors of brightness, contrast and saturation; None leaves the colours alone.

    Returns:
        (B, C, H, W) float32. Planar on the CPU, where that is faster; elsewhere the memory format of ``images``.

    Raises:
        InvalidValue: dtype, number of channels or jitter's shape do not fit.
    """
    _check(images, preprocessing, jitter)
    full_scale = FULL_SCALE[images.dtype]
    is_bgr = preprocessing.channel_order == "bgr"
    layout = torch.contiguous_format if images.device.type == "cpu" else torch.preserve_format
    x = (images.flip(1) if is_bgr else images).to(torch.float32, memory_format=layout)
    if jitter is None:
        x.mul_(1 / full_scale)
    else:
        _jitter_(x, jitter.to(x.device, torch.float32), full_scale, _luma(x.shape[1], is_bgr))
    mean, std = _constant(preprocessing.mean, x.device), _constant(preprocessing.std, x.device)
    return x.mul_(preprocessing.value_range / std).sub_(mean / std)


def padding_fractions(preprocessing: Preprocessing) -> tuple[float, ...]:
    """Returns the fill value of padding as fractions of the full scale, in the channel order of stored images."""
    fractions = tuple(value / preprocessing.value_range for value in preprocessing.padding)
    return fractions[::-1] if preprocessing.channel_order == "bgr" else fractions


def _jitter_(x: Tensor, jitter: Tensor, full_scale: float, luma: tuple[float, ...]) -> None:
    """Turns raw values (B, C, H, W) into jittered ones in [0, 1], in place."""
    brightness, contrast, saturation = jitter.view(-1, 3, 1, 1, 1).unbind(1)  # each (B, 1, 1, 1)
    channel_means = x.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
    mean_grey = (channel_means * _constant(luma, x.device)).sum(1, keepdim=True)  # (B, 1, 1, 1)
    gain = brightness * contrast / full_scale
    offset = (1 - contrast) * brightness / full_scale * mean_grey
    if x.shape[1] == 3:
        grey = x[:, :1] * luma[0]  # (B, 1, H, W)
        grey.add_(x[:, 1:2], alpha=luma[1]).add_(x[:, 2:], alpha=luma[2])
        shade = grey.mul_((1 - saturation) * gain).add_(offset)
        x.mul_(saturation * gain).add_(shade)
    else:
        x.mul_(gain).add_(offset)
    x.clamp_(0, 1)


@lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """One value per channel (1, C, 1, 1), copied to the device once: a copy per step would make the host wait."""
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


def _luma(num_channels: int, is_bgr: bool) -> tuple[float, ...]:
    if num_channels != 3:
        return (1 / num_channels,) * num_channels
    return _LUMA[::-1] if is_bgr else _LUMA


def _check(images: Tensor, preprocessing: Preprocessing, jitter: Tensor | None) -> None:
    if images.dtype not in FULL_SCALE or images.ndim != 4:
        raise InvalidValue(
            f"images are (B, C, H, W) uint8, or int32 for 16-bit images; got {tuple(images.shape)} {images.dtype}"
        )
    channels = images.shape[1]
    if channels != preprocessing.num_channels:
        raise InvalidValue(
            f"the images have {channels} channels, the network takes {preprocessing.num_channels}; "
            "read the images with in_channels of the network"
        )
    if preprocessing.channel_order == "bgr" and channels != 3:
        raise InvalidValue(f"channel_order 'bgr' needs 3 channels, got {channels}; use 'rgb', which keeps the order")
    if jitter is not None and tuple(jitter.shape) != (images.shape[0], 3):
        raise InvalidValue(
            f"jitter is (B, 3) = ({images.shape[0]}, 3): brightness, contrast, saturation; got {tuple(jitter.shape)}"
        )
