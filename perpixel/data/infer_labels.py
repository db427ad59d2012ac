"""Which classes the masks of a data set hold: stated by the user or the data set, else read off the masks and said."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from perpixel.data.decoding import MAX_PIXELS, read_mask
from perpixel.data.formats.item import listed
from perpixel.data.picture import PixelSource
from perpixel.data.source import Item
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

if TYPE_CHECKING:
    from perpixel.data.dataset import MaskEncoding

__all__ = ["LabelInference", "binary_labels", "infer_labels"]

_MOST_MASKS = 200
_MOST_CLASSES = 64
_IGNORED = 255
# Spaces of the same classes in the same order, whose ids the reader of the data knows better than a recipe does.
_ONE_LIST_OF_CLASSES = (("camvid11", "camvid11_of_32"), ("cityscapes", "cityscapes_train_ids", "bdd100k"))
_LOOKALIKES = {11: "camvid11", 20: "voc"}  # the highest id of two well-known data sets


class LabelInference(NamedTuple):
    """A label space, and how it came about."""

    labels: LabelSpace
    notes: tuple[str, ...]


def infer_labels(
    items: Sequence[Item],
    spec: str | None = None,
    *,
    given: LabelSpace | None = None,
    mask_encoding: MaskEncoding = "ids",
    max_pixels: int = MAX_PIXELS,
) -> LabelInference:
    """Returns the label space of ``spec``, else the data set's own, else the one that the masks' values suggest.

    Where ``spec`` and the data set's own space list the same classes under other ids (Cityscapes as label ids and as
    train ids), the data set's own is taken, and said: its reader has seen which files are there.

    Values are read from all masks, or from 200 spread evenly over the items. Only 0 and 255 make two classes;
    0..n make n + 1 numbered classes, with 255 ignored where it occurs.

    Args:
        items: Files of the data set; those without mask are passed over.
        spec: What `LabelSpace.load` takes: a known space, a YAML file or a number.
        given: The label space that came with the data.
        mask_encoding: ``"colors"`` cannot be inferred, since colours have no order.
        max_pixels: Larger masks are refused before decoding.

    Raises:
        DataError: there is nothing to infer from, or the values are no small consecutive ids.
        ConfigError: ``spec`` names no label space.
    """
    if spec is not None:
        return _asked_for(LabelSpace.load(spec), given)
    if given is not None:
        return LabelInference(given, (f"classes: {given.num_classes}, label space {given.name!r} of the data set",))
    if mask_encoding == "colors":
        raise DataError(
            "the colours of masks do not say which classes they are: give a known label space or a label file with "
            "names and colors (--labels)"
        )
    masks = [item.mask for item in items if item.mask is not None]
    if not masks:
        raise DataError("there are no masks to read the classes from; add masks or give --labels")
    values, looked_at = _values(masks, max_pixels)
    inference = _from_values(values)
    if looked_at < len(masks):
        note = f"the classes were read from {looked_at} of {len(masks)} masks, spread evenly over the data"
        return LabelInference(inference.labels, (*inference.notes, note))
    return inference


def _asked_for(asked: LabelSpace, given: LabelSpace | None) -> LabelInference:
    """Takes the label space that was asked for, unless the data set stores the same classes under other ids."""
    if given is None or given == asked:
        return LabelInference(asked, ())
    if any(asked.name in spaces and given.name in spaces for spaces in _ONE_LIST_OF_CLASSES):
        note = (
            f"label space {asked.name!r} was asked for; this data holds its classes under the ids of {given.name!r}, "
            "so masks are read by that"
        )
        return LabelInference(given, (note,))
    note = f"the data set's own label space is {given.name!r}; masks are read by {asked.name!r}, as asked"
    return LabelInference(asked, (note,))


def _values(masks: Sequence[PixelSource], max_pixels: int) -> tuple[list[int], int]:
    """Returns the ids that occur, sorted, and the number of masks that were read."""
    picks = np.unique(np.linspace(0, len(masks) - 1, min(_MOST_MASKS, len(masks))).round().astype(int))
    chosen = [masks[int(i)] for i in picks]
    seen: set[int] = set()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, ids in zip(chosen, pool.map(partial(_ids_of, max_pixels=max_pixels), chosen), strict=True):
            if ids and max(ids) > _IGNORED:
                raise DataError(
                    f"{path}: ids up to {max(ids)} are more than numbered classes; give a label file that says which "
                    "class each stored id belongs to (--labels)"
                )
            seen |= ids
    return sorted(seen), len(chosen)


def _ids_of(path: PixelSource, *, max_pixels: int) -> set[int]:
    return set(np.flatnonzero(np.bincount(read_mask(path, max_pixels=max_pixels).ravel())).tolist())


def _from_values(values: list[int]) -> LabelInference:
    classes = [value for value in values if value != _IGNORED]
    if values == [0, _IGNORED]:
        note = "masks hold only 0 and 255: two classes, background (0) and foreground (255); nothing is ignored"
        return LabelInference(binary_labels(), (note,))
    if classes in ([], [0]):
        raise DataError(
            f"every mask holds only {' and '.join(map(str, values))}, so there are no two classes to tell apart; check "
            "that the masks were exported with their labels, or give --labels"
        )
    if len(classes) > _MOST_CLASSES:
        raise DataError(
            f"masks hold {len(classes)} different ids ({listed(classes, 8)}); more than {_MOST_CLASSES} are not taken "
            "for classes unasked, since grey pictures, instance ids and smoothed masks look the same. Give --labels "
            "with a known name, a label file or the number of classes."
        )
    if classes[-1] >= _MOST_CLASSES:
        raise DataError(
            f"masks hold the ids {listed(values, 16)}, which are no consecutive classes 0, 1, 2…; give a label file "
            "with names and stored ids (--labels)"
        )
    return _numbered(values, classes)


def _numbered(values: list[int], classes: list[int]) -> LabelInference:
    count = classes[-1] + 1
    ignored = "255 is ignored" if _IGNORED in values else "no pixel is ignored"
    notes = [f"masks hold ids 0 to {count - 1}: {count} numbered classes; {ignored}"]
    gaps = sorted(set(range(count)) - set(classes))
    if gaps:
        notes.append(f"no mask holds the ids {listed(gaps)}; they count as classes without pixels")
    known = _LOOKALIKES.get(count - 1)
    if known is not None:
        space = LabelSpace.load(known)
        if set(values) <= set(space.stored_to_train):
            ignored_ids = ", ".join(map(str, space.ignored_ids))
            notes.append(f"if this is {known!r} ({space.num_classes} classes, {ignored_ids} ignored): --labels {known}")
    return LabelInference(LabelSpace.numbered(count), tuple(notes))


def binary_labels() -> LabelSpace:
    """Returns two classes that masks store as 0 and 255."""
    return LabelSpace(
        name="binary 0/255",
        names=("background", "foreground"),
        colors=((0, 0, 0), (255, 255, 255)),
        stored_to_train={0: 0, 255: 1},
        train_to_stored=(0, 255),
        ignore_color=(128, 128, 128),
    )
