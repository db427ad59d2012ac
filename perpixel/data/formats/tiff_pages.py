"""Pages of a TIFF file as images or masks: stacks of slices come as one file with a page each."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import TiffImagePlugin

from perpixel.data.decoding import DamagedFile
from perpixel.data.picture import Picture
from perpixel.errors import DataError

__all__ = ["TiffPage", "count_pages"]

_DECODING_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error)
_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


@dataclass(frozen=True)
class TiffPage(Picture):
    """One page, its numbers as stored: grey or ids (H, W), indices of a palette, bits as 0 and 1, RGB (H, W, 3)."""

    file: Path
    page: int
    """Counted from 0."""

    @property
    def path(self) -> Path:
        return self.file

    def size(self) -> tuple[int, int]:
        with _opened(self.file) as image:
            self._turn_to(image)
            return image.size[1], image.size[0]

    def read(self) -> NDArray[Any]:
        with _opened(self.file) as image:
            self._turn_to(image)
            mode = image.mode
            pixels = np.asarray(image)
        if mode in ("L", "P", "RGB"):
            return pixels
        if mode == "1":
            return pixels.astype(np.uint8)
        if mode.startswith("I") and pixels.min() >= 0 and pixels.max() <= 65535:
            return pixels.astype(np.uint16)
        raise DataError(f"{self}: pixels of mode {mode} are not read; save the stack with 8 or 16 bits, grey or RGB")

    def __str__(self) -> str:
        return f"{self.file}: page {self.page}"

    def _turn_to(self, image: TiffImagePlugin.TiffImageFile) -> None:
        try:
            image.seek(self.page)
        except EOFError as error:
            raise DataError(f"{self}: there is no such page, the file holds {count_pages(self.file)}") from error


def count_pages(file: Path) -> int:
    """Returns the number of pages.

    Raises:
        DataError: the file is missing, damaged or no TIFF.
    """
    with _opened(file) as image:
        return image.n_frames


@contextmanager
def _opened(path: Path) -> Iterator[TiffImagePlugin.TiffImageFile]:
    try:
        with path.open("rb") as file:
            if file.read(4) not in _MAGIC:
                raise DataError(f"{path}: not a TIFF file")
            file.seek(0)
            yield TiffImagePlugin.TiffImageFile(file, "")
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except _DECODING_ERRORS as error:
        raise DamagedFile(f"{path}: cannot be read as a TIFF file, damaged or cut short: {error}") from error
