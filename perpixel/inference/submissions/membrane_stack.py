"""The ISBI 2012 challenge's submission: one 32-bit float TIFF, a page per slice, 0 on membranes and 1 inside cells.

Shapes: S slices, H W slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from perpixel.data.image_files import MAX_PIXELS
from perpixel.errors import DataError, RunError
from perpixel.inference.submissions.servers import MEMBRANE_SPACE, MembraneStack
from perpixel.labels import LabelSpace

__all__ = ["check_stack", "inside_class", "read_slices", "write_stack"]

_TIFF_MAGICS = (b"II*\x00", b"MM\x00*")
_READING_ERRORS = (OSError, SyntaxError, ValueError, TypeError, EOFError, Image.DecompressionBombError)
_FRACTIONS = "F"


def inside_class(labels: LabelSpace) -> int:
    """Returns the class that is not membrane, of the two that a model must have.

    Raises:
        DataError: the model has other classes.
    """
    plain = [name.casefold() for name in labels.names]
    if len(plain) != 2 or "membrane" not in plain:
        raise DataError(
            f"the ISBI 2012 challenge takes the two classes of label space {MEMBRANE_SPACE!r}, membrane and cell "
            f"interior; the model's label space {labels.name!r} has {labels.num_classes}: {', '.join(labels.names[:8])}"
            f". Submit a model that was trained (or imported) with --labels {MEMBRANE_SPACE}, so that membranes are "
            "known by name."
        )
    return 1 - plain.index("membrane")


def read_slices(path: Path) -> Iterator[tuple[str, NDArray[Any] | Path]]:
    """Yields each picture of a file with a name for messages: the pages of a TIFF as arrays (H, W), else the path.

    Raises:
        DataError: the file cannot be read, or a page is not 8- or 16-bit grey.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) not in _TIFF_MAGICS:
                yield str(path), path
                return
            file.seek(0)
            with TiffImagePlugin.TiffImageFile(file, "") as image:
                for page in range(getattr(image, "n_frames", 1)):
                    image.seek(page)
                    if image.width * image.height > MAX_PIXELS or image.mode not in ("L", "I;16", "I;16B"):
                        raise DataError(
                            f"{path}, page {page + 1}: {image.height} x {image.width} pixels of mode {image.mode}; "
                            "slices are 8- or 16-bit grey pictures"
                        )
                    pixels = np.asarray(image)
                    yield f"{path}, page {page + 1}", pixels if pixels.dtype == np.uint8 else pixels.astype(np.uint16)
    except _READING_ERRORS as error:
        raise DataError(f"{path}: cannot be read as an image, damaged or cut short: {error}") from error


def write_stack(path: Path, slices: Sequence[NDArray[np.float32]]) -> None:
    """Writes slices (H, W) float32 as the pages of one uncompressed TIFF.

    Raises:
        RunError: the file cannot be written.
    """
    pages = [Image.fromarray(np.ascontiguousarray(values, dtype=np.float32)) for values in slices]
    try:
        pages[0].save(path, format="TIFF", save_all=True, append_images=pages[1:])
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error}. Check the folder's rights and the free space.") from error


def check_stack(path: Path, server: MembraneStack, count: int | None) -> int:
    """Returns the number of slices of a stack that is in order.

    Args:
        path: The TIFF file.
        server: Says sizes, and the number of slices where ``count`` is None.
        count: Expected number of slices.

    Raises:
        DataError: it is no TIFF, or a page's kind, size or values, or their number, are wrong.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    counts = server.counts if count is None else (count,)
    try:
        with path.open("rb") as file:
            if file.read(4) not in _TIFF_MAGICS:
                raise DataError(f"{path}: not a TIFF file; {server.title} takes one TIFF with a page per slice")
            file.seek(0)
            with TiffImagePlugin.TiffImageFile(file, "") as image:
                pages = int(getattr(image, "n_frames", 1))
                if pages not in counts:
                    expected = " or ".join(str(number) for number in counts)
                    raise DataError(f"{path}: {pages} slices, {expected} are expected; write one page per slice")
                for page in range(pages):
                    image.seek(page)
                    _check_page(f"{path}, page {page + 1}", image, server)
    except _READING_ERRORS as error:
        raise DataError(f"{path}: cannot be read as TIFF, damaged or cut short: {error}; write it again") from error
    return pages


def _check_page(place: str, image: TiffImagePlugin.TiffImageFile, server: MembraneStack) -> None:
    if (image.height, image.width) != server.size:
        raise DataError(
            f"{place}: {image.height} x {image.width} pixels, slices have {server.size[0]} x {server.size[1]}; "
            "predict at the slices' own size"
        )
    if image.mode != _FRACTIONS:
        raise DataError(f"{place}: mode {image.mode}, not 32-bit float; write probabilities, not classes")
    values = np.asarray(image)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise DataError(
            f"{place}: values from {values.min():g} to {values.max():g}; probabilities lie in [0, 1], 0 on membranes"
        )
