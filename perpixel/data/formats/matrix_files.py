"""Images and masks that are fields of MATLAB files, or slices of HDF5 files.

MATLAB stores columns first: what it calls height x width lies in HDF5 as (W, H), and height x width x 3 x images as
(N, 3, W, H). `Hdf5Slice.axes` says how one slice becomes (H, W) or (H, W, 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.data.decoding import DamagedFile
from perpixel.data.formats.item import listed
from perpixel.data.formats.mat5 import MAX_BYTES, Unread, read_variable
from perpixel.data.picture import Picture
from perpixel.errors import DataError

__all__ = ["Hdf5Slice", "MatField", "mat_strings", "opened_hdf5", "read_mat"]

_KEPT = 8  # decoded masks that a process keeps, because size and pixels of one are asked for in turn


@dataclass(frozen=True)
class MatField(Picture):
    """An array of a .mat file of versions 5 to 7.2: a variable, or a field of a 1 x 1 structure, by its keys."""

    file: Path
    keys: tuple[str, ...]

    @property
    def path(self) -> Path:
        return self.file

    def size(self) -> tuple[int, int]:
        height, width = self.read().shape[:2]
        return height, width

    def read(self) -> NDArray[Any]:
        try:
            status = self.file.stat()
        except OSError as error:
            raise DataError(f"{self.file}: cannot be read: {error.strerror}") from error
        return _mat_pixels(self, status.st_mtime_ns, status.st_size)

    def __str__(self) -> str:
        return f"{self.file}: {'.'.join(self.keys)}"


@dataclass(frozen=True)
class Hdf5Slice(Picture):
    """A slice of a dataset in an HDF5 file (MATLAB 7.3); a dataset of references is followed to what it points at."""

    file: Path
    dataset: str
    index: tuple[int, ...] = ()
    """Position in the leading axes; ``()`` is the whole dataset."""
    axes: tuple[int, ...] = (1, 0)
    """Which axis of the slice becomes H, W and, where there are three, the channels."""

    @property
    def path(self) -> Path:
        return self.file

    def size(self) -> tuple[int, int]:
        with opened_hdf5(self.file) as file:
            _, shape = self._found(file)
        return shape[self.axes[0]], shape[self.axes[1]]

    def read(self) -> NDArray[Any]:
        with opened_hdf5(self.file) as file:
            dataset, shape = self._found(file)
            if math.prod(shape) * dataset.dtype.itemsize > MAX_BYTES:
                raise DataError(f"{self}: a slice of shape {shape} is larger than {MAX_BYTES} bytes; it is refused")
            stored = dataset[self.index] if len(shape) < dataset.ndim else dataset[()]
        return _whole_numbers(np.ascontiguousarray(np.transpose(stored, self.axes)), self)

    def __str__(self) -> str:
        place = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        return f"{self.file}: {self.dataset}{place}"

    def _found(self, file: Any) -> tuple[Any, tuple[int, ...]]:
        """Returns the dataset that holds the slice, and the slice's shape."""
        dataset = _dataset(file, self.dataset, self)
        leading = dataset.shape[: len(self.index)]
        if len(self.index) > dataset.ndim or any(not 0 <= i < n for i, n in zip(self.index, leading, strict=True)):
            raise DataError(f"{self}: the dataset has shape {dataset.shape}, so there is no such slice")
        shape = tuple(int(size) for size in dataset.shape[len(self.index) :])
        if "ref" in (dataset.dtype.metadata or {}) and not shape:
            reference = dataset[self.index]
            if not reference:
                raise DataError(f"{self}: the reference is empty, so there is nothing behind it")
            dataset = _checked(file[reference], self)
            shape = tuple(int(size) for size in dataset.shape)
        if sorted(self.axes) != list(range(len(shape))):
            raise DataError(f"{self}: a slice of shape {shape} does not have the {len(self.axes)} axes of a picture")
        return dataset, shape


def read_mat(file: Path, keys: tuple[str, ...]) -> NDArray[Any]:
    """Reads what ``keys`` lead to in a .mat file of versions 5 to 7.2: a variable, then fields of 1 x 1 structures.

    Raises:
        DataError: the file cannot be read or is of version 7.3, a key leads nowhere, or to an array that is not read.
    """
    value: Any = read_variable(file, keys[0])
    for depth, key in enumerate(keys[1:], start=1):
        place = ".".join(keys[:depth])
        fields = getattr(value.dtype, "names", None)
        if fields is None or key not in fields:
            held = f"it has the fields {listed(fields)}" if fields else f"it is an array of shape {value.shape}"
            raise DataError(f"{file}: {place} has no field {key!r}; {held}")
        if value.size != 1:
            raise DataError(f"{file}: {place} is {value.size} structures, and one was expected")
        value = value[key].reshape(-1)[0]
    if value.dtype == object and value.shape == () and isinstance(value.item(), Unread):
        raise DataError(f"{file}: {'.'.join(keys)} is {value.item().what}; data sets with labels do not hold such")
    array: NDArray[Any] = value
    return array


def mat_strings(values: NDArray[Any]) -> list[str]:
    """Flattens a cell array of texts, as `read_mat` returns it; a cell that is no text becomes ``""``."""
    texts = []
    for value in values.reshape(-1):
        text = np.asarray(value)
        texts.append(str(text.reshape(-1)[0]) if text.dtype.kind == "U" and text.size == 1 else "")
    return texts


@contextmanager
def opened_hdf5(file: Path) -> Iterator[Any]:
    """Opens an HDF5 file for reading; what h5py raises becomes a DataError that names the file.

    Raises:
        DataError: h5py is not installed, or the file is missing, damaged or of another kind.
    """
    try:
        import h5py
    except ImportError as error:
        raise DataError(
            f"{file}: HDF5 files are read by h5py, which is not installed; pip install 'perpixel[formats]'"
        ) from error
    if not file.is_file():
        raise DataError(f"{file}: there is no such file")
    try:
        with h5py.File(file, "r") as opened:
            yield opened
    except DataError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        if _is_version_5(file):
            raise DataError(
                f"{file}: this is a .mat file of an older version than 7.3 (HDF5), which is read here. Fetch the file "
                "that the data set publishes, or write it again in MATLAB with save(..., '-v7.3')."
            ) from error
        raise DamagedFile(f"{file}: cannot be read as HDF5, damaged or cut short: {error}") from error


@lru_cache(maxsize=_KEPT)
def _mat_pixels(field: MatField, _modified: int, _bytes: int) -> NDArray[Any]:
    pixels = read_mat(field.file, field.keys)
    if pixels.dtype.kind not in "uifb" or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise DataError(f"{field}: an array of type {pixels.dtype} and shape {pixels.shape} is no image and no mask")
    pixels = np.ascontiguousarray(_whole_numbers(pixels, field))
    pixels.flags.writeable = False  # it is shared by all who ask
    return pixels


def _whole_numbers(values: NDArray[Any], place: Picture) -> NDArray[Any]:
    """Returns uint8 where the file has it, else uint16, when that changes no value."""
    if values.dtype == np.uint8 or values.dtype == np.uint16:
        return values
    if values.dtype.kind not in "uifb" or values.size == 0:
        raise DataError(f"{place}: an array of type {values.dtype} and shape {values.shape} holds no pixels")
    whole = values.astype(np.uint16) if values.min() >= 0 and values.max() <= 65535 else None
    if whole is None or not (whole == values).all():
        low, high = values.min(), values.max()
        raise DataError(f"{place}: values from {low} to {high} are not all whole numbers in [0, 65535]")
    return whole


def _dataset(file: Any, name: str, place: Picture) -> Any:
    """Finds a dataset by its path within the file, following no link that leads out of it."""
    group = file
    for part in name.strip("/").split("/"):
        names = list(group) if hasattr(group, "keys") else []
        if part not in names:
            raise DataError(f"{place}: there is no {part!r}; the file holds {listed(sorted(names)) or 'nothing'} there")
        if hasattr(group.get(part, getlink=True), "filename"):
            raise DataError(f"{place}: {part!r} is a link into another file, which is not followed")
        group = group[part]
    return _checked(group, place)


def _checked(dataset: Any, place: Picture) -> Any:
    """Refuses what is no dataset, and datasets whose values lie in other files."""
    if not hasattr(dataset, "shape"):
        raise DataError(f"{place}: this is a group of datasets, not a dataset")
    if dataset.external or dataset.is_virtual:
        raise DataError(f"{place}: the values lie in other files, which are not read")
    if dataset.chunks is not None and math.prod(dataset.chunks) * dataset.dtype.itemsize > MAX_BYTES:
        raise DataError(f"{place}: chunks of {dataset.chunks} values are larger than {MAX_BYTES} bytes; refused")
    return dataset


def _is_version_5(file: Path) -> bool:
    with file.open("rb") as opened:
        head = opened.read(128)
    return head[126:128] in (b"IM", b"MI") and not head.startswith(b"MATLAB 7.3")
