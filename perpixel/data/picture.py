"""Pixels that are no file of their own: a page, a field of a matrix file, an archive's member, polygons.

Everything that reads images and masks takes a `PixelSource`: a path, or one of the two kinds here. A format of data
makes them; nobody else asks what is behind one. Shapes: H W height and width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, Any, TypeAlias

from numpy.typing import NDArray

__all__ = ["FileInside", "Picture", "PixelSource", "file_of"]


class Picture(ABC):
    """An image or mask that some other file holds or describes.

    Implementations are frozen dataclasses: small, comparable, and sent to worker processes, which read the pixels.
    Their text is what messages call them: the file, and the place in it.
    """

    @property
    @abstractmethod
    def path(self) -> Path:
        """The file on disk that the pixels come from; several: the first."""

    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Returns (height, width), where possible without decoding.

        Raises:
            DataError: the file cannot be read.
        """

    @abstractmethod
    def read(self) -> NDArray[Any]:
        """Decodes: ids (H, W) of a mask, or intensities (H, W) or (H, W, 3) of an image; uint8 or uint16.

        Raises:
            DataError: the file cannot be read; names it and the place in it.
        """


class FileInside(ABC):
    """An image file that lies inside another file, such as a member of an archive."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """The file on disk that holds it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name within that file."""

    @abstractmethod
    def open(self, mode: str = "rb") -> IO[bytes]:
        """Opens it for reading; only ``"rb"``.

        Raises:
            OSError: it cannot be read.
        """


PixelSource: TypeAlias = Path | Picture | FileInside


def file_of(source: PixelSource) -> Path:
    """Returns the file on disk that holds the pixels."""
    return source if isinstance(source, Path) else source.path
