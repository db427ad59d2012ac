"""The one place where rasterio, the package of the extra ``geo``, is imported: when it is needed, and not before."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from perpixel.errors import MissingExtra

__all__ = ["GDAL_BYTES", "GEO_HINT", "gdal", "has_rasterio", "holds_more_than_a_picture", "rasterio_module"]

GEO_HINT = "The extra 'geo' (pip install 'perpixel[geo]') reads TIFF files by windows."

_CACHE_BYTES = 32 * 2**20  # GDAL's own default is a twentieth of the machine
GDAL_BYTES = 100_000_000
"""What GDAL takes beside the pixels that are read: its libraries, its cache, and blocks on their way (measured)."""


def has_rasterio() -> bool:
    """Tells whether TIFF files can be read by windows here."""
    return importlib.util.find_spec("rasterio") is not None


def rasterio_module() -> ModuleType:
    """Imports rasterio.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import rasterio
    except ImportError as error:
        raise MissingExtra(f"rasterio is not installed. {GEO_HINT}") from error
    module: ModuleType = rasterio
    return module


@contextmanager
def gdal() -> Iterator[None]:
    """Bounds GDAL's cache, and keeps quiet about images without a place on Earth.

    Raises:
        MissingExtra: rasterio is not installed.
    """
    rasterio = rasterio_module()
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES), warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        yield


def holds_more_than_a_picture(path: Path, channels: int) -> bool:
    """Tells whether a file is a TIFF that reading it as a picture would take something from; False without rasterio.

    That is its place on Earth, its nodata value, or the bands of a network that takes neither grey nor RGB.
    """
    if path.suffix.lower() not in (".tif", ".tiff") or not has_rasterio():
        return False
    try:
        with gdal(), rasterio_module().open(path) as dataset:
            placed = dataset.crs is not None or not dataset.transform.is_identity or bool(dataset.gcps[0])
            return placed or dataset.nodata is not None or (channels not in (1, 3) and dataset.count == channels)
    except rasterio_module().errors.RasterioError:
        return False
