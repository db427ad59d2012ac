"""How masks are encoded: what the folder as a whole holds, and which masks differ from it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from perpixel.data.formats.item import listed
from perpixel.data.inspection.case import Case
from perpixel.data.inspection.collector import Collector
from perpixel.data.inspection.known_ids import Known
from perpixel.data.inspection.places import Places, grid_ids
from perpixel.data.inspection.records import MaskRecord
from perpixel.labels import LabelSpace, known_label_spaces

__all__ = [
    "color_table",
    "covered_by",
    "find_color_space",
    "named_colors",
    "note_shuffled_palettes",
    "note_unreadable_encodings",
    "note_whole_encoding",
]

_SMEARED = 0.15
"""Share of short runs with an id between those of both sides: at most 0.07 in drawn masks, 0.28 in smoothed ones."""
_SHORTEST_MEAN_RUN = 2.5
"""Pixels; ids of chance make runs of 1 to 2, smoothed masks of drawn things much longer ones."""
_LEAST_RUNS = 60
_MANY = 64
_LAST_BYTE = 255
_MANY_COLORS = 256
_MOSTLY = 0.6
_FEW = 3
_RARE = 0.2
_LEAST_GAIN = 0.5
"""Nats per point by which the colours must explain a mask better than its ids."""
_COVERED = 0.95


def note_unreadable_encodings(cases: Sequence[Case], found: Collector, *, colors: bool) -> None:
    """Marks masks whose numbers are no labels, whatever the label space: JPEG, smoothed ids, pictures, transparency.

    Args:
        cases: All pairs.
        found: Takes the findings.
        colors: Whether the masks of this data are colours.
    """
    usual = _median([_betweenness(case.mask) for case in cases if case.mask is not None and case.mask.distinct > 1])
    for case in cases:
        mask = case.mask
        if mask is None or mask.problem is not None or mask.stored is None:
            continue
        if mask.stored.format == "JPEG":
            _mark(case, found, "jpeg_mask", f"{case.mask_file}: {mask.distinct} different values")
        elif _is_picture(mask):
            _mark(case, found, "picture_mask", f"{case.mask_file}: {mask.distinct} different values")
        elif _is_smeared(mask, usual):
            share = 100 * _betweenness(mask)
            said = f"{share:.0f} % of the runs in a row lie between their neighbours ({100 * usual:.0f} % elsewhere)"
            _mark(case, found, "smeared_mask", f"{case.mask_file}: {said}")
        elif not colors and len(mask.alpha) > 1 and mask.distinct == 1:
            _mark(case, found, "alpha_mask", f"{case.mask_file}: transparency has {len(mask.alpha)} values")
            case.mend = {"as": "alpha"}
        elif len(mask.alpha) > 1:
            found.add("alpha_unused", case.mask_file)


def note_whole_encoding(cases: Sequence[Case], known: Known, found: Collector, *, colors: bool) -> None:
    """Says how the masks are encoded, with the evidence, and which are stored in another way."""
    whole = [case for case in cases if case.mask_stored is not None and case.fault is None]
    if not whole:
        return
    modes = Counter(_mode(case) for case in whole)
    what = "colours" if colors else "class ids"
    stored = ", ".join(f"{count} {mode}" for mode, count in modes.most_common())
    evidence = known.evidence[:1].lower() + known.evidence[1:]
    found.make("encoding", [], f"{len(whole)} masks hold {what} ({stored}); {evidence}", count=len(whole))
    usual = modes.most_common(1)[0][0]
    for case in whole:
        if _mode(case) == usual:
            continue
        deep = case.mask_stored is not None and case.mask_stored.bits > 8
        found.add("deep_mask" if deep else "mixed_modes", case.mask_file, f"{case.mask_file}: {_mode(case)}")
    _note_palettes(whole, found)


def note_shuffled_palettes(cases: Sequence[Case], known: Known, found: Collector) -> None:
    """Marks the few palette masks whose colours are all those of a label space, at the ids of other classes.

    The label space is that of the data, or a published one of as many classes.
    """
    if known.labels is None:
        return
    spaces = [] if known.inferred else [known.labels]
    sizes = {known.num_classes, known.num_classes - 1}  # void may have been taken for a class
    spaces += [LabelSpace.load(name) for name, one in known_label_spaces().items() if len(one["names"]) in sizes]
    painted = [case for case in cases if _palette(case)]
    shuffled = [(case, space) for case in painted for space in spaces if _is_shuffled(case, space)]
    beside = {id(case) for case, _ in shuffled}
    if not beside or len(beside) > _RARE * len(cases):
        return
    others = (
        case.mask.grid
        for case in cases
        if case.mask is not None and case.ids and case.fault is None and id(case) not in beside
    )
    places = Places(others, sorted(known.stored))
    for case, space in shuffled:
        if case.fault is None and places.masks and _lies_better(case, space, places):
            _mark(case, found, "palette_shuffled", f"{case.mask_file}: the colours are those of {space.name!r}")
            case.mend = {"as": "colors"} if space is known.labels else None


def _lies_better(case: Case, labels: LabelSpace, places: Places) -> bool:
    """Tells whether the classes of its colours lie where the other masks have them, and its ids do not."""
    assert case.mask is not None
    grid, palette, table = grid_ids(case.mask.grid), _palette(case), color_table(labels) or {}
    stored = {k: i for i, k in sorted(labels.stored_to_train.items(), reverse=True)}
    meant = {i: stored[table[int.from_bytes(palette[3 * i : 3 * i + 3], "big")]] for i in case.ids}
    moved = np.array([meant[i] for i in grid.tolist()], dtype=np.int64)
    return places.tell and float((places.fit(moved) - places.fit(grid)).mean()) > _LEAST_GAIN


def _palette(case: Case) -> bytes:
    return b"" if case.mask is None or case.fault is not None else case.mask.palette


def _is_shuffled(case: Case, labels: LabelSpace) -> bool:
    """Tells whether all colours of a palette mask are classes, and most ids are not the ids of these."""
    palette, table = _palette(case), color_table(labels)
    colors = {i: int.from_bytes(palette[3 * i : 3 * i + 3], "big") for i in case.ids if 3 * i + 3 <= len(palette)}
    if table is None or len(colors) < max(_FEW, len(case.ids)) or not table.keys() >= set(colors.values()):
        return False
    meant = {i: table[color] for i, color in colors.items()}
    moved = [k - i for i, k in meant.items() if labels.stored_to_train.get(i) != k]
    return 2 * len(moved) > len(meant) and len(set(moved)) > 1  # the same for all: the ids begin elsewhere


def find_color_space(cases: Sequence[Case]) -> LabelSpace | None:
    """Returns the known label space whose colours the masks hold, or None."""
    pixels: Counter[int] = Counter()
    for case in cases:
        if case.mask is not None and case.fault is None:
            pixels.update(dict(case.mask.colors))
    total = sum(pixels.values())
    best: tuple[float, int, LabelSpace] | None = None
    for name in known_label_spaces():
        space = LabelSpace.load(name)
        table = color_table(space)
        if total == 0 or table is None:
            continue
        covered = sum(count for color, count in pixels.items() if color in table) / total
        if covered >= _COVERED and (best is None or (covered, -space.num_classes) > best[:2]):
            best = covered, -space.num_classes, space
    return None if best is None else best[2]


def color_table(labels: LabelSpace) -> dict[int, int] | None:
    """Returns packed colour -> train id (255 ignored), or None where classes share a colour."""
    packed = [red << 16 | green << 8 | blue for red, green, blue in labels.colors]
    if len(set(packed)) < len(packed):
        return None
    red, green, blue = labels.ignore_color
    return {red << 16 | green << 8 | blue: labels.ignore_index} | {color: k for k, color in enumerate(packed)}


def covered_by(mask: MaskRecord, labels: LabelSpace) -> float:
    """Returns the share of a colour mask's pixels whose colours are those of a label space."""
    table = color_table(labels)
    total = sum(count for _, count in mask.colors)
    if table is None or total == 0 or mask.distinct > len(mask.colors):
        return 0.0
    return sum(count for color, count in mask.colors if color in table) / total


def named_colors(mask: MaskRecord) -> str:
    """Lists the most frequent colours."""
    return listed([f"({c >> 16}, {c >> 8 & 255}, {c & 255})" for c, _ in mask.colors], 4)


def _mark(case: Case, found: Collector, kind: str, detail: str) -> None:
    case.fault = kind
    found.add(kind, case.mask_file, detail)


def _betweenness(mask: MaskRecord | None) -> float:
    return 0.0 if mask is None or mask.noise[0] < _LEAST_RUNS else mask.noise[2] / mask.noise[0]


def _is_smeared(mask: MaskRecord, usual: float) -> bool:
    """Ids between those of both sides along most borders; a class that is drawn between two others is not meant."""
    share = _betweenness(mask)
    if mask.colors:
        return mask.distinct > _MANY_COLORS
    if max((i for i, _ in mask.counts), default=0) > _LAST_BYTE:
        return False  # instance numbers grow from one thing to the next
    if mask.stored is not None and mask.noise[0] * _SHORTEST_MEAN_RUN > math.prod(mask.stored.size):
        return False  # ids that were drawn pixel by pixel have no borders to be smeared
    if mask.distinct > _MANY:
        return True
    everywhere = usual > 2 * _SMEARED and mask.distinct > 4
    return share > _SMEARED and mask.distinct > 3 and (share > usual + 0.1 or everywhere)


def _is_picture(mask: MaskRecord) -> bool:
    """Many values of which none prevail."""
    if mask.colors:
        height, width = (1, 1) if mask.stored is None else mask.stored.size
        return mask.distinct > _MANY_COLORS and sum(count for _, count in mask.colors[:32]) < _MOSTLY * height * width
    if mask.distinct <= _MANY or (mask.stored is not None and mask.stored.bits > 8):
        return False
    counts = sorted((count for _, count in mask.counts), reverse=True)
    return sum(counts[:16]) < _MOSTLY * sum(counts)


def _mode(case: Case) -> str:
    stored = case.mask_stored
    assert stored is not None
    words = {"L": "8-bit grey", "P": "8-bit palette", "1": "1-bit", "array": "drawn or packed", "RGB": "RGB"}
    return "16-bit" if stored.bits == 16 else words.get(stored.mode, stored.mode)


def _note_palettes(cases: Sequence[Case], found: Collector) -> None:
    """Palettes that disagree with the commonest one on a colour that the mask uses."""
    palettes = Counter(case.mask.palette for case in cases if case.mask is not None and case.mask.palette)
    if len(palettes) < 2:
        return
    usual, count = palettes.most_common(1)[0]
    for case in cases:
        palette = b"" if case.mask is None else case.mask.palette
        differs = (i for i in case.ids if palette[3 * i : 3 * i + 3] != usual[3 * i : 3 * i + 3])
        first = None if palette in (b"", usual) else next((i for i in differs if 3 * i + 3 <= len(palette)), None)
        if first is not None and 3 * first + 3 <= len(usual):
            own, other = (tuple(p[3 * first : 3 * first + 3]) for p in (palette, usual))
            said = f"id {first} is painted {own}, in {count} masks {other}"
            found.add("palette_differs", case.mask_file, f"{case.mask_file}: {said}")


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0
