"""Image and mask files: decoded to NumPy arrays with nothing guessed, or refused with the reason.

JPEG, PNG, WEBP, TIFF and BMP are read, whatever the file's extension says. EXIF orientation is applied, so that pixels
stand as a viewer shows them. Shapes: C channels, H W height and width; sizes are (height, width). Nothing here needs
torch, so that processes which only read masks start at once.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from perpixel.data.picture import FileInside, Picture, PixelSource
from perpixel.errors import DataError

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "DamagedFile",
    "ImageHead",
    "MaskFile",
    "image_head",
    "image_size",
    "mask_is_turned",
    "read_color_mask",
    "read_mask",
    "read_mask_file",
    "read_pixels",
    "turn_upright",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
MAX_PIXELS = 178_000_000
"""Images with more pixels are refused before decoding: a damaged or hostile header must not take the memory."""

# Pillow's own `Image.open` has one limit for the whole process and warns below it, so the readers are called directly.
_READERS: dict[bytes, tuple[str, Callable[[IO[bytes], str], ImageFile.ImageFile]]] = {
    b"\xff\xd8\xff": ("JPEG", JpegImagePlugin.jpeg_factory),
    b"\x89PNG\r\n\x1a\n": ("PNG", PngImagePlugin.PngImageFile),
    b"RIFF": ("WEBP", WebPImagePlugin.WebPImageFile),
    b"II*\x00": ("TIFF", TiffImagePlugin.TiffImageFile),
    b"MM\x00*": ("TIFF", TiffImagePlugin.TiffImageFile),
    b"II+\x00": ("TIFF", TiffImagePlugin.TiffImageFile),
    b"MM\x00+": ("TIFF", TiffImagePlugin.TiffImageFile),
    b"BM": ("BMP", BmpImagePlugin.BmpImageFile),
}
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error)
_ORIENTATION_TAG = 0x0112
# Which unpacking gives the other byte of each 16-bit sample: Pillow keeps one byte of 16-bit colour.
_NATIVE, _SWAPPED = ("L", "B") if sys.byteorder == "little" else ("B", "L")
_OTHER_BYTE = {"16L": "16B", "16B": "16L", "16N": f"16{_SWAPPED}"}
_SHORT_GREY = {"L;2": 85, "L;4": 17}  # Pillow spreads 2- and 4-bit grey over 0..255 by these factors


class DamagedFile(DataError):
    """A file that holds no readable picture, whatever it was meant to hold."""


@dataclass(frozen=True, kw_only=True)
class ImageHead:
    """What the header of an image file says."""

    size: tuple[int, int]
    """Height and width once the picture stands upright."""
    orientation: int
    """EXIF orientation, 1 (as stored) to 8."""
    format: str
    """JPEG, PNG, WEBP, TIFF or BMP; ``"array"`` for a `Picture`."""

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width of the pixels in the file, before EXIF orientation."""
        height, width = self.size
        return (width, height) if self.orientation >= 5 else (height, width)


@dataclass(frozen=True, kw_only=True)
class MaskFile:
    """A mask as it lies in a file."""

    ids: NDArray[Any]
    """Stored ids (H, W), uint8 or uint16."""
    palette: bytes | None
    """Colours of the ids 0, 1, … as RGB triplets, for display only; None for a file without palette."""


def image_head(path: str | PixelSource, *, max_pixels: int = MAX_PIXELS) -> ImageHead:
    """Reads the header only.

    Raises:
        DataError: no such file, not an image of a known format, several pages, or more than ``max_pixels`` pixels.
    """
    if isinstance(path, Picture):
        return _picture_head(path, max_pixels)
    with _opened(_located(path), max_pixels) as (_, head):
        return head


def image_size(path: str | PixelSource) -> tuple[int, int]:
    """Returns (height, width) of the upright picture from the header only.

    Raises:
        DataError: as `image_head`.
    """
    return image_head(path).size


def read_pixels(path: str | PixelSource, *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Decodes an image upright: (H, W) grey or (H, W, 3) RGB, uint8 or uint16; alpha is dropped, palettes are resolved.

    Raises:
        DataError: as `perpixel.data.image_files.read_image`.
    """
    if isinstance(path, Picture):
        return _picture_pixels(path, max_pixels)
    path = _located(path)
    with _opened(path, max_pixels) as (image, head):
        pixels = _deep_color(path, image, max_pixels) if _is_deep_color(image) else _intensities(path, image)
        return _upright(pixels, head)


def read_mask(path: str | PixelSource, *, like: ImageHead | None = None, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Reads the stored ids of a mask: palette indices, grey values or bits, exactly as the file holds them.

    Args:
        path: File with one id per pixel. Colour files pass when their three channels are equal; alpha is ignored.
        like: Header of the mask's image. Where the image is turned by EXIF and the mask has no tag of its own but the
            size of the un-turned image, the mask is turned alike (see `mask_is_turned`).
        max_pixels: Larger files are refused before decoding.

    Returns:
        (H, W) uint8, or uint16 for 16- and 32-bit files.

    Raises:
        DataError: the file cannot be read, is a JPEG, holds colours, fractions, or ids outside [0, 65535].
    """
    return read_mask_file(path, like=like, max_pixels=max_pixels).ids


def read_mask_file(path: str | PixelSource, *, like: ImageHead | None = None, max_pixels: int = MAX_PIXELS) -> MaskFile:
    """Reads a mask as `read_mask` does, with the palette that the file carries."""
    if isinstance(path, Picture):
        ids = _picture_pixels(path, max_pixels)
        if ids.ndim != 2:
            raise DataError(f"{path}: a mask holds one whole number per pixel, this array has shape {ids.shape}")
        return MaskFile(ids=_turned_like(ids, _picture_head(path, max_pixels), like), palette=None)
    path = _located(path)
    with _opened(path, max_pixels) as (image, head):
        if head.format == "JPEG":
            raise DataError(
                f"{path}: a JPEG file cannot be a mask, because its compression changes the ids near every border. "
                "Save the masks as PNG from where they were drawn."
            )
        factor = _SHORT_GREY.get(_rawmode(image), 1)
        ids = _upright(_ids(path, image), head)
        palette = image.palette.tobytes() if image.mode == "P" and image.palette is not None else None
    if factor > 1:
        ids = ids // np.uint8(factor)
    return MaskFile(ids=_turned_like(ids, head, like), palette=palette)


def read_color_mask(
    path: str | PixelSource, *, like: ImageHead | None = None, max_pixels: int = MAX_PIXELS
) -> NDArray[Any]:
    """Reads a mask whose colours are the labels: (H, W, 3) uint8, for `LabelSpace.encode_colors`; alpha is ignored.

    Raises:
        DataError: the file cannot be read, is a JPEG, has 16 bits per channel, or holds ids by its format.
    """
    if isinstance(path, Picture):
        raise DataError(f"{path}: this format holds class ids, not colours; set data.mask_encoding=ids")
    path = _located(path)
    with _opened(path, max_pixels) as (image, head):
        if head.format == "JPEG":
            raise DataError(f"{path}: a JPEG file cannot be a mask, because its compression changes colours. Use PNG.")
        if ";16" in _rawmode(image) or image.mode.startswith("I"):
            raise DataError(f"{path}: colours of masks have 8 bits per channel, this file has 16 or more")
        pixels = _upright(_intensities(path, image), head)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return _turned_like(pixels, head, like)


def mask_is_turned(mask: ImageHead, image: ImageHead) -> bool:
    """Tells whether a mask without EXIF tag follows its image's orientation, because it fits the un-turned image.

    A half turn or mirror, and any turn of a square, fit both ways; stored pixels are then taken to lie on stored
    pixels, as in the published data sets, whose masks were drawn without regard to EXIF.
    """
    return image.orientation > 1 and mask.orientation == 1 and mask.size == image.stored_size


def _located(path: str | Path | FileInside) -> Path | FileInside:
    return Path(path) if isinstance(path, str) else path


def _picture_head(picture: Picture, max_pixels: int) -> ImageHead:
    height, width = picture.size()
    if height * width > max_pixels:
        raise DataError(
            f"{picture}: {height} x {width} = {height * width} pixels are more than the limit of {max_pixels}; nothing "
            "was decoded. If the picture is meant to be that large, raise max_pixels."
        )
    return ImageHead(size=(height, width), orientation=1, format="array")


def _picture_pixels(picture: Picture, max_pixels: int) -> NDArray[Any]:
    head = _picture_head(picture, max_pixels)
    pixels = picture.read()
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.shape[:2] != head.size or pixels.shape[2:] not in ((), (3,)):
        raise DataError(
            f"{picture}: pixels of type {pixels.dtype} and shape {pixels.shape} are no picture of {head.size[0]} x "
            f"{head.size[1]}; 8- or 16-bit whole numbers in one or three channels are read"
        )
    return pixels


@contextmanager
def _opened(path: Path | FileInside, max_pixels: int) -> Iterator[tuple[ImageFile.ImageFile, ImageHead]]:
    """Yields the open, still undecoded file and its header; what Pillow raises becomes a DataError naming the file."""
    try:
        with path.open("rb") as file:
            image, format_name = _identify(path, file)
            pages = getattr(image, "n_frames", 1)
            # The further pictures of an MPO photo are previews and depth maps of the first.
            if pages > 1 and format_name != "JPEG":
                raise DataError(
                    f"{path}: the {format_name} file holds {pages} pages and only single pictures are read. "
                    "Write every page to a file of its own."
                )
            orientation = _orientation(image)
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(
                    f"{path}: the header says {height} x {width} = {width * height} pixels, more than the limit of "
                    f"{max_pixels}; nothing was decoded. If the picture is meant to be that large, raise max_pixels."
                )
            # Pillow swaps the sides of a turned TIFF on opening, those of other formats never.
            size = (width, height) if orientation >= 5 and format_name != "TIFF" else (height, width)
            yield image, ImageHead(size=size, orientation=orientation, format=format_name)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: {error} Save the picture as PNG or TIFF and raise max_pixels.") from error
    except _DECODING_ERRORS as error:
        raise DamagedFile(f"{path}: cannot be read as an image, damaged or cut short: {error}") from error


def _identify(path: Path | FileInside, file: IO[bytes]) -> tuple[ImageFile.ImageFile, str]:
    start = file.read(12)
    file.seek(0)
    if not start:
        raise DamagedFile(f"{path}: the file is empty")
    for magic, (name, reader) in _READERS.items():
        if start.startswith(magic) and (name != "WEBP" or start[8:] == b"WEBP"):
            return reader(file, ""), name
    raise DamagedFile(f"{path}: not a JPEG, PNG, WEBP, TIFF or BMP file (it starts with {start[:8]!r})")


def _orientation(image: ImageFile.ImageFile) -> int:
    """Returns the EXIF orientation, 1 where there is none or it cannot be read."""
    if isinstance(image, PngImagePlugin.PngImageFile) and "exif" not in image.info:
        return 1  # Pillow would decode the whole file in search of a late tag
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODING_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: NDArray[Any], head: ImageHead) -> NDArray[Any]:
    """Applies EXIF orientation; Pillow has done so already in a TIFF."""
    return pixels if head.format == "TIFF" else turn_upright(pixels, head.orientation)


def turn_upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turns stored pixels (H, W, ...) upright by their EXIF orientation, 1 to 8 (EXIF 2.3, tag 0x0112)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _turned_like(pixels: NDArray[Any], head: ImageHead, like: ImageHead | None) -> NDArray[Any]:
    if like is not None and mask_is_turned(head, like):
        pixels = turn_upright(pixels, like.orientation)
    return np.ascontiguousarray(pixels)


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Returns how the file packs its samples, in Pillow's words, such as ``"RGB;16B"``."""
    arguments = image.tile[0].args if image.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _is_deep_color(image: ImageFile.ImageFile) -> bool:
    return ";16" in _rawmode(image) and not image.mode.startswith("I")


def _deep_color(path: Path | FileInside, image: ImageFile.ImageFile, max_pixels: int) -> NDArray[Any]:
    """Decodes 16-bit colour, of which Pillow keeps one byte per sample, by decoding once for either byte."""
    packing, _, depth = _rawmode(image).partition(";")
    if packing not in ("RGB", "RGBA") or depth not in _OTHER_BYTE:
        raise DataError(
            f"{path}: 16-bit pixels packed as {_rawmode(image)} cannot be read; save as 16-bit grey or RGB without "
            "alpha, or as 8 bit"
        )
    high: NDArray[np.uint16] = np.asarray(image)[..., :3].astype(np.uint16)
    with _opened(path, max_pixels) as (again, _):
        other = f"{packing};{_OTHER_BYTE[depth]}"
        again.tile = [
            tile._replace(args=other if isinstance(tile.args, str) else (other, *(tile.args or ())[1:]))
            for tile in again.tile
        ]
        low: NDArray[np.uint8] = np.asarray(again)[..., :3]
    deep: NDArray[Any] = high << 8 | low
    return deep


def _intensities(path: Path | FileInside, image: ImageFile.ImageFile) -> NDArray[Any]:
    """Decodes to grey (H, W) or RGB (H, W, 3), uint8 or uint16."""
    mode = image.mode
    if mode.startswith("I"):
        return _whole_numbers(path, np.asarray(image), "intensities")
    if mode == "F":
        raise DataError(f"{path}: pixels are fractions (32-bit float); save the image with 8 or 16 bits per channel")
    grey = mode in ("1", "L", "LA", "La")
    return np.asarray(image.convert("L" if grey else "RGB"))


def _ids(path: Path | FileInside, image: ImageFile.ImageFile) -> NDArray[Any]:
    mode = image.mode
    if mode in ("1", "L", "P"):
        return np.asarray(image).astype(np.uint8, copy=False)
    if mode.startswith("I"):
        return _whole_numbers(path, np.asarray(image), "ids")
    if mode in ("LA", "PA"):
        return np.asarray(image)[..., 0]
    if mode not in ("RGB", "RGBA") or _is_deep_color(image):
        raise DataError(f"{path}: a mask holds one whole number per pixel, this file has mode {mode}; save it as PNG")
    rgb = np.asarray(image)[..., :3]
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all():
        return rgb[..., 0]
    raise DataError(_colors_message(path, rgb))


def _whole_numbers(path: Path | FileInside, values: NDArray[Any], what: str) -> NDArray[np.uint16]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise DataError(f"{path}: {what} from {low} to {high} are outside [0, 65535]; write the file with 16 bits")
    return values.astype(np.uint16)


def _colors_message(path: Path | FileInside, rgb: NDArray[Any]) -> str:
    packed = rgb.astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)
    colors, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    listed = ", ".join(
        f"({colors[i] >> 16}, {colors[i] >> 8 & 255}, {colors[i] & 255}) on {counts[i]} pixels" for i in order[:8]
    )
    more = f" and {len(colors) - 8} more" if len(colors) > 8 else ""
    return (
        f"{path}: the mask holds colours instead of class ids: {listed}{more}. If the colours are the classes, set "
        "data.mask_encoding=colors and give a label space that has these colours: --labels with a known name or with "
        "a label file that lists names and colors. Else write masks with one id per pixel."
    )
