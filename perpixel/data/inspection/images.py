"""What images are like: grey among colour, 8 and 16 bits, blank, absurd in shape, too small."""

from __future__ import annotations

from collections.abc import Sequence

from perpixel.data.inspection.case import Case
from perpixel.data.inspection.collector import Collector

__all__ = ["note_images"]

_ODD_RATIO = 4.0
_ABSURD_RATIO = 10.0
_UNUSUAL = 2.0
_LEAST_POINTS = 4
_CUT = 0.1
_RARE = 0.2
_UNUSUAL_MODES = ("RGBA", "LA", "PA", "RGBa", "La", "CMYK", "LAB", "YCbCr")


def note_images(cases: Sequence[Case], found: Collector, *, stride: int) -> None:
    """Notes images that differ from the others, or of which little is left at the stride of the network."""
    seen = [case for case in cases if case.image_stored is not None]
    depth_odd = _note_minority(
        seen,
        [case.image_stored is not None and case.image_stored.bits > 8 for case in seen],
        "mixed_depth",
        found,
        ("16 bits", "8 bits"),
    )
    # A 16-bit file is usually grey: that it is grey is then no news.
    same_depth = [case for case in seen if id(case) not in depth_odd]
    greys = [case.image is not None and case.image.grey for case in same_depth]
    lively = [not (case.image is not None and case.image.blank) for case in same_depth]
    chosen = [(case, grey) for case, grey, live in zip(same_depth, greys, lively, strict=True) if live]
    _note_minority([c for c, _ in chosen], [g for _, g in chosen], "odd_channels", found, ("grey", "colour"))
    _note_cut(seen, found)
    _note_shapes(seen, found, stride)
    for case in seen:
        stored = case.image_stored
        if case.image is not None and case.image.blank:
            found.add("blank_image", case.pair.image_file)
        if stored is not None and stored.mode in _UNUSUAL_MODES:
            found.add("odd_mode", case.pair.image_file, f"{case.pair.image_file}: {stored.mode}")


def _note_minority(
    cases: Sequence[Case], marks: Sequence[bool], kind: str, found: Collector, words: tuple[str, str]
) -> set[int]:
    """Notes the smaller of two groups, where there are two; returns which cases those are."""
    count = sum(marks)
    if count in (0, len(cases)):
        return set()
    odd = 2 * count <= len(cases)
    chosen = [case for case, mark in zip(cases, marks, strict=True) if mark == odd]
    for case in chosen:
        word, other = words if odd else words[::-1]
        found.add(
            kind, case.pair.image_file, f"{case.pair.image_file}: {word}, {len(cases) - len(chosen)} have {other}"
        )
    return set(map(id, chosen))


def _note_cut(cases: Sequence[Case], found: Collector) -> None:
    """Notes images that end in one colour, where most others do not."""
    cut = [case for case in cases if case.image is not None and case.image.cut >= _CUT and not case.image.blank]
    for case in cut if len(cut) <= _RARE * len(cases) else ():
        assert case.image is not None
        found.add(
            "cut_image", case.pair.image_file, f"{case.pair.image_file}: {100 * case.image.cut:.0f} % of the height"
        )


def _note_shapes(cases: Sequence[Case], found: Collector, stride: int) -> None:
    sizes = [case.image_stored.size for case in cases if case.image_stored is not None]
    ratios = [max(size) / max(1, min(size)) for size in sizes]
    usual = sorted(ratios)[len(ratios) // 2] if ratios else 1.0
    for case, (height, width), ratio in zip(cases, sizes, ratios, strict=True):
        file = case.pair.image_file
        if ratio > _ABSURD_RATIO or (ratio > _ODD_RATIO and ratio > _UNUSUAL * usual):
            found.add("odd_aspect", file, f"{file}: {height} x {width}, usual is 1 to {usual:.3g}")
        elif min(height, width) < _LEAST_POINTS * stride:
            found.add("tiny_image", file, f"{file}: {height} x {width}")
