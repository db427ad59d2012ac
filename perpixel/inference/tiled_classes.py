"""Classes of images that are in memory already, tile by tile where the network's work on one would not fit.

Shapes: C channels, H W image, h w window.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.inference.large_images import plan_raster, tile_cost, tileable
from perpixel.inference.raster_files import Window
from perpixel.inference.segmenter import Segmenter
from perpixel.inference.tile_cost import TileCost
from perpixel.inference.tile_plan import TilePlan
from perpixel.inference.tile_runs import TileRuns

__all__ = ["TiledClasses"]


class TiledClasses:
    """Predicts within an amount of memory beside the model and the image; an image that fits is seen whole.

    Args:
        segmenter: Predicts.
        memory_bytes: What the work on an image may take.
        on_plan: Receives the plan of the first image of each size that is cut into tiles.
        cost: What tiles cost, where that was measured before; None measures it on the first image.

    Raises:
        InvalidValue: the segmenter holds a procedure or a last step that needs whole images.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        memory_bytes: int,
        on_plan: Callable[[TilePlan], None] | None = None,
        cost: TileCost | None = None,
    ) -> None:
        needs_whole = tileable(segmenter)
        if needs_whole:
            raise InvalidValue(f"an amount of memory was given, but {needs_whole}; leave one of the two out")
        self._segmenter = segmenter
        self._memory_bytes = memory_bytes
        self._on_plan = on_plan
        self._cost = cost
        self._told: set[tuple[int, int]] = set()

    def __call__(self, image: Tensor) -> NDArray[np.uint8]:
        """Returns the classes (H, W) of a raw image (C, H, W), uint8 or 16-bit int32.

        Raises:
            InvalidValue: the memory is too small for one window; says the least that works.
        """
        if self._cost is None:
            self._cost = tile_cost(self._segmenter, memory_bytes=self._memory_bytes)
        raster = _ImageInMemory(image)
        plan = plan_raster(self._segmenter, raster, memory_bytes=self._memory_bytes, cost=self._cost)
        if plan.tiles == 1:
            whole: NDArray[np.uint8] = self._segmenter.classes(image[None])[0].cpu().numpy()
            return whole
        if self._on_plan is not None and raster.size not in self._told:
            self._told.add(raster.size)
            self._on_plan(plan)
        classes = np.empty(raster.size, dtype=np.uint8)
        for (top, left, bottom, right), found, _ in TileRuns(self._segmenter, raster, plan).run():
            classes[top:bottom, left:right] = found
        return classes


class _ImageInMemory:
    """A raw image (C, H, W) as a raster; it holds nothing that was not there before."""

    held_bytes = 0
    path = Path("the given image")

    def __init__(self, image: Tensor) -> None:
        self._pixels: NDArray[Any] = image.cpu().numpy()
        self.channels, height, width = (int(n) for n in self._pixels.shape)
        self.size = height, width
        self.dtype = self._pixels.dtype

    def read(self, window: Window) -> NDArray[Any]:
        """Returns the pixels (C, h, w)."""
        top, left, bottom, right = window
        return np.array(self._pixels[:, top:bottom, left:right], order="C")

    def missing(self, _window: Window, /) -> NDArray[np.bool_] | None:
        """Returns None: every pixel is there."""
        return None

    @property
    def place(self) -> dict[str, Any]:
        """Returns nothing."""
        return {}
