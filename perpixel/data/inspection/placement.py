"""How masks lie on their images: sizes, and what EXIF orientation does to the pair."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from perpixel.data.inspection.case import Case
from perpixel.data.inspection.collector import Collector
from perpixel.data.inspection.records import Stored

__all__ = ["note_placement", "note_stray"]

_ELSEWHERE_SAID = (
    "leaked_image",
    "near_duplicate",
    "duplicate_image",
    "same_mask",
    "turned_mask",
    "list_pairs_differ",
    "exif_image",
    "tiny_image",
    "odd_aspect",
)
_LEAST_MASKS = 20
_FOLLOWS = 1.5
"""How much more an image changes along its mask than elsewhere, at the middle of masks that can be judged by it."""
_STRAY = 1.25
"""Less than every mask of CamVid (1.33) and ISBI 2012 (1.55), more than 97 of 100 masks of other images."""
_SPREAD = 1.5
"""Where masks follow their images more or less, less than the lowest tenth by so many times its way to the middle."""
_RARE = 0.2


def note_placement(cases: Sequence[Case], found: Collector) -> None:
    """Notes pairs of different sizes, and pairs of which EXIF turns one side, both, or each another way."""
    for case in cases:
        image, mask = case.image_stored, case.mask_stored
        if image is None or mask is None:
            if image is not None and image.orientation > 1 and case.mask is None:
                found.add(
                    "exif_image", case.pair.image_file, f"{case.pair.image_file}: orientation {image.orientation}"
                )
            continue
        files = (case.pair.image_file, case.mask_file)
        if image.orientation > 1 or mask.orientation > 1:
            _note_turned(case, image, mask, found)
        elif image.size != mask.size:
            case.fault = case.fault or "size_mismatch"
            found.add(
                "size_mismatch", files, f"{files[0]} is {_size(image)}, its mask {_size(mask)}{_pattern(image, mask)}"
            )


def note_stray(cases: Sequence[Case], found: Collector) -> None:
    """Notes masks whose borders are nowhere on their image, where those of the others are.

    Masks with another fault, and copies of images or masks, are passed over: of those it was said what is wrong.
    """
    told = found.files(*_ELSEWHERE_SAID)
    values = sorted(case.mask.follows for case in cases if case.mask is not None and case.mask.follows is not None)
    count = len(values)
    if count < _LEAST_MASKS or values[count // 2] < _FOLLOWS:
        return
    usual, low = values[count // 2], values[count // 10]
    least = min(_STRAY, low - _SPREAD * (usual - low))
    stray = [
        case
        for case in cases
        if case.fault is None and _follows(case) < least and not {case.pair.image_file, case.mask_file} & told
    ]
    for case in stray if len(stray) <= _RARE * count else ():
        assert case.mask is not None
        said = f"{case.mask_file}: {case.mask.follows:.2f} times the change of the image elsewhere"
        found.add("stray_mask", case.mask_file, f"{said} (usually {usual:.2f})")


def _follows(case: Case) -> float:
    """Returns how a mask follows its image; infinite where that cannot be told."""
    blank = case.image is None or case.image.blank
    return inf if blank or case.mask is None or case.mask.follows is None else case.mask.follows


def _note_turned(case: Case, image: Stored, mask: Stored, found: Collector) -> None:
    files = (case.pair.image_file, case.mask_file)
    said = f"{files[0]}: orientation {image.orientation}, its mask {mask.orientation}"
    as_stored = image.stored_size == mask.stored_size
    if image.orientation == mask.orientation:
        kind = "exif_both" if as_stored else "size_mismatch"
    elif mask.orientation == 1:
        fits = mask.size in (image.stored_size, image.size)
        kind = "exif_image" if fits else "size_mismatch"
    else:
        kind = "exif_mask" if image.orientation == 1 else "exif_differs"
        if as_stored:
            case.mend = {"as": "stored"}
    if kind in ("exif_mask", "exif_differs", "size_mismatch"):
        case.fault = case.fault or kind
    found.add(kind, files if kind != "exif_mask" else files[1], said)


def _size(stored: Stored) -> str:
    return f"{stored.size[0]} x {stored.size[1]}"


def _pattern(image: Stored, mask: Stored) -> str:
    """Says what the sizes suggest."""
    (height, width), (mask_height, mask_width) = image.size, mask.size
    if (height, width) == (mask_width, mask_height):
        return " (sides exchanged: turned by a quarter?)"
    if height * mask_width == width * mask_height:
        return f" (the same shape, {mask_height / height:.3g} times the size)"
    return ""
