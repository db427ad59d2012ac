"""How an image too large for the memory is cut into tiles: their size, margin and batch, and whether that is exact.

A tile is a window of the image; its margin is what the network sees of it beyond what is kept. Tiles begin at multiples
of the network's period (the pixels that its coarsest cells span), so that its cells fall on the same pixels as in the
whole image. Where the margin also covers half of the receptive field, every kept pixel sees exactly what it sees in the
whole image: at the image's own edges the tile ends there too, and is padded in the same way. Networks that pool over
their whole input have no such margin; the plan says so.
Sizes are (height, width) in pixels; memory is in bytes, beyond what the process holds with the model loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from perpixel.errors import InvalidValue
from perpixel.inference.memory import bytes_text
from perpixel.inference.padding import fitting_size
from perpixel.inference.tile_cost import TileCost

__all__ = ["Span", "TilePlan", "given_size", "least_bytes", "plan_tiles", "tile_spans", "whole_bytes"]

_LARGEST_SIDE = 4096  # of tiles: beyond it nothing is gained
_BESIDE = 64  # bytes per pixel of an image in one piece beside the network: picture, class map and overlay
_LEAST_KEPT = 3  # exact tiles keep a third of their side, else they would cost more than nine times the image
_ROUNDING_SHARE = 1e-4  # sums run in another order in another size: classes that nearly tie may turn


@dataclass(frozen=True, kw_only=True)
class Span:
    """One tile along one direction, in pixels of the image; ends are exclusive."""

    start: int
    stop: int
    keep_start: int
    """First pixel whose class is taken from this tile."""
    keep_stop: int


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """The tiles of an image, what they cost, and what they are worth."""

    image_size: tuple[int, int]
    tile_size: tuple[int, int]
    margin: int
    period: int
    """Tiles begin at multiples of it."""
    batch: int
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    estimated_bytes: int
    memory_bytes: int
    exact: bool
    """Whether the classes are those of the whole image, up to rounding."""
    reason: str
    """Why they are, or are not."""
    on_grid: bool = True
    """Whether a tile's scores are a window of the whole image's."""
    disagreement: float | None = None
    """Share of compared pixels of the user's image that get another class by another tiling; None: not measured."""

    @property
    def tiles(self) -> int:
        """How many windows the network sees."""
        return len(self.rows) * len(self.columns)

    def text(self) -> str:
        """Says the plan to people."""
        height, width = self.image_size
        memory = f"about {bytes_text(self.estimated_bytes)} of {bytes_text(self.memory_bytes)}"
        if self.tiles == 1:
            return f"{height} x {width} pixels in one piece, {memory}"
        at_once = "one at a time" if self.batch == 1 else f"{self.batch} at a time"
        parts = [
            f"{height} x {width} pixels in {self.tiles} tiles of {self.tile_size[0]} x {self.tile_size[1]} with a "
            f"margin of {self.margin}, {at_once}, {memory}",
            f"{'exact' if self.exact else 'not exact'}: {self.reason}",
        ]
        if self.disagreement is not None:
            share = f"{self.disagreement:.3%}" if self.disagreement else "none"
            parts.append(f"measured on this image: {share} of the compared pixels get another class by another tiling")
        return "; ".join(parts)

    def measured(self, disagreement: float | None) -> TilePlan:
        """Adds what a comparison on the image found; more than rounding explains, and the plan is exact no longer."""
        if disagreement is None or not self.exact or disagreement <= _ROUNDING_SHARE:
            return replace(self, disagreement=disagreement)
        reason = "the margin covers the stated receptive field, and yet the scores depend on the tile's size"
        return replace(self, disagreement=disagreement, exact=False, reason=reason)


@dataclass(frozen=True, kw_only=True)
class _Needs:
    """What a network asks of tiles, and what they cost."""

    network: Any
    cost: TileCost
    period: int
    exact_margin: int | None
    """None where no margin makes tiles exact."""
    in_all: Callable[[int], int] = int
    """What to allow so that so many bytes are left for tiles."""

    def bytes_of(self, size: tuple[int, int]) -> int:
        return self.cost.bytes_of(math.prod(given_size(self.network, size)))

    @property
    def least_side(self) -> int:
        """Side of the smallest tile that is taken: something must remain within margins of one period."""
        return self.fitting_side(max(3 * self.period, int(self.network.minimum_size)))

    def smallest_tile(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Returns height and width of the smallest tile of an image that is taken."""
        return min(image_size[0], self.least_side), min(image_size[1], self.least_side)

    def allowing(self, tile: tuple[int, int]) -> str:
        """Returns the option that allows tiles of a size."""
        return f"--memory {math.ceil(self.in_all(self.bytes_of(tile)) / 1e6)}MB"

    def fitting_side(self, side: int) -> int:
        """Returns the nearest side from ``side`` downwards that the network takes without padding, else ``side``."""
        lost = 2 * int(self.network.margin)
        for candidate in range(side, max(side - 2 * self.period, 0), -1):
            if candidate >= self.network.minimum_size and given_size(self.network, (candidate, candidate)) == (
                candidate + lost,
                candidate + lost,
            ):
                return candidate
        return side


def plan_tiles(
    network: Any,
    image_size: tuple[int, int],
    *,
    memory_bytes: int,
    cost: TileCost,
    tile: tuple[int, int] | None = None,
    margin: int | None = None,
    max_batch: int = 1,
    in_all: Callable[[int], int] = int,
) -> TilePlan:
    """Chooses the largest tiles that the memory allows, exact ones where these keep a third of their side.

    Args:
        network: Keeps the contract of `models.Network`.
        image_size: Height and width of the image.
        memory_bytes: What the work may take at its peak.
        cost: What `measure_tile_cost` found.
        tile: Height and width of the tiles instead of those that the memory allows.
        margin: Pixels instead of the chosen margin; rounded up to the period.
        max_batch: Tiles at once, where the memory allows (on a CPU nothing is gained by more than one).
        in_all: What a user must allow so that so many bytes are left for tiles, where the image takes some itself.

    Raises:
        InvalidValue: the memory is too small for one window (says the least that works), the tile is larger than the
            image or too small for its margins, or a size is not positive.
    """
    _check(image_size, tile, margin, max_batch)
    needs = _needs(network, cost, in_all)
    if tile is None and whole_bytes(network, image_size, cost) <= memory_bytes:
        return _planned(needs, image_size, image_size, 0, memory_bytes, batch=1, beside=_BESIDE)
    chosen = tile or _largest_tile(needs, image_size, memory_bytes)
    if needs.bytes_of(chosen) > memory_bytes:
        raise InvalidValue(
            f"a tile of {chosen[0]} x {chosen[1]} pixels takes about {bytes_text(needs.bytes_of(chosen))} and "
            f"{bytes_text(memory_bytes)} are left for it; give {needs.allowing(chosen)} or more, or smaller tiles"
        )
    cut = [side for side, length in zip(chosen, image_size, strict=True) if side < length]
    if margin is None:
        margin = _chosen_margin(needs, min(cut)) if cut else 0
    margin = -(-margin // needs.period) * needs.period
    if cut and min(cut) < 2 * margin + needs.period:
        raise InvalidValue(
            f"tiles of {chosen[0]} x {chosen[1]} pixels with a margin of {margin} keep too little: the sides that cut "
            f"the image need at least {2 * margin + needs.period} pixels"
        )
    batch = max(1, min(max_batch, memory_bytes // needs.bytes_of(chosen)))
    return _planned(needs, image_size, chosen, margin, memory_bytes, batch=batch)


def tile_spans(length: int, tile: int, *, margin: int, period: int) -> tuple[Span, ...]:
    """Cuts ``length`` pixels into tiles that begin at multiples of ``period``; their kept parts cover each pixel once.

    All but the tiles at the ends keep what is ``margin`` pixels inside. The last tile is moved back to be as large as
    the others, as far as the period allows.

    Raises:
        InvalidValue: nothing would be kept between the margins.
    """
    if tile >= length:
        return (Span(start=0, stop=length, keep_start=0, keep_stop=length),)
    step = (tile - 2 * margin) // period * period
    if step < 1:
        raise InvalidValue(f"a tile of {tile} pixels with a margin of {margin} keeps less than a period of {period}")
    last = -(-(length - tile) // period) * period
    starts = [*range(0, last, step), last]
    cuts = [start + margin for start in starts[1:]]
    return tuple(
        Span(start=start, stop=min(start + tile, length), keep_start=keep_start, keep_stop=keep_stop)
        for start, keep_start, keep_stop in zip(starts, [0, *cuts], [*cuts, length], strict=True)
    )


def least_bytes(network: Any, image_size: tuple[int, int], cost: TileCost) -> int:
    """Returns what the smallest tile of an image takes."""
    needs = _needs(network, cost)
    return needs.bytes_of(needs.smallest_tile(image_size))


def whole_bytes(network: Any, image_size: tuple[int, int], cost: TileCost) -> int:
    """Returns what an image takes in one piece, with its picture, class map and overlay."""
    return cost.bytes_of(math.prod(given_size(network, image_size))) + _BESIDE * math.prod(image_size)


def given_size(network: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Returns what the network is given for an image of a size: its margin and padding added.

    Raises:
        RunError: the network takes no size that holds the image.
    """
    lost = 2 * int(network.margin)
    return fitting_size(network, (size[0] + lost, size[1] + lost))


def _needs(network: Any, cost: TileCost, in_all: Callable[[int], int] = int) -> _Needs:
    margin = _exact_margin(network, cost)
    return _Needs(network=network, cost=cost, period=cost.period or 32, exact_margin=margin, in_all=in_all)


def _planned(
    needs: _Needs,
    image_size: tuple[int, int],
    tile: tuple[int, int],
    margin: int,
    memory_bytes: int,
    *,
    batch: int,
    beside: int = 0,
) -> TilePlan:
    rows, columns = (
        tile_spans(length, side, margin=margin, period=needs.period)
        for length, side in zip(image_size, tile, strict=True)
    )
    tile = min(tile[0], image_size[0]), min(tile[1], image_size[1])
    exact, reason = (True, "one piece")
    if len(rows) * len(columns) > 1:
        cut = [span.stop - span.start for spans in (rows, columns) if len(spans) > 1 for span in spans]
        exact, reason = _exactness(needs, margin, min(cut))
    pixels = math.prod(given_size(needs.network, tile)) * batch
    return TilePlan(
        image_size=image_size,
        tile_size=tile,
        margin=margin,
        period=needs.period,
        batch=batch,
        rows=rows,
        columns=columns,
        estimated_bytes=needs.cost.bytes_of(pixels) + beside * math.prod(image_size),
        memory_bytes=memory_bytes,
        exact=exact,
        reason=reason,
        on_grid=needs.cost.on_grid,
    )


def _exactness(needs: _Needs, margin: int, shortest: int) -> tuple[bool, str]:
    """Says whether tiles with this margin give the whole image's classes, and why; ``shortest`` is a tile's side."""
    name = type(needs.network).__name__
    field = getattr(needs.network, "receptive_field", None)
    if field is None:
        return False, f"{name} states no receptive field, so no margin is known to hold all that a pixel sees"
    if needs.exact_margin is None:
        return False, f"the scores of {name} follow no period of pixels, so that tiles cannot be aligned"
    least = int(needs.network.minimum_size) - 2 * int(needs.network.margin)
    if shortest < least:
        return False, f"tiles of {shortest} pixels are padded to the {least} that {name} takes at least"
    if margin >= needs.exact_margin:
        return True, f"the margin covers the receptive field of {field} pixels and tiles begin at multiples of " + str(
            needs.period
        )
    side = needs.fitting_side(max(2 * needs.exact_margin + needs.period, _wanted_side(needs)))
    return False, (
        f"the receptive field of {field} pixels needs a margin of {needs.exact_margin}; "
        f"{needs.allowing((side, side))} gives tiles of {side} pixels that have it"
    )


def _wanted_side(needs: _Needs) -> int:
    """Side of tiles that keep a third of it within exact margins, with a period to spare."""
    return math.ceil(2 * (needs.exact_margin or 0) * _LEAST_KEPT / (_LEAST_KEPT - 1)) + 2 * needs.period


def _exact_margin(network: Any, cost: TileCost) -> int | None:
    """Returns half the receptive field, the cell that up-sampling reads, and a period for fields that lie askew."""
    field = getattr(network, "receptive_field", None)
    if field is None or cost.period is None or not cost.on_grid:
        return None
    covered = int(field) // 2 + 1 + int(network.logit_stride) + cost.period
    return -(-covered // cost.period) * cost.period


def _chosen_margin(needs: _Needs, side: int) -> int:
    exact = needs.exact_margin
    if exact is not None and side - 2 * exact >= max(needs.period, side // _LEAST_KEPT):
        return exact
    eighth = max(side // 8 // needs.period, 1) * needs.period
    return min(eighth, max((side - needs.period) // 2 // needs.period, 0) * needs.period)


def _largest_tile(needs: _Needs, image_size: tuple[int, int], memory_bytes: int) -> tuple[int, int]:
    """Returns the largest tile, square where the image is, that fits the memory."""
    height, width = image_size
    least = needs.least_side
    smallest = needs.smallest_tile(image_size)
    if needs.bytes_of(smallest) > memory_bytes:
        raise InvalidValue(
            f"{bytes_text(memory_bytes)} are too little for one window: the smallest, {smallest[0]} x {smallest[1]} "
            f"pixels, takes about {bytes_text(needs.bytes_of(smallest))}; give {needs.allowing(smallest)} or more"
        )

    def largest(tile_of: Callable[[int], tuple[int, int]], longest: int) -> int:
        low, high = least, max(longest, least)
        while low < high:
            middle = (low + high + 1) // 2
            if needs.bytes_of(tile_of(middle)) <= memory_bytes:
                low = middle
            else:
                high = middle - 1
        return low

    side = largest(lambda s: (min(height, s), min(width, s)), min(max(image_size) - 1, _LARGEST_SIDE))
    return _cut(needs, height, side), _cut(needs, width, side)


def _cut(needs: _Needs, length: int, side: int) -> int:
    return length if side >= length else needs.fitting_side(side)


def _check(image_size: tuple[int, int], tile: tuple[int, int] | None, margin: int | None, max_batch: int) -> None:
    if min(image_size) < 1:
        raise InvalidValue(f"an image has at least one pixel, got {image_size[0]} x {image_size[1]}")
    if tile is not None and (min(tile) < 1 or tile[0] > image_size[0] or tile[1] > image_size[1]):
        raise InvalidValue(
            f"a tile of {tile[0]} x {tile[1]} pixels does not lie within the image of {image_size[0]} x "
            f"{image_size[1]}; give sides from 1 to these"
        )
    if margin is not None and margin < 0:
        raise InvalidValue(f"a margin is a number of pixels, 0 or more, got {margin}")
    if max_batch < 1:
        raise InvalidValue(f"max_batch must be >= 1, got {max_batch}")
