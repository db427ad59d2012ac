"""Image files as tensors; how files are decoded is in `perpixel.data.decoding`.

Shapes: C channels, H W height and width; sizes are (height, width).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from perpixel.data.decoding import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    ImageHead,
    image_head,
    image_size,
    mask_is_turned,
    read_color_mask,
    read_mask,
    read_pixels,
)
from perpixel.data.picture import PixelSource
from perpixel.errors import DataError

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ImageHead",
    "image_head",
    "image_size",
    "mask_is_turned",
    "read_color_mask",
    "read_image",
    "read_mask",
    "to_channels",
]


def read_image(path: str | PixelSource, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decodes an image upright: (C, H, W) with C = 1 (grey) or 3 (RGB); alpha is dropped, palettes are resolved.

    Returns:
        uint8 in [0, 255], or int32 in [0, 65535] for files with 16 bits per channel.

    Raises:
        DataError: the file cannot be read or decoded, has more than ``max_pixels`` pixels or several pages, or holds
            values that are no 8- or 16-bit intensities.
    """
    pixels = read_pixels(path, max_pixels=max_pixels)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    kind = np.uint8 if pixels.dtype == np.uint8 else np.int32
    # (H, W, C) in memory, as decoded: torch resizes small windows of it faster than of separate planes.
    return torch.from_numpy(np.array(pixels, dtype=kind, order="C")).permute(2, 0, 1)


def to_channels(image: Tensor, channels: int, *, source: str) -> Tensor:
    """Gives an image (C, H, W) the channels that a network takes: grey is repeated, RGB becomes luminance.

    Luminance is (19595 R + 38470 G + 7471 B) / 65536, the weights of ITU-R BT.601, rounded.

    Raises:
        DataError: the numbers of channels differ and are not 1 and 3.
    """
    have = int(image.shape[0])
    if have == channels:
        return image
    if have == 1 and channels == 3:
        return image.expand(3, -1, -1).contiguous()
    if have == 3 and channels == 1:
        weights = torch.tensor([19595, 38470, 7471], dtype=torch.int64)[:, None, None]
        return ((image.to(torch.int64) * weights).sum(0, keepdim=True) + 32768 >> 16).to(image.dtype)
    raise DataError(
        f"{source}: the image has {have} channels and the network takes {channels}. Only grey and RGB stand in for "
        f"each other; set the model's input channels to {have}."
    )
