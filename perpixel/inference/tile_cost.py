"""What a tile costs and where it may begin, found out by running two or three small tiles through the network.

Memory is the measured peak of the whole work on a tile, from pixels to classes, extended linearly in pixels. The period
is read off the maps of all layers: between two inputs of different size, a layer whose map grows by m cells for n
pixels has cells of n / m pixels, whatever it pads or rounds. Sizes are (height, width) in pixels, memory in bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from perpixel.inference.memory import peak_bytes

__all__ = ["SAFETY", "TileCost", "measure_tile_cost"]

SAFETY = 1.25
"""Factor on measured memory: allocators round up, and a straight line is assumed beyond what was measured."""

_FIRST_SIDE = 128
_GROWTH = 128  # from the first side to the second, at least
_LARGER_SIDES = (
    512,
    384,
)  # closer to the tiles that will be used; the first that takes a quarter of the memory at most
_LONGEST_PERIOD = 512


@dataclass(frozen=True, kw_only=True)
class TileCost:
    """What `measure_tile_cost` found."""

    fixed_bytes: float
    bytes_per_pixel: float
    """Per pixel that the network is given, padding and its own margin included."""
    period: int | None
    """Pixels after which the network repeats itself; None where no period was found."""
    on_grid: bool = True
    """Whether a tile's scores are a window of the whole image's, one cell per ``logit_stride`` pixels."""

    def bytes_of(self, pixels: int) -> int:
        """Returns the peak of that many pixels at once, the safety factor included."""
        return math.ceil(SAFETY * (self.fixed_bytes + self.bytes_per_pixel * pixels))


@dataclass(frozen=True, kw_only=True)
class _Probe:
    pixels: int
    peak: int
    given: tuple[int, int]
    sides: tuple[tuple[int, int], ...]
    """Map sizes of every layer, in the order of the calls."""
    cells: tuple[int, int]


def measure_tile_cost(
    work: Callable[[Tensor], tuple[int, int]],
    network: nn.Module,
    *,
    given: Callable[[tuple[int, int]], tuple[int, int]],
    memory_bytes: int,
    device: torch.device,
    dtype: torch.dtype = torch.uint8,
) -> TileCost:
    """Runs the network on noise of growing size and returns what larger tiles will cost.

    Args:
        work: Does all of a tile's work on raw pixels (1, C, H, W) and returns the height and width of its score map.
        network: The network within ``work``, whose layers are watched.
        given: The size that the network receives for an image of a size.
        memory_bytes: Larger probes are left out where they would take more than a quarter of it.
        device: Where the network computes.
        dtype: Of the raw pixels.
    """
    contract: Any = network
    channels = contract.preprocessing.num_channels
    first = max(_FIRST_SIDE, min(given((1, 1))))
    sides = [first, first + _growth(int(contract.logit_stride))]

    def probe(side: int) -> _Probe:
        images = torch.randint(0, 256, (1, channels, side, side), generator=torch.Generator().manual_seed(0))
        return _probed(work, network, images.to(dtype), given((side, side)), device)

    probe(sides[0])  # the first run also loads kernels and lays out weights
    probes = [probe(side) for side in sides]
    cost = _line(probes)
    for side in _LARGER_SIDES:
        pixels = math.prod(given((side, side)))
        if side > sides[-1] and cost.bytes_of(pixels) <= memory_bytes / 4:
            cost = _line([probes[0], probe(side)])
            break
    period = _period(probes, _size_step(given, sides[0]))
    pixels_grown = probes[1].given[0] - probes[0].given[0]
    cells_grown = probes[1].cells[0] - probes[0].cells[0]
    on_grid = cells_grown * contract.logit_stride == pixels_grown
    return TileCost(fixed_bytes=cost.fixed_bytes, bytes_per_pixel=cost.bytes_per_pixel, period=period, on_grid=on_grid)


def _probed(
    work: Callable[[Tensor], tuple[int, int]],
    network: nn.Module,
    images: Tensor,
    given: tuple[int, int],
    device: torch.device,
) -> _Probe:
    sides: list[tuple[int, int]] = []
    cells: list[tuple[int, int]] = []

    def watch(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            sides.append((int(output.shape[-2]), int(output.shape[-1])))

    leaves = [module for module in network.modules() if not any(True for _ in module.children())]
    handles = [module.register_forward_hook(watch) for module in leaves]
    try:
        peak = peak_bytes(lambda: cells.append(work(images)), device)
    finally:
        for handle in handles:
            handle.remove()
    return _Probe(pixels=math.prod(given), peak=peak, given=given, sides=tuple(sides), cells=cells[0])


def _line(probes: Sequence[_Probe]) -> TileCost:
    """Puts a straight line through two peaks; it never falls, and never begins below zero."""
    small, large = probes
    grown = max(large.pixels - small.pixels, 1)
    slope = max((large.peak - small.peak) / grown, large.peak / large.pixels / 4, 1.0)
    return TileCost(fixed_bytes=max(0.0, large.peak - slope * large.pixels), bytes_per_pixel=slope, period=None)


def _growth(stride: int) -> int:
    """Returns pixels that hold whole cells of any stride: the odd part of it times a power of two."""
    growth = stride
    while growth % 2 == 0:
        growth //= 2
    while growth < _GROWTH:
        growth *= 2
    return growth


def _size_step(given: Callable[[tuple[int, int]], tuple[int, int]], side: int) -> int:
    """Returns the pixels between two sizes that the network takes."""
    first = given((side, side))[0]
    steps = (given((longer, longer))[0] - first for longer in range(side + 1, side + _LONGEST_PERIOD))
    return next((step for step in steps if step > 0), 1)


def _period(probes: Sequence[_Probe], size_step: int) -> int | None:
    """Returns the least common multiple of what the cells of all layers span, None when the layers do not agree."""
    small, large = probes
    grown = large.given[0] - small.given[0]
    if grown <= 0 or len(small.sides) != len(large.sides):
        return None
    period = size_step
    for before, after in zip(small.sides, large.sides, strict=True):
        cells = after[0] - before[0]
        if cells > 0:  # maps that do not grow are pooled over the whole image
            period = math.lcm(period, Fraction(grown, cells).numerator)
    return period if period <= _LONGEST_PERIOD else None
