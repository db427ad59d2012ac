"""Colour transforms on stored integers; labels are not touched. Brightness, contrast, saturation: `ops.normalize`.

Gamma and noise: nnU-Net trains with both (Isensee et al. 2021, Nature Methods 18, supplement); the range of gamma is
its, the noise's is ours. Hue and greyscale: SimCLR (Chen et al. 2020, arXiv:2002.05709, appendix A).

Hue is turned linearly, about the grey axis of YIQ, so that luma stays; HSV's hue is another, non-linear angle.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.special import ndtri

__all__ = ["hue_matrix", "noise_levels", "with_gamma", "with_hue", "with_noise", "without_colour"]

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_TO_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_QUANTILES = 1 << 16


def with_gamma(pixels: NDArray[Any], gamma: float) -> NDArray[Any]:
    """Returns round(full * (v / full)^gamma) for each value v; (H, W, C) uint8, or int32 for 16-bit values."""
    full = 255 if pixels.dtype == np.uint8 else 65535
    table = np.rint(full * (np.arange(full + 1) / full) ** gamma).astype(pixels.dtype)
    if full == 255:  # bytes.translate is a little faster than any gather of NumPy
        changed = np.frombuffer(bytearray(pixels.tobytes().translate(table.tobytes())), dtype=np.uint8)
        return changed.reshape(pixels.shape)
    changed_16: NDArray[Any] = table[pixels]
    return changed_16


def with_noise(pixels: NDArray[Any], std: float, rng: np.random.Generator) -> NDArray[Any]:
    """Adds noise of standard deviation ``std`` (a share of the full scale), rounded to whole levels, and clips.

    A value's noise is the quantile of the normal distribution at one of 65,536 evenly spaced places, which is its
    inverse-transform sampling with 16 random bits: no value is further than 4.3 standard deviations away.
    """
    full = 255 if pixels.dtype == np.uint8 else 65535
    draws = rng.bit_generator.random_raw(-(-pixels.size // 4)).view(np.uint16)[: pixels.size]
    table = noise_levels(std * full)
    noise = torch.from_numpy(table).index_select(0, torch.from_numpy(draws.astype(np.int32))).numpy()
    wide = np.int16 if full == 255 else np.int32
    noisy = pixels.astype(wide) + noise.reshape(pixels.shape).astype(wide, copy=False)
    changed: NDArray[Any] = np.clip(noisy, 0, full).astype(pixels.dtype)
    return changed


def noise_levels(deviation: float) -> NDArray[Any]:
    """Returns the 65,536 noise values, in grey levels, int16 where they fit."""
    levels = np.rint(deviation * _standard_quantiles())
    return levels.astype(np.int16 if abs(levels).max() < 2**15 else np.int32)


def hue_matrix(degrees: float) -> NDArray[np.float64]:
    """Returns the (3, 3) matrix that turns RGB colours by an angle in the plane of YIQ's I and Q."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    turned: NDArray[np.float64] = _FROM_YIQ @ turn @ _TO_YIQ
    return turned


def with_hue(pixels: NDArray[Any], degrees: float) -> NDArray[Any]:
    """Returns RGB pixels (H, W, 3) with their hue turned; uint8, or int32 for 16-bit values."""
    matrix = hue_matrix(degrees)
    if pixels.dtype != np.uint8:
        return np.clip(np.rint(pixels @ matrix.T), 0, 65535).astype(pixels.dtype)
    rows = np.concatenate([matrix, np.zeros((3, 1))], axis=1)  # Pillow adds a constant to each channel
    return np.array(Image.fromarray(pixels).convert("RGB", tuple(rows.ravel().tolist())))


def without_colour(pixels: NDArray[Any]) -> NDArray[Any]:
    """Returns RGB pixels (H, W, 3) with their luma in all three channels; uint8, or int32 for 16-bit values."""
    if pixels.dtype != np.uint8:
        luma = np.rint(pixels @ _LUMA)[..., None]
        return np.broadcast_to(luma, pixels.shape).astype(pixels.dtype)
    return np.array(Image.fromarray(pixels).convert("L").convert("RGB"))


@lru_cache(maxsize=1)
def _standard_quantiles() -> NDArray[np.float64]:
    quantiles: NDArray[np.float64] = ndtri((np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    return quantiles
