"""Reads one image and its mask once, in a worker process, and keeps what the findings need.

Nothing here stops at a fault: what cannot be read is a `Problem`. Shapes: H W image.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perpixel.data.decoding import MAX_PIXELS, DamagedFile, ImageHead, image_head
from perpixel.data.formats.list_file import file_fault
from perpixel.data.inspection.following import following, small_luminance
from perpixel.data.inspection.records import (
    GRID,
    THUMBNAIL,
    ImageRecord,
    MaskRecord,
    PairRecord,
    Problem,
    Stored,
    packed,
)
from perpixel.data.inspection.runs import count_regions, mask_runs, sampled
from perpixel.data.picture import FileInside, Picture, PixelSource, file_of
from perpixel.errors import DataError

__all__ = ["PairReader", "Task"]

Task = Sequence[tuple[PixelSource | None, PixelSource | None]]
"""Image and mask of some pairs."""

_Small: TypeAlias = NDArray[np.float32] | None
_DRAFT = (64, 64)
_MOST_COLORS = 256
_MOST_IDS = 300
_PNG = b"\x89PNG\r\n\x1a\n"
_HELD_FILE = 1 << 28  # larger files are decoded from the disk
_SHORT_GREY = {"L;2": 85, "L;4": 17}  # Pillow spreads these over 0..255
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, MemoryError, zlib.error)
_LUMINANCE = np.array([19595, 38470, 7471], dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class PairReader:
    """Turns pairs of files into records; sent to every worker once."""

    max_pixels: int = MAX_PIXELS
    stride: int = 8
    """Pixels of the training image per point of the score map."""
    size: tuple[int, int] | None = None
    """Height and width that images are resized to for training; None keeps them."""

    def __call__(self, task: Task) -> list[PairRecord]:
        """Reads some pairs."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of damaged tags and of sizes that were checked
            return [self._pair(image, mask) for image, mask in task]

    def _pair(self, image: PixelSource | None, mask: PixelSource | None) -> PairRecord:
        seen, small = self._image(image)
        return PairRecord(seen, self._mask(mask, None if seen is None else seen.stored, small))

    def _image(self, source: PixelSource | None) -> tuple[ImageRecord | None, _Small]:
        if source is None:
            return None, None
        opened = _opened(source, self.max_pixels)
        if isinstance(opened, Problem):
            return ImageRecord(None, opened), None
        try:
            return _image_record(opened)
        except DamagedFile as error:
            return ImageRecord(None, Problem("damaged_file", str(error))), None

    def _mask(self, source: PixelSource | None, image: Stored | None, small: _Small) -> MaskRecord | None:
        if source is None:
            return None
        opened = _opened(source, self.max_pixels)
        if isinstance(opened, Problem):
            return MaskRecord(None, opened)
        try:
            return self._mask_record(opened, image, small)
        except DamagedFile as error:
            return MaskRecord(None, Problem("damaged_file", str(error)))

    def _mask_record(self, opened: _Opened, image: Stored | None, small: _Small) -> MaskRecord:
        values, alpha = opened.values(), ()
        stored = opened.stored()
        if values.ndim == 3:
            if values.shape[2] in (2, 4):
                alpha = tuple(np.unique(values[..., -1])[:9].tolist())
                values = values[..., :-1]
            values = values[..., 0] if values.shape[2] == 1 or _channels_agree(values) else values[..., :3]
        digest = _digest(values)
        if values.ndim == 3:
            return _color_record(stored, values, digest, alpha)
        if values.dtype.kind == "f" and not np.array_equal(values, np.floor(values)):
            return MaskRecord(stored, Problem("not_an_image", "pixels are fractions, no whole numbers"))
        low, high = int(values.min(initial=0)), int(values.max(initial=0))
        if low < 0 or high > 65535:
            return MaskRecord(stored, Problem("not_an_image", f"values from {low} to {high} are no class ids"))
        ids = np.ascontiguousarray(values.astype(np.uint8 if high < 256 else np.uint16, copy=False))
        counts = np.bincount(ids.reshape(-1))
        present = np.flatnonzero(counts)
        runs = mask_runs(ids)
        regions: list[tuple[int, int, int]] = []
        if present.size <= _MOST_IDS and ids.size:
            found = count_regions(ids, runs, *self._grid(*ids.shape))
            regions = [(i, total, missed) for i, (total, missed) in found.items()]
        return MaskRecord(
            stored,
            digest=digest,
            packed_counts=packed((int(i), int(counts[i])) for i in present[:_MOST_IDS]),
            distinct=int(present.size),
            alpha=alpha,
            palette=opened.palette(),
            noise=runs.noise(),
            packed_regions=packed(regions),
            grid=_on_grid(ids),
            follows=following(small, ids)
            if image is not None and small is not None and image.stored_size == ids.shape
            else None,
        )

    def _grid(self, height: int, width: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Rows and columns of the mask on which the points of the score map lie."""
        target = (height, width) if self.size is None else self.size
        points = [max(1, -(-side // self.stride)) for side in target]
        return sampled(height, points[0]), sampled(width, points[1])


@dataclass
class _Opened:
    """An image file with its header read, or the pixels of a picture."""

    source: PixelSource
    head: ImageHead
    image: Image.Image | None
    data: bytes

    def stored(self) -> Stored:
        name = self.source.name if isinstance(self.source, FileInside) else file_of(self.source).name
        suffix = Path(name).suffix.lower()
        if self.image is None:
            return Stored(self.head.size, 1, "array", "array", 8, "")
        packing = _packing(self.image)
        bits = 16 if ";16" in packing or self.image.mode.startswith("I") else 32 if self.image.mode == "F" else 8
        return Stored(self.head.size, self.head.orientation, self.head.format, self.image.mode, bits, suffix)

    def values(self) -> NDArray[Any]:
        """Decodes as stored: (H, W) or (H, W, C), palettes as their indices, EXIF orientation not applied.

        Raises:
            DamagedFile: whatever a decoder makes of it.
        """
        try:
            if self.image is None:
                assert isinstance(self.source, Picture)
                return self.source.read()
            factor = _SHORT_GREY.get(_packing(self.image), 1)
            if self.image.mode in ("PA", "CMYK", "YCbCr", "LAB", "HSV"):
                self.image = self.image.convert("RGBA" if self.image.mode == "PA" else "RGB")
            values = np.asarray(self.image)
        except DataError as error:
            raise DamagedFile(str(error)) from error
        except _DECODING_ERRORS as error:
            raise DamagedFile(f"{type(error).__name__}: {error}") from error
        if values.dtype == bool:
            values = values.astype(np.uint8)
        return values // factor if factor > 1 else values

    def palette(self) -> bytes:
        if self.image is None or self.image.mode != "P" or self.image.palette is None:
            return b""
        return self.image.palette.tobytes()


def _opened(source: PixelSource, max_pixels: int) -> _Opened | Problem:
    """Opens a file as far as its header, or says why that fails."""
    try:
        if isinstance(source, Picture):
            head = image_head(source, max_pixels=max_pixels)
            return _Opened(source, head, None, b"")
        if isinstance(source, Path) and not source.is_file():
            return Problem("not_a_file", file_fault(source) or "")
        if isinstance(source, Path) and source.stat().st_size == 0:
            return Problem("empty_file", "")
        head = image_head(source, max_pixels=max_pixels)
        data = _content(source)
        file: IO[bytes] = io.BytesIO(data) if data else source.open("rb")
        damage = _png_damage(data) if head.format == "PNG" else None
        if damage is not None:
            return Problem("damaged_file", damage)
        return _Opened(source, head, Image.open(file, formats=[head.format]), data)
    except DamagedFile as error:
        text = str(error)
        known = "not a JPEG, PNG, WEBP, TIFF or BMP file" in text
        return Problem("not_an_image" if known else "damaged_file", _after_name(text))
    except DataError as error:
        text = str(error)
        kind = "too_large" if "max_pixels" in text else "several_pages" if " pages " in text else "unreadable"
        return Problem(kind, _after_name(text))
    except PermissionError as error:
        return Problem("unreadable", str(error.strerror))
    except _DECODING_ERRORS as error:
        return Problem("damaged_file", str(error))


def _packing(image: Image.Image) -> str:
    """Returns how the file packs its samples, in Pillow's words, such as ``RGB;16B``."""
    tiles = getattr(image, "tile", ())
    first = tiles[0].args if tiles else ""
    first = first[0] if isinstance(first, tuple) and first else first
    return first if isinstance(first, str) else ""


def _content(source: PixelSource) -> bytes:
    if isinstance(source, Path) and source.stat().st_size > _HELD_FILE:
        return b""
    assert not isinstance(source, Picture)
    with source.open("rb") as file:
        return file.read()


def _after_name(text: str) -> str:
    return text.split(": ", 1)[-1].split(". ")[0]


def _png_damage(data: bytes) -> str | None:
    """Walks the chunks of a PNG file, whose sums Pillow does not check, up to its end."""
    place = len(_PNG)
    while data:
        length = int.from_bytes(data[place : place + 4], "big")
        end = place + 12 + length
        if end > len(data):
            return "the file is cut short"
        kind = data[place + 4 : place + 8]
        if zlib.crc32(data[place + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return f"the check sum of part {kind!r} is wrong"
        if kind == b"IEND":
            return None
        place = end
    return None


def _image_record(opened: _Opened) -> tuple[ImageRecord, _Small]:
    stored = opened.stored()
    lossy = stored.format == "JPEG"
    if lossy and opened.image is not None:
        opened.image.draft(None, _DRAFT)  # decodes all of the stream, at 1/8 of the size
    values = opened.values()
    if values.dtype.kind == "f" and stored.bits == 32:
        return ImageRecord(stored, Problem("unknown_format", "pixels are 32-bit fractions")), None
    pixels = values[..., :-1] if values.ndim == 3 and values.shape[2] in (2, 4) else values
    if stored.mode == "P" and opened.image is not None:
        pixels = np.asarray(opened.image.convert("RGB"))
    grey = pixels.ndim == 2 or pixels.shape[2] == 1 or _nearly_grey(pixels)
    luminance = _luminance(pixels)
    record = ImageRecord(
        stored,
        grey=grey,
        blank=bool(pixels.size) and int(luminance.max()) == int(luminance.min()) and _one_color(pixels),
        digest=hashlib.blake2b(opened.data, digest_size=16).digest() if lossy else _digest(pixels),
        thumbnail=_thumbnail(luminance, stored.bits),
        cut=_cut(luminance),
    )
    return record, small_luminance(luminance) if luminance.size else None


def _luminance(pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] < 3:
        return pixels[..., 0]
    grey: NDArray[np.int64] = (pixels[..., :3].astype(np.int32) @ _LUMINANCE.astype(np.int32)) >> 16
    return grey


def _thumbnail(luminance: NDArray[Any], bits: int) -> bytes:
    """Averages cells of a grid of T x T; 16-bit values are stretched to their own range."""
    values = luminance.astype(np.float32)
    if bits > 8 and values.size:
        values *= 255.0 / max(1.0, float(values.max()))
    small = Image.fromarray(values).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small).round().clip(0, 255).astype(np.uint8).tobytes()


def _cut(luminance: NDArray[Any]) -> float:
    """Returns the share of the height that is of one colour, from the lower edge up."""
    if not luminance.size:
        return 0.0
    even = (luminance[::-1] == luminance[-1, -1]).all(axis=1)
    return float(even.argmin() / len(even)) if not even.all() else 1.0


def _one_color(pixels: NDArray[Any]) -> bool:
    return bool((pixels == pixels[:1, :1]).all())


def _nearly_grey(pixels: NDArray[Any]) -> bool:
    """Equal channels but for what JPEG leaves of them, on every other pixel."""
    part = pixels[::2, ::2, :3].astype(np.int32)
    return int(np.ptp(part, axis=2).max(initial=0)) <= 2


def _channels_agree(values: NDArray[Any]) -> bool:
    return bool((values[..., 0] == values[..., 1]).all() and (values[..., 0] == values[..., 2]).all())


def _color_record(stored: Stored, values: NDArray[Any], digest: bytes, alpha: tuple[int, ...]) -> MaskRecord:
    rgb = values.astype(np.uint32)
    flat = (rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]).astype(np.uint32)
    colors, counts = np.unique(flat, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_MOST_COLORS]
    return MaskRecord(
        stored,
        digest=digest,
        packed_colors=packed((int(colors[i]), int(counts[i])) for i in order),
        distinct=int(colors.size),
        alpha=alpha,
        noise=mask_runs(flat).noise(),
    )


def _on_grid(ids: NDArray[Any]) -> bytes:
    """Ids at the centres of a grid of equal cells."""
    rows, columns = ((np.arange(GRID) * 2 + 1) * side // (2 * GRID) for side in ids.shape)
    return ids[np.ix_(rows, columns)].astype("<u2").tobytes()


def _digest(values: NDArray[Any]) -> bytes:
    digest = hashlib.blake2b(repr((values.shape, values.dtype.str)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(values).data)
    return digest.digest()
