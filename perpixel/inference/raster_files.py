"""Windows of image files read from disk, and class maps written window by window.

A `.npy` file is mapped window by window; a TIFF is read through rasterio (extra ``geo``), which also keeps where on
Earth its pixels lie. Neither is ever whole in memory. Other formats, and TIFF without rasterio, are decoded once as
whole numbers, up to a limit of pixels. Class maps take their final name when they are complete, and not before.
Shapes: C channels, H W image, h w window; ends of windows are exclusive.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perpixel.data.image_files import MAX_PIXELS, read_image
from perpixel.errors import DataError, InvalidValue, RunError
from perpixel.inference.drawing import write_mask
from perpixel.inference.geo import GDAL_BYTES, GEO_HINT, gdal, has_rasterio, rasterio_module
from perpixel.labels import LabelSpace

__all__ = [
    "ClassMapFile",
    "Raster",
    "Window",
    "class_map_suffix",
    "open_raster",
    "writing_class_map",
]

Window = tuple[int, int, int, int]
"""Top, left, bottom, right."""

_TIFF = (".tif", ".tiff")
_NPY = ".npy"
_BLOCK = 512  # pixels


class Raster(Protocol):
    """An image on disk, read by windows."""

    path: Path
    size: tuple[int, int]
    channels: int
    dtype: np.dtype[Any]
    held_bytes: int
    """What the open file and its class map take: 0 or a constant where windows come from disk."""

    def read(self, window: Window) -> NDArray[Any]:
        """Returns the pixels (C, h, w), uint8 or uint16."""
        ...

    def missing(self, window: Window, /) -> NDArray[np.bool_] | None:
        """Returns where the file says that it holds nothing, (h, w); None where it holds all."""
        ...

    @property
    def place(self) -> dict[str, Any]:
        """What a class map of this image inherits: ``crs`` and ``transform`` of a georeferenced file."""
        ...


class ClassMapFile(Protocol):
    """A class map on disk that is written by windows."""

    def write(self, window: Window, train_ids: NDArray[np.uint8]) -> None:
        """Stores the classes (h, w) of a window."""
        ...


@contextmanager
def open_raster(path: str | Path, *, max_pixels: int = MAX_PIXELS, channels: int | None = None) -> Iterator[Raster]:
    """Opens an image for reading by windows; nothing is decoded yet where it can be read from disk.

    Args:
        path: `.npy` (H, W) or (H, W, C) uint8 or uint16; TIFF; or any format that `read_image` knows.
        max_pixels: Files that must be decoded at once may have so many.
        channels: How many are wanted: the last band of a TIFF that is marked as alpha, as GDAL marks the fourth of four
            unless told, is a channel where just this number comes out with it.

    Raises:
        DataError: the file cannot be read, is empty, has another dtype or several pages, or is too large to be decoded
            at once.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    if path.suffix.lower() == _NPY:
        yield NumpyRaster(path)
    elif path.suffix.lower() in _TIFF and has_rasterio():
        with _geo_raster(path, channels) as raster:
            yield raster
    else:
        yield DecodedRaster(path, max_pixels)


class _PlainRaster:
    """What holds all of its pixels and has no place on Earth."""

    def missing(self, _window: Window, /) -> NDArray[np.bool_] | None:
        """Returns None."""
        return None

    @property
    def place(self) -> dict[str, Any]:
        """Returns nothing."""
        return {}


class NumpyRaster(_PlainRaster):
    """A `.npy` file; every window maps it anew, so that no page of it stays in memory."""

    held_bytes = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        array = self._mapped()
        self._planar = array.ndim == 2
        self.size = int(array.shape[0]), int(array.shape[1])
        self.channels = 1 if self._planar else int(array.shape[2])
        self.dtype = array.dtype.newbyteorder("=")

    def read(self, window: Window) -> NDArray[Any]:
        """Returns the pixels (C, h, w)."""
        top, left, bottom, right = _checked(window, self)
        part = self._mapped()[top:bottom, left:right]
        part = part[None] if self._planar else part.transpose(2, 0, 1)
        return np.array(part, dtype=self.dtype, order="C")

    def _mapped(self) -> NDArray[Any]:
        try:
            array: NDArray[Any] = np.lib.format.open_memmap(self.path, mode="r")
        except (OSError, ValueError, OverflowError, SyntaxError, TokenError) as error:
            raise DataError(
                f"{self.path}: cannot be read as a NumPy array: {error}; write it with numpy.save"
            ) from error
        if array.ndim not in (2, 3) or 0 in array.shape:
            raise DataError(
                f"{self.path}: an image array is (H, W) or (H, W, C) without empty sides, got shape {array.shape}"
            )
        _check_dtype(self.path, array.dtype)
        return array


class DecodedRaster(_PlainRaster):
    """An image that is decoded whole, once, as whole numbers."""

    def __init__(self, path: Path, max_pixels: int) -> None:
        self.path = path
        try:
            pixels = read_image(path, max_pixels=max_pixels).numpy()
        except DataError as error:
            if path.suffix.lower() in _TIFF:
                raise DataError(f"{error} {GEO_HINT}") from error
            raise
        self._pixels = pixels.astype(np.uint16) if pixels.dtype == np.int32 else pixels
        self.size = int(pixels.shape[1]), int(pixels.shape[2])
        self.channels = int(pixels.shape[0])
        self.dtype = self._pixels.dtype
        self.held_bytes = self._pixels.nbytes + self.size[0] * self.size[1]

    def read(self, window: Window) -> NDArray[Any]:
        """Returns the pixels (C, h, w)."""
        top, left, bottom, right = _checked(window, self)
        return np.array(self._pixels[:, top:bottom, left:right], order="C")


class GeoRaster:
    """A TIFF that rasterio holds open; an alpha channel is left out, its transparent pixels are missing ones.

    With ``channels`` alpha is one of them where just that many come out with it.
    """

    held_bytes = GDAL_BYTES

    def __init__(self, path: Path, dataset: Any, channels: int | None = None) -> None:
        self.path = path
        self._dataset = dataset
        if len(dataset.subdatasets) > 1:
            raise DataError(f"{path}: holds {len(dataset.subdatasets)} pages; write each into its own file")
        opaque = [
            index for index, kind in zip(dataset.indexes, dataset.colorinterp, strict=True) if kind.name != "alpha"
        ]
        self._bands = list(dataset.indexes) if dataset.count == channels else opaque
        self.size = int(dataset.height), int(dataset.width)
        self.channels = len(self._bands)
        kinds = {dataset.dtypes[index - 1] for index in self._bands}
        if len(kinds) != 1:
            raise DataError(f"{path}: its bands are of several types ({', '.join(sorted(kinds))}); write them as one")
        self.dtype = np.dtype(kinds.pop())
        _check_dtype(path, self.dtype)
        if "palette" in [kind.name for kind in dataset.colorinterp]:
            raise DataError(f"{path}: a TIFF with a palette is not read by windows; write it as RGB")
        marks = {flag.name for flags in dataset.mask_flag_enums for flag in flags}
        alpha_is_read = "alpha" in marks and self._bands != opaque
        self._whole = alpha_is_read or marks == {"all_valid"}

    def read(self, window: Window) -> NDArray[Any]:
        """Returns the pixels (C, h, w)."""
        try:
            pixels: NDArray[Any] = self._dataset.read(self._bands, window=_rio_window(_checked(window, self)))
        except rasterio_module().errors.RasterioError as error:
            raise DataError(f"{self.path}: the window {window} cannot be read: {error}") from error
        return pixels

    def missing(self, window: Window) -> NDArray[np.bool_] | None:
        """Returns where nodata, alpha or a mask says that there is nothing, (h, w)."""
        if self._whole:
            return None
        valid = self._dataset.dataset_mask(window=_rio_window(_checked(window, self)))
        nothing: NDArray[np.bool_] = valid == 0
        return nothing if nothing.any() else None

    @property
    def place(self) -> dict[str, Any]:
        """Returns crs and transform or ground control points, and whether pixels may be missing."""
        transform = self._dataset.transform
        place = None if transform.is_identity else transform
        return {
            "crs": self._dataset.crs,
            "transform": place,
            "gcps": self._dataset.gcps,
            "has_missing": not self._whole,
        }


@contextmanager
def _geo_raster(path: Path, channels: int | None) -> Iterator[GeoRaster]:
    rasterio = rasterio_module()
    with gdal():
        try:
            dataset = rasterio.open(path)
        except rasterio.errors.RasterioError as error:
            raise DataError(f"{path}: cannot be read as TIFF: {error}") from error
        with dataset:
            yield GeoRaster(path, dataset, channels)


def class_map_suffix(raster: Raster) -> str:
    """Returns what the class map of an image is written as: `.npy`, `.tif` or `.png`."""
    if isinstance(raster, NumpyRaster):
        return _NPY
    return ".tif" if isinstance(raster, GeoRaster) else ".png"


@contextmanager
def writing_class_map(path: str | Path, raster: Raster, labels: LabelSpace) -> Iterator[ClassMapFile]:
    """Yields a class map of an image's size that takes windows; it gets its name when the block ends well.

    Args:
        path: Ends in `.npy`, `.tif` or `.png`; a PNG is kept in memory until it is complete (one byte a pixel).
        raster: The image, whose place on Earth and missing pixels a TIFF keeps.
        labels: Stored ids are written.

    Raises:
        InvalidValue: another suffix.
        RunError: the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _class_map(partial, raster, labels) as file:
                yield file
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error}. Check the folder's rights and the free space.") from error


@contextmanager
def _class_map(path: Path, raster: Raster, labels: LabelSpace) -> Iterator[ClassMapFile]:
    if path.suffix == _NPY:
        yield NumpyClassMap(path, raster.size, labels)
    elif path.suffix == ".tif":
        with _geo_class_map(path, raster, labels) as file:
            yield file
    elif path.suffix == ".png":
        kept = PngClassMap(raster.size)
        yield kept
        write_mask(path, kept.train_ids, labels)
    else:
        raise InvalidValue(f"{path}: class maps are written as .npy, .tif or .png, got suffix {path.suffix!r}")


class NumpyClassMap:
    """Stored ids (H, W) in a `.npy` file that is mapped window by window."""

    def __init__(self, path: Path, size: tuple[int, int], labels: LabelSpace) -> None:
        self._path = path
        self._labels = labels
        dtype = labels.decode(np.zeros((1, 1), dtype=np.uint8)).dtype
        np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=size).flush()

    def write(self, window: Window, train_ids: NDArray[np.uint8]) -> None:
        """Stores the classes (h, w) of a window."""
        top, left, bottom, right = window
        mapped = np.lib.format.open_memmap(self._path, mode="r+")
        mapped[top:bottom, left:right] = self._labels.decode(train_ids)
        mapped.flush()


class PngClassMap:
    """Train ids (H, W) in memory, written at the end."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.train_ids = np.zeros(size, dtype=np.uint8)

    def write(self, window: Window, train_ids: NDArray[np.uint8]) -> None:
        """Keeps the classes (h, w) of a window."""
        top, left, bottom, right = window
        self.train_ids[top:bottom, left:right] = train_ids


class GeoClassMap:
    """Stored ids in a tiled, compressed GeoTIFF."""

    def __init__(self, dataset: Any, labels: LabelSpace) -> None:
        self._dataset = dataset
        self._labels = labels

    def write(self, window: Window, train_ids: NDArray[np.uint8]) -> None:
        """Stores the classes (h, w) of a window."""
        self._dataset.write(self._labels.decode(train_ids), 1, window=_rio_window(window))


@contextmanager
def _geo_class_map(path: Path, raster: Raster, labels: LabelSpace) -> Iterator[GeoClassMap]:
    rasterio = rasterio_module()
    place = raster.place
    nothing = labels.decode(np.full((1, 1), labels.ignore_index, dtype=np.uint8))
    profile = {
        "driver": "GTiff",
        "height": raster.size[0],
        "width": raster.size[1],
        "count": 1,
        "dtype": nothing.dtype.name,
        "crs": place.get("crs"),
        "transform": place.get("transform"),
        "nodata": int(nothing[0, 0]) if place.get("has_missing") else None,
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
    }
    try:
        with gdal(), rasterio.open(path, "w", **profile) as dataset:
            if nothing.dtype == np.uint8:
                values = labels.palette()
                dataset.write_colormap(1, {i: tuple(values[3 * i : 3 * i + 3]) for i in range(256)})
            points, system = place.get("gcps", ((), None))
            if points:
                dataset.gcps = (points, system)
            yield GeoClassMap(dataset, labels)
    except rasterio.errors.RasterioError as error:
        raise RunError(f"{path}: cannot be written: {error}") from error


def _rio_window(window: Window) -> Any:
    top, left, bottom, right = window
    return ((top, bottom), (left, right))


def _checked(window: Window, raster: Raster) -> Window:
    """Refuses windows that are empty or reach out of the image."""
    top, left, bottom, right = window
    height, width = raster.size
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise InvalidValue(
            f"{raster.path}: the window of rows {top} to {bottom} and columns {left} to {right} does not lie within "
            f"the image of {height} x {width} pixels"
        )
    return window


def _check_dtype(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise DataError(f"{path}: pixels are uint8 or uint16, this file holds {dtype}; scale and store them as one")
