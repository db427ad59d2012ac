"""8-bit pixels of up to four channels as one 32-bit word each: what lets array arithmetic work on whole pixels.

A word holds channel 0 in its lowest byte; bytes beyond the channels may hold anything.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["pack", "unpack"]


def pack(pixels: NDArray[np.uint8], out: NDArray[np.uint32] | None = None) -> NDArray[np.uint32]:
    """Returns (H, W) little-endian words of pixels (H, W, C), C in 1, 3, 4, in ``out`` where it is given."""
    height, width, channels = pixels.shape
    words = np.empty((height, width), dtype=np.uint32) if out is None else out
    if channels != 3:
        words[:] = pixels[..., 0] if channels == 1 else np.ascontiguousarray(pixels).view(np.uint32)[..., 0]
        return words
    pixels = np.ascontiguousarray(pixels)
    # Words that start every three bytes take the next pixel's first byte along; the very last one has no next.
    words[:-1] = np.ndarray((height - 1, width), np.uint32, pixels, strides=(3 * width, 3))
    words[-1, :-1] = np.ndarray((width - 1,), np.uint32, pixels[-1], strides=(3,))
    words[-1, -1] = pixels[-1, -1] @ np.array([1, 1 << 8, 1 << 16], dtype=np.uint32)
    return words


def unpack(words: NDArray[np.uint32], channels: int) -> NDArray[np.uint8]:
    """Returns (H, W, C) of words (H, W), C in 1, 3, 4: the inverse of `pack`, always writable."""
    height, width = words.shape
    if channels == 1:
        return words.astype(np.uint8)[..., None]
    if channels == 4:
        return words.view(np.uint8).reshape(height, width, 4).copy()
    # Pillow interleaves bytes faster than NumPy does.
    return np.array(Image.frombytes("RGB", (width, height), np.ascontiguousarray(words).data, "raw", "RGBX"))
