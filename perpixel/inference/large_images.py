"""Segments an image file tile by tile: the class map is written as it goes, in memory that the plan bounds.

`LargeImages` decides which files want that; `plan_raster` plans an open one and measures on it what tiling changes;
`segment_raster` runs the plan. Shapes: C channels, H W image, h w window.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from perpixel.data.image_files import MAX_PIXELS, image_head
from perpixel.errors import DataError, InvalidValue
from perpixel.inference.drawing import display_image, overlay
from perpixel.inference.geo import GEO_HINT, has_rasterio, holds_more_than_a_picture
from perpixel.inference.memory import bytes_text, free_memory
from perpixel.inference.raster_files import (
    GeoRaster,
    Raster,
    Window,
    class_map_suffix,
    open_raster,
    writing_class_map,
)
from perpixel.inference.segmenter import Segmenter
from perpixel.inference.tile_cost import TileCost, measure_tile_cost
from perpixel.inference.tile_plan import TilePlan, given_size, least_bytes, plan_tiles, whole_bytes
from perpixel.inference.tile_runs import TileRuns, disagreement

__all__ = ["LargeImages", "LargeResult", "plan_raster", "segment_raster", "tile_cost", "tileable"]

USUAL_SHARE = 0.6
"""Share of the free memory that is taken where none is stated."""
SMALL_PIXELS = 4_000_000
"""Images of at most so many pixels are seen whole without any measuring, unless an amount of memory is stated."""

_NOTHING = TileCost(fixed_bytes=0, bytes_per_pixel=0, period=None)  # small images are not worth measuring
_PREVIEW_SIDE = 1024
_BATCH_ON_GPU = 8
_COPIES = 4  # raw pixels as the file has them, as a batch, 16 bits in 32, and the classes that are written


@dataclass(frozen=True, kw_only=True)
class LargeResult:
    """A class map that was written tile by tile."""

    mask: Path
    size: tuple[int, int]
    plan: TilePlan
    counts: tuple[int, ...]
    """Pixels per class."""
    missing: int
    """Pixels that the file marks as holding nothing; they are written as ignored."""
    overlay: Image.Image
    """The classes over the image, both thinned to at most 1024 pixels a side."""


class LargeImages:
    """Takes the images that want tiles: files that do not fit the memory in one piece, arrays, and wide TIFF files.

    Args:
        segmenter: Predicts.
        memory_bytes: What the work on an image may take; None is `USUAL_SHARE` of what is free when the image comes.
        max_pixels: Formats that are decoded at once may have so many pixels.
        on_plan: Receives the image and its plan before the tiles are run.
        on_tile: Receives the image, and the number of tiles done and of all.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        memory_bytes: int | None = None,
        max_pixels: int = MAX_PIXELS,
        on_plan: Callable[[Path, TilePlan], None] | None = None,
        on_tile: Callable[[Path, int, int], None] | None = None,
    ) -> None:
        needs_whole = tileable(segmenter)
        if needs_whole and memory_bytes is not None:
            raise InvalidValue(f"an amount of memory was given, but {needs_whole}; leave one of the two out")
        if max_pixels < 1:
            raise InvalidValue(f"max_pixels is a number of pixels >= 1, got {max_pixels}")
        self._segmenter = segmenter
        self._needs_whole = needs_whole
        self._memory_bytes = memory_bytes
        self._max_pixels = max_pixels
        self._on_plan = on_plan
        self._on_tile = on_tile
        self._cost: TileCost | None = None

    def segment(self, path: Path, out: Path) -> LargeResult | None:
        """Segments a file tile by tile, or returns None where it is an image like any other.

        Args:
            path: The image.
            out: Path of the class map without suffix.

        Raises:
            DataError: the file cannot be read, or its channels do not fit the network.
            InvalidValue: the memory is too small for one window.
            MissingExtra: a TIFF needs rasterio.
        """
        is_array = path.suffix.lower() == ".npy"
        if not is_array and self._is_ordinary(path):
            return None
        if self._needs_whole:
            raise DataError(
                f"{path}: is read by windows alone, but {self._needs_whole}; write it as PNG or leave that out"
            )
        channels = self._segmenter.preprocessing.num_channels
        with open_raster(path, max_pixels=self._max_pixels, channels=channels) as raster:
            plan = plan_raster(self._segmenter, raster, memory_bytes=self._memory(), cost=self._cost_for(raster.size))
            if self._on_plan is not None:
                self._on_plan(path, plan)
            on_tile = self._on_tile
            told = None if on_tile is None else lambda done, total: on_tile(path, done, total)
            return segment_raster(self._segmenter, raster, out, plan, on_tile=told)

    def _is_ordinary(self, path: Path) -> bool:
        """Tells whether the usual way will do: a picture that Pillow reads and that fits the memory in one piece."""
        try:
            size = image_head(path, max_pixels=self._max_pixels).size
        except DataError as error:
            if path.suffix.lower() not in (".tif", ".tiff"):
                raise
            if not has_rasterio():
                raise DataError(f"{error} {GEO_HINT}") from error
            return False
        if self._needs_whole:
            return True
        if holds_more_than_a_picture(path, self._segmenter.preprocessing.num_channels):
            return False
        if self._is_small(size):
            return True
        if math.prod(size) > MAX_PIXELS:
            return False
        return whole_bytes(self._segmenter.network, size, self._cost_for(size)) <= self._memory()

    def _is_small(self, size: tuple[int, int]) -> bool:
        return self._memory_bytes is None and math.prod(size) <= SMALL_PIXELS

    def _cost_for(self, size: tuple[int, int]) -> TileCost:
        if self._is_small(size):
            return _NOTHING
        if self._cost is None:
            self._cost = tile_cost(self._segmenter, memory_bytes=self._memory())
        return self._cost

    def _memory(self) -> int:
        if self._memory_bytes is not None:
            return self._memory_bytes
        return int(USUAL_SHARE * free_memory(self._segmenter.device))


def tileable(segmenter: Segmenter) -> str | None:
    """Returns None where tiles can replace the whole image, else what needs it whole."""
    if segmenter.procedure is not None:
        return f"the procedure {type(segmenter.procedure).__name__} runs on whole images"
    if segmenter.crf is not None:
        return "the dense CRF joins all pixels of an image"
    if segmenter.postprocessing is not None and not segmenter.postprocessing.is_empty:
        return "thresholds and the removal of small regions work on whole images"
    return None


def tile_cost(segmenter: Segmenter, *, memory_bytes: int, dtype: torch.dtype = torch.uint8) -> TileCost:
    """Measures what tiles of this model cost (`measure_tile_cost`), and adds what is held of a tile beside that."""
    contract: Any = segmenter.network

    def work(images: Tensor) -> tuple[int, int]:
        with torch.no_grad():
            scores = segmenter.image_scores(images)
            scores.classes()
        return int(scores.logits.shape[-2]), int(scores.logits.shape[-1])

    cost = measure_tile_cost(
        work,
        segmenter.network,
        given=lambda size: given_size(contract, size),
        memory_bytes=memory_bytes,
        device=segmenter.device,
        dtype=dtype,
    )
    if segmenter.device.type != "cpu":
        return cost
    beside = _COPIES * segmenter.preprocessing.num_channels
    return replace(cost, bytes_per_pixel=cost.bytes_per_pixel + beside)


def plan_raster(
    segmenter: Segmenter,
    raster: Raster,
    *,
    memory_bytes: int,
    cost: TileCost,
    tile: tuple[int, int] | None = None,
    margin: int | None = None,
) -> TilePlan:
    """Plans the tiles of an open image and, where there are several, measures on it what the tiling changes.

    Raises:
        InvalidValue: as `plan_tiles`; a file that is decoded at once takes all of the memory; or what follows the model
            needs the whole image.
        DataError: the image's channels do not fit the network.
    """
    needs_whole = tileable(segmenter)
    if needs_whole:
        raise InvalidValue(f"{raster.path}: {needs_whole}, so it cannot be cut into tiles; leave that out")
    _check_channels(segmenter, raster)
    plan = plan_tiles(
        segmenter.network,
        raster.size,
        memory_bytes=_room(segmenter, raster, memory_bytes, cost),
        cost=cost,
        tile=tile,
        margin=margin,
        max_batch=_BATCH_ON_GPU if segmenter.device.type == "cuda" else 1,
        in_all=lambda needed: needed + _held(segmenter, raster, needed // 2),
    )
    return plan if plan.tiles == 1 else plan.measured(disagreement(segmenter, raster, plan, cost))


def _held(segmenter: Segmenter, raster: Raster, most: int) -> int:
    """Returns what the open file takes beside tiles, of GDAL at most so much; a GPU's memory holds none of it."""
    if segmenter.device.type != "cpu":
        return 0
    return min(raster.held_bytes, most) if isinstance(raster, GeoRaster) else raster.held_bytes


def _room(segmenter: Segmenter, raster: Raster, memory_bytes: int, cost: TileCost) -> int:
    """Returns what is left for tiles beside what the open file takes."""
    held = _held(segmenter, raster, memory_bytes // 3)
    if held >= memory_bytes:
        least = math.ceil((held + least_bytes(segmenter.network, raster.size, cost)) / 1e6)
        raise InvalidValue(
            f"{raster.path}: its decoded pixels and their class map take {bytes_text(held)} of the "
            f"{bytes_text(memory_bytes)} allowed; give --memory {least}MB or more, or a file that is read by windows: "
            f".npy or TIFF. {GEO_HINT}"
        )
    return memory_bytes - held


def segment_raster(
    segmenter: Segmenter,
    raster: Raster,
    out: str | Path,
    plan: TilePlan,
    *,
    on_tile: Callable[[int, int], None] | None = None,
) -> LargeResult:
    """Writes the class map of an open image; ``out`` gets the suffix of its kind (`class_map_suffix`).

    Args:
        segmenter: Predicts.
        raster: The image.
        out: Path of the class map without suffix.
        plan: From `plan_raster`.
        on_tile: Called with the number of tiles done and of all.

    Raises:
        DataError: a window cannot be read.
        RunError: the scores are not finite, or the file cannot be written; nothing is left under ``out`` then.
    """
    path = Path(out).with_name(Path(out).name + class_map_suffix(raster))
    if path.resolve() == raster.path.resolve():
        raise DataError(f"{path} is the image and would be replaced by its class map; give another out folder")
    runner = TileRuns(segmenter, raster, plan)
    preview = _Preview(raster.size)
    counts = np.zeros(256, dtype=np.int64)
    done = missing = 0
    with writing_class_map(path, raster, segmenter.labels) as file:
        for window, classes, pixels in runner.run():
            nothing = raster.missing(window)
            if nothing is not None:
                classes = np.where(nothing, np.uint8(segmenter.labels.ignore_index), classes)
                missing += int(nothing.sum())
            file.write(window, classes)
            counts += np.bincount(classes.reshape(-1), minlength=256)
            preview.add(window, classes, pixels)
            done += 1
            del classes, pixels, nothing  # before the next tile is there too
            if on_tile is not None:
                on_tile(done, plan.tiles)
    return LargeResult(
        mask=path,
        size=raster.size,
        plan=plan,
        counts=tuple(int(n) for n in counts[: segmenter.labels.num_classes]),
        missing=missing,
        overlay=Image.fromarray(overlay(preview.picture, preview.classes, segmenter.labels)),
    )


class _Preview:
    """Every n-th row and column of an image and of its classes."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._step = math.ceil(max(size) / _PREVIEW_SIDE)
        height, width = (len(range(0, side, self._step)) for side in size)
        self.picture = np.zeros((height, width, 3), dtype=np.uint8)
        self.classes = np.zeros((height, width), dtype=np.uint8)

    def add(self, window: Window, classes: NDArray[np.uint8], pixels: Tensor) -> None:
        """Keeps what a window (h, w), (C, h, w) adds."""
        inside, outside = [], []
        for start, stop in ((window[0], window[2]), (window[1], window[3])):
            first = -(-start // self._step)
            inside.append(slice(first * self._step - start, stop - start, self._step))
            outside.append(slice(first, -(-stop // self._step)))
        rows, columns = inside
        thin = pixels[:, rows, columns]
        if thin.numel():
            self.classes[tuple(outside)] = classes[rows, columns]
            self.picture[tuple(outside)] = display_image(thin)


def _check_channels(segmenter: Segmenter, raster: Raster) -> None:
    wanted = segmenter.preprocessing.num_channels
    if raster.channels == wanted or {raster.channels, wanted} == {1, 3}:
        return
    hint = ""
    if raster.path.suffix == ".npy":
        hint = " Arrays are (H, W) or (H, W, C): channels come last."
    raise DataError(
        f"{raster.path}: {raster.size[0]} x {raster.size[1]} pixels with {raster.channels} channels, and the network "
        f"takes {wanted}. Only grey and RGB stand in for each other.{hint}"
    )
