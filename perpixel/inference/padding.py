"""Sizes that a network takes, and how an image is extended to them. Shapes: B batch, C channels, H W image."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from perpixel.errors import RunError
from perpixel.types import Preprocessing

__all__ = ["SizedNetwork", "fitting_size", "mirrored", "padded", "pixel_value"]

_SIZE_STEPS = 4096


class SizedNetwork(Protocol):
    """The part of a network's contract that says which sizes it takes."""

    minimum_size: int

    def valid_size(self, height: int, width: int) -> tuple[int, int]: ...


def fitting_size(network: SizedNetwork, needed: tuple[int, int]) -> tuple[int, int]:
    """Returns the least size that the network takes and that holds ``needed``; ``valid_size`` may round down.

    Raises:
        RunError: the network takes no such size.
    """
    asked = [max(side, network.minimum_size) for side in needed]
    for _ in range(_SIZE_STEPS):
        valid = network.valid_size(asked[0], asked[1])
        short = [valid[i] < max(needed[i], network.minimum_size) for i in range(2)]
        if not any(short):
            return int(valid[0]), int(valid[1])
        asked = [side + int(is_short) for side, is_short in zip(asked, short, strict=True)]
    raise RunError(f"{type(network).__name__}.valid_size gives no size that holds {needed[0]} x {needed[1]} pixels")


def mirrored(images: Tensor, margin: int, size: tuple[int, int]) -> Tensor:
    """Extends (B, C, H, W) to ``size`` by reflection about the edge pixels, ``margin`` above and left."""

    def indices(length: int, wanted: int) -> Tensor:
        period = max(2 * (length - 1), 1)
        position = torch.arange(-margin, wanted - margin, device=images.device).remainder(period)
        return torch.minimum(position, period - position).clamp(max=length - 1)

    rows = indices(images.shape[-2], size[0])
    columns = indices(images.shape[-1], size[1])
    return images[:, :, rows[:, None], columns]


def padded(x: Tensor, size: tuple[int, int], fill: tuple[float, ...], *, offset: tuple[int, int] = (0, 0)) -> Tensor:
    """Extends (B, C, H, W) to ``size`` with a value per channel; ``offset`` is what is added above and on the left."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    canvas = x.new_tensor(fill)[None, :, None, None].repeat(x.shape[0], 1, *size)
    canvas[:, :, offset[0] : offset[0] + x.shape[-2], offset[1] : offset[1] + x.shape[-1]] = x
    return canvas


def pixel_value(preprocessing: Preprocessing, fraction: float) -> tuple[float, ...]:
    """Returns what a grey of ``fraction`` of the full scale is for the network, per channel: 0 is black."""
    value = fraction * preprocessing.value_range
    return tuple((value - mean) / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True))
