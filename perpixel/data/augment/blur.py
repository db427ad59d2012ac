"""Gaussian blur (Chen et al. 2020, SimCLR, arXiv:2002.05709, appendix A: sigma uniform in [0.1, 2], probability 0.5).

Two passes of a sampled Gaussian, cut off at three standard deviations, its weights rounded to 1/256; borders are
mirrored about the edge pixels. Each pass rounds to whole grey levels, as image libraries do. Labels are not touched.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.data.augment.scratch import Scratch

__all__ = ["blurred", "weights"]

_BAND = 160  # rows at once: fewer calls, and what is worked on nearly fits the cache
_SCRATCH = Scratch()


def weights(sigma: float) -> tuple[int, ...]:
    """Returns the weights of a blur in 1/256: the centre's, then those of each next pair; centre + 2 rest = 256."""
    reach = max(1, math.ceil(3 * sigma))
    exact = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    pairs = np.rint(256 * exact[1:] / (exact[0] + 2 * exact[1:].sum())).astype(int)
    kept = np.trim_zeros(pairs, "b").tolist()
    return 256 - 2 * sum(kept), *kept


def blurred(pixels: NDArray[Any], sigma: float) -> NDArray[Any]:
    """Returns the blurred image (H, W, C) of the same dtype; uint8, or int32 for 16-bit values."""
    taps = weights(sigma)
    reach = len(taps) - 1
    height, width, channels = pixels.shape
    wide: type[np.generic] = np.uint16 if pixels.dtype == np.uint8 else np.uint32  # holds 256 times the largest value
    source = pixels.reshape(height, -1)
    lines, places = _mirrored(height, reach), _mirrored(width, reach) + reach
    outer = (*range(reach), *range(reach + width, width + 2 * reach))
    starts = range(0, (2 * reach + 1) * channels, channels)
    out = np.empty_like(source)
    for top in range(0, height, _BAND):
        rows = min(_BAND, height - top)
        column = _SCRATCH.array("column", (rows + 2 * reach, width * channels), wide)
        if top >= reach and top + rows + reach <= height:
            column[:] = source[top - reach : top + rows + reach]
        else:
            column[:] = source[lines[top : top + rows + 2 * reach]]
        across = _SCRATCH.array("across", (rows, width + 2 * reach, channels), wide)
        down = _filtered([column[start : start + rows] for start in range(2 * reach + 1)], taps)
        across[:, reach : reach + width] = down.reshape(rows, width, channels)
        for line in outer:
            across[:, line] = across[:, places[line]]
        flat = across.reshape(rows, -1)
        out[top : top + rows] = _filtered([flat[:, start : start + width * channels] for start in starts], taps)
    return out.reshape(pixels.shape)


def _filtered(shifted: list[NDArray[Any]], taps: tuple[int, ...]) -> NDArray[Any]:
    """Rounded sum of an array's shifted views times their weights, overwritten by the next call."""
    middle = shifted[len(taps) - 1]
    kind = middle.dtype.type
    total, pair = (_SCRATCH.array(name, middle.shape, kind) for name in ("total", "pair"))
    np.multiply(middle, kind(taps[0]), out=total)
    for distance, weight in enumerate(taps[1:], start=1):
        np.add(shifted[len(taps) - 1 - distance], shifted[len(taps) - 1 + distance], out=pair)
        pair *= kind(weight)
        total += pair
    total += kind(128)
    total >>= kind(8)
    return total


def _mirrored(size: int, reach: int) -> NDArray[np.intp]:
    """Indices of a side with its mirrored border."""
    return np.pad(np.arange(size), reach, mode="reflect")
