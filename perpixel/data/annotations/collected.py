"""What an annotation tool's files hold as a whole: images with their drawings, classes, and what was left out.

A reader of a tool returns `Annotations`; `drawn_source` turns them into a `DataSource`, whose masks are painted when
they are read. The classes are those of a label space beside the annotations or of the user, else those of the tool:
then a class keeps the number that the tool gives it, 0 is the background that no shape covers, and 255 is ignored.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from perpixel.data.annotations.painting import DrawnMask
from perpixel.data.annotations.rasterise import Rule
from perpixel.data.annotations.shapes import IGNORED, Drawing, Order, Ring
from perpixel.data.formats.item import DataSource, Item, distinct_names, listed
from perpixel.data.picture import PixelSource, file_of
from perpixel.errors import DataError, InvalidValue, nearest
from perpixel.labels import LabelSpace

__all__ = [
    "BACKGROUNDS",
    "Annotated",
    "Annotations",
    "Rest",
    "Tally",
    "drawn_source",
    "labels_of_classes",
    "numbered_classes",
    "usable_ring",
]

Rest = Literal["auto", "background", "ignore"]
"""What pixels are that no shape covers: ``auto`` is background where the classes have one, which invented ones do."""

BACKGROUNDS = ("background", "_background_", "__background__")
"""Names of the class of pixels that no shape covers, in any case."""
_NAMED_PLACES = 10
_VOID = (224, 224, 192)  # PASCAL VOC's colour for pixels that are ignored


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """One image and what was drawn on it."""

    image: PixelSource
    drawing: Drawing


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """Everything that a tool's files hold."""

    format: str
    root: Path
    splits: Mapping[str, tuple[Annotated, ...]]
    classes: Mapping[str, int]
    """Class names with the tool's numbers, in the tool's order; `IGNORED` is none of them."""
    order: Order = "file"
    """Which of two overlapping shapes the tool shows."""
    labels: LabelSpace | None = None
    """The label space that lies beside the annotations."""
    notes: tuple[str, ...] = ()


@dataclass
class Tally:
    """Counts what a reader left out or changed, and remembers the first places of each kind."""

    _counts: dict[str, int] = field(default_factory=dict)
    _places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, place: str) -> None:
        """Counts one more, such as ``polygons with fewer than 3 points were left out``."""
        self._counts[what] = self._counts.get(what, 0) + 1
        places = self._places.setdefault(what, [])
        if len(places) < _NAMED_PLACES:
            places.append(place)

    def count(self, what: str) -> int:
        """Returns how many were counted."""
        return self._counts.get(what, 0)

    def notes(self) -> tuple[str, ...]:
        """Returns one sentence per kind: how many, what, and the first places."""
        sentences = []
        for what, count in self._counts.items():
            more = f" and {count - _NAMED_PLACES} more" if count > _NAMED_PLACES else ""
            sentences.append(f"{count} {what}: {', '.join(self._places[what])}{more}")
        return tuple(sentences)


def usable_ring(ring: Ring, size: tuple[int, int], tally: Tally, place: str) -> Ring | None:
    """Returns an outline that covers an area, None for one of one or two points; counts those, and what is cut off."""
    if len(ring) < 6:
        tally.add("polygons with fewer than 3 points, which cover no pixel, were left out", place)
        return None
    if min(ring) < 0 or max(ring[::2]) > size[1] or max(ring[1::2]) > size[0]:
        tally.add("shapes reach over the edge of the image and are cut off there", place)
    return ring


def numbered_classes(names: Iterable[str]) -> dict[str, int]:
    """Numbers the classes of a tool that does not: 1, 2, … in their order, 0 for one that is named background."""
    numbers: dict[str, int] = {}
    following = itertools.count(1)
    unused = [0]
    for name in dict.fromkeys(names):
        numbers[name] = unused.pop() if unused and name.lower() in BACKGROUNDS else next(following)
    return numbers


def labels_of_classes(classes: Mapping[str, int], *, rest: Rest = "auto", name: str = "custom") -> LabelSpace:
    """Makes a label space of a tool's classes: its numbers are the stored ids, 0 is background and 255 is ignored.

    Numbers that do not fit (above 254, repeated, or 0 for a class that is no background) are replaced by 1, 2, … in
    the same order. A class that is named background is the background; with ``rest="ignore"`` none is invented.

    Raises:
        DataError: there are no classes, or more than a mask can hold.
    """
    if not classes:
        raise DataError("the annotations have no classes")
    named = next((known for known in classes if known.lower() in BACKGROUNDS), None)
    names = [known for known in classes if known != named]
    ids = [classes[known] for known in names]
    if len(set(ids)) < len(ids) or min(ids, default=1) < 1 or max(ids, default=1) > 254:
        ids = list(range(1, len(names) + 1))
    if named is not None or rest != "ignore":
        names, ids = [named or "background", *names], [0, *ids]
    if max(ids) > 254:
        raise DataError(f"{len(classes)} classes are more than the 254 that masks of 8 bits hold beside the background")
    colors = LabelSpace.numbered(len(names)).colors
    return LabelSpace(
        name=name,
        names=tuple(names),
        colors=((0, 0, 0), *colors[:-1]) if ids[0] == 0 else colors,
        ignore_color=_VOID,
        stored_to_train={**{stored: train for train, stored in enumerate(ids)}, 255: LabelSpace.ignore_index},
        train_to_stored=None if ids == list(range(len(ids))) else tuple(ids),
    )


def drawn_source(
    annotations: Annotations,
    *,
    labels: LabelSpace | None = None,
    order: Order | None = None,
    rest: Rest = "auto",
    rule: Rule = "centres",
) -> DataSource:
    """Makes a data set of annotations, whose masks are painted when they are read.

    Args:
        annotations: What a reader returned.
        labels: The classes; None takes the label space beside the annotations, else the tool's own classes.
        order: Which of two overlapping shapes is seen; None goes by the tool.
        rest: What pixels are that no shape covers.
        rule: Which pixels a polygon covers.

    Raises:
        DataError: a class is not in the label space, or the label space has no id for what is not drawn.
        InvalidValue: ``rest`` is none of its values.
    """
    if rest not in get_args(Rest):
        raise InvalidValue(f"rest is one of {', '.join(get_args(Rest))}, got {rest!r}")
    space = labels or annotations.labels
    notes = list(annotations.notes)
    if space is None:
        classes = {known: number for known, number in annotations.classes.items() if known != IGNORED}
        space = labels_of_classes(classes, rest=rest, name=annotations.format)
        moved = sum(_stored_id(space, known) != number for known, number in classes.items())
        if moved:
            notes.append(f"{moved} classes could not keep the tool's numbers as ids of masks; labels.yaml has the new")
    ids = _ids_of_names(annotations, space)
    uncovered = _rest_id(space, rest)
    order = order or annotations.order
    notes += _empty_note(annotations, "ignored" if space.stored_to_train.get(uncovered) == 255 else "background")
    splits = {}
    for split, pictures in annotations.splits.items():
        names = distinct_names([file_of(picture.image) for picture in pictures])
        splits[split] = tuple(
            Item(
                name=name,
                image=picture.image,
                mask=DrawnMask(drawing=picture.drawing, ids=ids, rest=uncovered, order=order, rule=rule),
            )
            for name, picture in zip(names, pictures, strict=True)
        )
    return DataSource(format=annotations.format, root=annotations.root, splits=splits, labels=space, notes=tuple(notes))


def _empty_note(annotations: Annotations, rest: str) -> list[str]:
    empty = [
        one.drawing.image for pictures in annotations.splits.values() for one in pictures if not one.drawing.shapes
    ]
    return [f"{len(empty)} images have no shapes, so all their pixels are {rest}: {listed(empty)}"] if empty else []


def _ids_of_names(annotations: Annotations, space: LabelSpace) -> tuple[tuple[str, int], ...]:
    drawn = {
        shape.name for split in annotations.splits.values() for picture in split for shape in picture.drawing.shapes
    }
    ignored = IGNORED in drawn
    drawn.discard(IGNORED)
    unknown = sorted(drawn - set(space.names))
    if unknown:
        hint = nearest(unknown[0], space.names)
        raise DataError(
            f"{annotations.root}: {len(unknown)} drawn classes are not in label space {space.name!r}: "
            f"{listed([repr(name) for name in unknown])}{hint}. Its classes: {listed(space.names, 20)}. Add the "
            "missing ones to the label file, or rename them in the tool."
        )
    ids = {name: _stored_id(space, name) for name in space.names if name in drawn}
    if ignored:
        ids[IGNORED] = _ignored_id(space, f"shapes named {IGNORED!r}")
    return tuple(ids.items())


def _stored_id(space: LabelSpace, name: str) -> int:
    """The id that a mask holds for a class, the lowest where it has several."""
    train = space.names.index(name)
    ids = [stored for stored, known in space.stored_to_train.items() if known == train]
    if not ids:
        raise DataError(f"label space {space.name!r} has no stored id for class {name!r}, so no mask can hold it")
    return min(ids)


def _ignored_id(space: LabelSpace, what: str) -> int:
    if not space.ignored_ids:
        raise DataError(
            f"label space {space.name!r} ignores no stored id, so {what} cannot be written; add 'ignore: [255]'"
        )
    return 255 if 255 in space.ignored_ids else space.ignored_ids[0]


def _rest_id(space: LabelSpace, rest: Rest) -> int:
    named: Sequence[str] = [name for name in space.names if name.lower() in BACKGROUNDS]
    if rest == "ignore" or (rest == "auto" and not named):
        return _ignored_id(space, "pixels that no shape covers")
    if not named:
        raise DataError(
            f"label space {space.name!r} has no class 'background' for the pixels that no shape covers; add it, or "
            "have them ignored"
        )
    return _stored_id(space, named[0])
