"""The published rule that turns a reference vector's keys and shapes into its weights, inputs and labels.

A reference vector stores no weights: every value follows from a name, through NumPy's ``default_rng`` seeded with the
CRC-32 of that name, so that any code can be compared with it. All numbers are float64.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_SAMPLES", "fill_value", "make_input", "make_label", "sample"]

MAX_SAMPLES = 4096
"""At most this many values of an output are stored."""


def fill_value(key: str, shape: Sequence[int]) -> NDArray[np.float64] | NDArray[np.int64]:
    """Returns the values of the state-dict entry ``key``.

    ``num_batches_tracked`` is 0; ``running_var`` uniform in (0.5, 1.5); ``running_mean`` normal with deviation 0.1;
    kernels and matrices normal with deviation ``sqrt(1 / fan_in)``; one-dimensional ``weight``, ``gamma`` and
    ``scale`` uniform in (0.5, 1.5); all else normal with deviation 0.1.
    """
    draw = _generator(key)
    size = tuple(shape)
    leaf = key.split(".")[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(size, dtype=np.int64)
    if leaf == "running_var":
        return draw.uniform(0.5, 1.5, size)
    if leaf != "running_mean" and len(size) >= 2:
        fan_in = max(1, math.prod(size[1:]))
        return draw.normal(0.0, math.sqrt(1.0 / fan_in), size)
    if leaf in ("weight", "gamma", "scale"):
        return draw.uniform(0.5, 1.5, size)
    return draw.normal(0.0, 0.1, size)


def make_input(name: str, shape: Sequence[int]) -> NDArray[np.float64]:
    """Returns a standard normal input, which is about what a normalised image looks like."""
    return _generator(name).normal(0.0, 1.0, tuple(shape))


def make_label(
    name: str, shape: Sequence[int], num_classes: int, *, ignore_index: int = 255, ignored_share: float = 0.05
) -> NDArray[np.int64]:
    """Returns random train ids in [0, K), a share of them replaced by ``ignore_index``."""
    draw = _generator(name)
    label = draw.integers(0, num_classes, tuple(shape))
    ignored = draw.random(tuple(shape)) < ignored_share
    return np.where(ignored, ignore_index, label).astype(np.int64)


def sample(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Returns every n-th value of the flattened array, n the smallest that leaves at most `MAX_SAMPLES`."""
    flat = np.asarray(values, dtype=np.float64).reshape(-1)
    return flat[:: max(1, math.ceil(flat.size / MAX_SAMPLES))]


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode("utf-8")))
