"""Checks a submission as the server will see it: layout, names, count, and each mask's size, kind and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, PngImagePlugin

from perpixel.data.image_files import MAX_PIXELS
from perpixel.errors import DataError
from perpixel.inference.submissions.archives import read_members
from perpixel.inference.submissions.membrane_stack import check_stack
from perpixel.inference.submissions.servers import MaskServer, find_server, keys_of

__all__ = ["SubmissionCheck", "validate_submission"]

_NAMED = 20
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_IHDR_END = 33
_GREY, _INDEXED = 0, 3


@dataclass(frozen=True, kw_only=True)
class SubmissionCheck:
    """A submission that was found to be in order."""

    path: Path
    format: str
    count: int
    """Masks, or slices of a stack."""


def validate_submission(
    path: str | Path,
    format: str,  # noqa: A002 - what a user of servers calls it
    expected_names: Iterable[str] | None = None,
    *,
    expected_sizes: Mapping[str, tuple[int, int]] | None = None,
) -> SubmissionCheck:
    """Checks an archive (for ``isbi`` a TIFF) against what a test server takes; nothing is unpacked.

    Args:
        path: The archive, of any tool.
        format: A key of `SUBMISSIONS`.
        expected_names: The images, by name or path; None asks for as many as the server's test set has. Of a stack,
            only their number counts.
        expected_sizes: Height and width of images, by name; where the server has one size, that one holds for all.

    Raises:
        DataError: it is not in order; the message names every kind of fault with the files.
        InvalidValue: there is no such format.
    """
    path = Path(path)
    server = find_server(format)
    names = None if expected_names is None else list(expected_names)
    if not isinstance(server, MaskServer):
        count = check_stack(path, server, None if names is None else len(names))
        return SubmissionCheck(path=path, format=format, count=count)
    wanted = None if names is None else keys_of(names, server)
    sizes: dict[str, tuple[int, int]] = {}
    for name, size in (expected_sizes or {}).items():
        (key,) = keys_of([name], server)
        sizes[key] = size
    found, faults = _check_members(path, server, sizes)
    if wanted is None:
        if len(found) not in server.counts:
            faults.append(f"{len(found)} masks, the test set has {_either(server.counts)} images")
    else:
        faults += _unmatched(wanted, found)
    if faults:
        listed = "\n".join(f"  {fault}" for fault in faults[:_NAMED])
        more = f"\n  and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise DataError(f"{path}: not what {server.title} takes, {len(faults)} faults:\n{listed}{more}")
    return SubmissionCheck(path=path, format=format, count=len(found))


def _either(counts: tuple[int, ...]) -> str:
    return " or ".join(str(count) for count in counts)


def _check_members(
    path: Path, server: MaskServer, sizes: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, str], list[str]]:
    """Returns the masks' names by image, and all faults."""
    found: dict[str, str] = {}
    faults: list[str] = []
    for name, content in read_members(path, server.archive):
        key = _key_of_member(name, server)
        if key is None:
            faults.append(_misplaced(name, server))
            continue
        if key in found:
            faults.append(f"{name}: a second mask of image {key}, beside {found[key]}; keep one")
            continue
        found[key] = name
        fault = _mask_fault(content, server, server.size or sizes.get(key))
        if fault:
            faults.append(f"{name}: {fault}")
    return found, faults


def _key_of_member(name: str, server: MaskServer) -> str | None:
    place = PurePosixPath(name)
    if "\\" in name or place.is_absolute() or ".." in place.parts or place.suffix != ".png":
        return None
    folder = "" if str(place.parent) == "." else str(place.parent)
    if folder != server.folder and not server.any_depth:
        return None
    return server.key(place.stem)


def _misplaced(name: str, server: MaskServer) -> str:
    example = server.member(server.key(server.example) or server.example)
    depth = ", in any folder" if server.any_depth else ""
    return f"{name}: has no place in the archive, whose masks are named like {example}{depth}; rename or remove it"


def _unmatched(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    faults = [f"no mask of image {wanted[key]}; predict it" for key in wanted if key not in found]
    faults += [f"{found[key]}: belongs to no expected image; remove it" for key in found if key not in wanted]
    if len(found) != len(wanted):
        faults.append(f"{len(found)} masks for {len(wanted)} images")
    return faults


def _mask_fault(content: bytes, server: MaskServer, size: tuple[int, int] | None) -> str | None:
    """Returns what is wrong with a PNG file, or None."""
    if not content.startswith(_PNG_MAGIC) or len(content) < _IHDR_END:
        return "not a PNG file; write masks as PNG"
    width, height = (int.from_bytes(content[start : start + 4], "big") for start in (16, 20))
    bits, color = content[24], content[25]
    if size is not None and (height, width) != size:
        return f"{height} x {width} pixels, its image has {size[0]} x {size[1]}; predict at the image's own size"
    if width * height > MAX_PIXELS:
        return f"{height} x {width} pixels are more than any test image has"
    if server.palette and color != _INDEXED:
        return "not an indexed PNG; write class indices with the VOC palette"
    if color not in (_GREY, _INDEXED) or (color == _GREY and bits != 8):
        return "not one 8-bit id per pixel (single-channel or indexed PNG); write ids, not colours"
    try:
        with PngImagePlugin.PngImageFile(BytesIO(content)) as image:
            palette = image.getpalette() or []
            ids = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"cannot be decoded, damaged or cut short ({error}); write it again"
    known = 3 * server.labels.num_classes
    if server.palette and list(palette[:known]) != server.labels.palette()[: min(known, len(palette))]:
        return "its palette is not VOC's; write the palette of the data set's own masks"
    return _value_fault(ids, server)


def _value_fault(ids: np.ndarray, server: MaskServer) -> str | None:
    counts = np.bincount(ids.reshape(-1), minlength=256)
    wrong = [int(value) for value in np.flatnonzero(counts) if int(value) not in server.ids]
    if not wrong:
        return None
    row, column = (int(i) for i in np.argwhere(ids == wrong[0])[0])
    more = f" (and {len(wrong) - 1} other values)" if len(wrong) > 1 else ""
    hint = ""
    if server.name == "cityscapes" and int(np.flatnonzero(counts).max()) < server.labels.num_classes:
        hint = "; these look like train ids, the server takes label ids"
    return (
        f"value {wrong[0]} on {int(counts[wrong[0]])} pixels, the first at row {row}, column {column}{more}; "
        f"the server takes {_ranges(server.ids)}{hint}"
    )


def _ranges(ids: tuple[int, ...]) -> str:
    """Writes 0, 7, 8, 9 as ``0, 7..9``."""
    parts: list[list[int]] = []
    for value in ids:
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}..{part[-1]}" for part in parts)
