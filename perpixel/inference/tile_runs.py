"""Runs the tiles of a plan: of each tile's scores only those are kept that its margin protects.

Every tile goes through the network as an image of its own. Its scores are brought to pixels with the weights that they
have in the whole image (`ops.fused_argmax.Axis`). At the image's own edges tiles end where it does, and are padded, or
mirrored, as it is. Shapes: C channels, h w window, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perpixel.data.image_files import to_channels
from perpixel.inference.raster_files import Raster, Window
from perpixel.inference.score_map import ScoreMap
from perpixel.inference.segmenter import Segmenter
from perpixel.inference.tile_cost import TileCost
from perpixel.inference.tile_plan import Span, TilePlan, given_size
from perpixel.ops.fused_argmax import Axis, mixed_classes

__all__ = ["TileRuns", "disagreement"]


class TileRuns:
    """The tiles of an open image, and the classes that they give."""

    def __init__(self, segmenter: Segmenter, raster: Raster, plan: TilePlan) -> None:
        network: Any = segmenter.network
        self._segmenter = segmenter
        self._raster = raster
        self._plan = plan
        self._stride = int(network.logit_stride)
        self._axes = self._whole_axes() if plan.tiles > 1 and plan.on_grid and plan.period % self._stride == 0 else None

    def run(self) -> Iterator[tuple[Window, NDArray[np.uint8], Tensor]]:
        """Yields the kept window of every tile, its classes (h, w) and its raw pixels (C, h, w).

        Raises:
            DataError: a window cannot be read.
            RunError: the scores are not finite.
        """
        for row in self._plan.rows:
            for columns in _same_widths(self._plan.columns, self._plan.batch):
                blocks = [self._pixels(row, column) for column in columns]
                scores = self._segmenter.image_scores(torch.stack([self._fitted(block) for block in blocks]))
                for index, (column, block) in enumerate(zip(columns, blocks, strict=True)):
                    window = (row.keep_start, column.keep_start, row.keep_stop, column.keep_stop)
                    classes = self._kept(scores, index, row, column, window)
                    kept = block[:, window[0] - row.start : window[2] - row.start]
                    yield window, classes, kept[:, :, window[1] - column.start : window[3] - column.start]
                del blocks, block, kept, scores, classes  # before the next tiles are there too

    def classes(self, row: Span, column: Span, window: Window) -> NDArray[np.uint8]:
        """Returns the classes (h, w) of a window within one tile, which need not be of the plan."""
        scores = self._segmenter.image_scores(self._fitted(self._pixels(row, column))[None])
        return self._kept(scores, 0, row, column, window)

    def _kept(self, scores: ScoreMap, index: int, row: Span, column: Span, window: Window) -> NDArray[np.uint8]:
        logits = scores.logits[index : index + 1]
        placed = []
        for direction, span in enumerate((row, column)):
            start, stop = window[direction], window[direction + 2]
            if self._axes is not None:
                whole = self._axes[direction]
                seen = whole.window(start, stop, first_cell=span.start // self._stride)
                placed.append(seen.within(int(logits.shape[2 + direction])))  # margins below a cell are possible
            else:
                own = _axis(scores, int(logits.shape[2 + direction]), scores.covered[direction])
                placed.append(own.window(start - span.start, stop - span.start))
        with torch.no_grad():
            classes: NDArray[np.uint8] = mixed_classes(logits, placed[0], placed[1])[0].cpu().numpy()
        return classes

    def _whole_axes(self) -> tuple[Axis, Axis]:
        """Finds how the whole image's pixels lie between its cells, by an image that ends as it does but is small."""
        network: Any = self._segmenter.network
        period = self._plan.period
        least = (-(-int(network.minimum_size) // period) + 1) * period
        size = self._plan.image_size
        small = [min(side, side % period + least) for side in size]
        blank = torch.zeros((1, self._segmenter.preprocessing.num_channels, *small), dtype=torch.uint8)
        scores = self._segmenter.image_scores(blank)
        axes = []
        for direction, (side, short) in enumerate(zip(size, small, strict=True)):
            cells = int(scores.logits.shape[2 + direction]) + (side - short) // self._stride
            axes.append(_axis(scores, cells, scores.covered[direction] + side - short))
        return axes[0], axes[1]

    def _pixels(self, row: Span, column: Span) -> Tensor:
        """Returns the raw pixels (C, h, w) of a tile as the file has them, uint8 or int32."""
        pixels = self._raster.read((row.start, column.start, row.stop, column.stop))
        return torch.from_numpy(pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32))

    def _fitted(self, pixels: Tensor) -> Tensor:
        channels = self._segmenter.preprocessing.num_channels
        return to_channels(pixels, channels, source=str(self._raster.path))


def disagreement(segmenter: Segmenter, raster: Raster, plan: TilePlan, cost: TileCost) -> float | None:
    """Returns the share of pixels whose class depends on the tiling, measured in the middle of the image.

    The kept part of a tile is compared with the whole image's where this fits the memory, else what the margins of both
    protect in the tile and in a smaller one within it. None where that is nothing.
    """
    row, column = plan.rows[len(plan.rows) // 2], plan.columns[len(plan.columns) // 2]
    if cost.bytes_of(math.prod(given_size(segmenter.network, raster.size))) <= plan.memory_bytes:
        large, small = (_whole(raster.size[0]), _whole(raster.size[1])), (row, column)
    else:
        height, width = raster.size
        large, small = (row, column), (_smaller(row, height, plan), _smaller(column, width, plan))
    top, bottom = small[0].keep_start, small[0].keep_stop
    left, right = small[1].keep_start, small[1].keep_stop
    if top >= bottom or left >= right:
        return None
    runs = TileRuns(segmenter, raster, plan)
    first, second = (runs.classes(rows, columns, (top, left, bottom, right)) for rows, columns in (large, small))
    return float((first != second).mean())


def _whole(length: int) -> Span:
    return Span(start=0, stop=length, keep_start=0, keep_stop=length)


def _smaller(span: Span, length: int, plan: TilePlan) -> Span:
    """Returns a tile within a tile, which begins further on and keeps all that the margins of both protect."""
    if span.start == 0 and span.stop == length:
        return span
    shift = max((span.stop - span.start - 2 * plan.margin) // (2 * plan.period), 1) * plan.period
    start = span.start + shift
    keep_stop = length if span.stop == length else span.stop - plan.margin
    return Span(start=start, stop=span.stop, keep_start=start + plan.margin, keep_stop=keep_stop)


def _same_widths(columns: tuple[Span, ...], batch: int) -> Iterator[tuple[Span, ...]]:
    """Yields neighbours of one width, at most ``batch`` together."""
    group: list[Span] = []
    for column in columns:
        if group and (len(group) == batch or column.stop - column.start != group[0].stop - group[0].start):
            yield tuple(group)
            group = []
        group.append(column)
    yield tuple(group)


def _axis(scores: ScoreMap, cells: int, covered: int) -> Axis:
    return Axis.between(cells, covered, align_corners=scores.align_corners, device=scores.logits.device)
