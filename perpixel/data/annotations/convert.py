"""Any data set as a plain folder: images/ and masks/ with palette PNGs, and the labels.yaml that explains them.

H W height and width, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perpixel.data.annotations.painting import DrawnMask, turn_back
from perpixel.data.annotations.writing import (
    Placement,
    file_name,
    label_text,
    new_folder,
    place_image,
    written_labels,
)
from perpixel.data.decoding import ImageHead, image_head, mask_is_turned, read_color_mask, read_mask, turn_upright
from perpixel.data.formats.item import LABEL_FILE, DataSource, Item, listed
from perpixel.errors import DataError, InvalidValue
from perpixel.labels import LabelSpace

__all__ = ["UNDIVIDED", "Conversion", "Counted", "convert_items", "split_items", "summed", "write_folder"]

T = TypeVar("T")

UNDIVIDED = "all"
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Counted:
    """One converted image: what was counted on it."""

    split: str
    name: str
    pixels: NDArray[np.int64]
    """(K + 1,) pixels per class; the ignored ones last."""
    overlapped: int = 0
    """Pixels on which a drawn shape covers one of another class."""
    vanished: tuple[str, ...] = ()
    """Drawn shapes without any pixel."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What a conversion wrote."""

    out: Path
    labels: LabelSpace
    """Of the masks or shapes that were written."""
    images: Mapping[str, int]
    """Per split."""
    pixels: tuple[int, ...]
    """Per class, the ignored ones last."""
    images_with: tuple[int, ...]
    """Images on which each class occurs."""
    overlapped: int
    """Pixels on which a drawn shape covers one of another class."""
    notes: tuple[str, ...]


def write_folder(
    source: DataSource,
    labels: LabelSpace,
    out: Path,
    *,
    images: Placement = "copy",
    colors: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Writes images and masks as `read_folder` reads them; with ``images="list"``, as `read_list` does.

    Args:
        source: The data set; of its splits train, val and test are written, or all of its one.
        labels: Its classes. Masks are written with their stored ids where each class has one up to 255, else with
            train ids.
        out: The folder to make.
        images: How images come along.
        colors: The masks' colours are the labels (`LabelSpace.encode_colors`).
        on_progress: Called after each image with the number done and the number of all.

    Raises:
        DataError: ``out`` exists, or something of the data cannot be read; then nothing is left behind.
        InvalidValue: ``images`` is none of its values.
    """
    space = written_labels(labels)
    splits, notes = split_items(source)

    def write(folder: Path, split: str, item: Item, name: str, train: NDArray[np.uint8], head: ImageHead) -> None:
        place = folder if split == UNDIVIDED else folder / split
        masks = place / "masks" if images != "list" else folder / "masks" / split
        masks.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(turn_back(space.decode(train), head.orientation))
        picture.putpalette(space.palette())
        picture.save(masks / f"{name}.png")
        if images != "list":
            place_image(item, head, place / "images", name, images)

    with new_folder(out) as folder:
        (folder / LABEL_FILE).write_text(label_text(space), encoding="utf-8")
        if images == "list":
            _write_lists(folder, splits)
        counted = convert_items(
            splits, labels, partial(write, folder), colors=colors, placement=images, on_progress=on_progress
        )
    return summed(out, space, counted, (*source.notes, *notes))


def split_items(source: DataSource) -> tuple[dict[str, list[tuple[str, Item]]], tuple[str, ...]]:
    """Returns the labelled items per split with the names of their files, and what is left out.

    Raises:
        DataError: no split that a folder can hold has a mask, or names are no file names or collide.
    """
    known = {split: items for split, items in source.splits.items() if split in _SPLITS}
    if not known and (UNDIVIDED in source.splits or len(source.splits) == 1):
        known = {UNDIVIDED: source.splits.get(UNDIVIDED) or next(iter(source.splits.values()))}
    notes = []
    others = sorted(set(source.splits) - set(known)) if len(source.splits) > 1 else []
    if others:
        notes.append(f"splits {listed(others)} were left out: a folder holds train, val and test, or undivided data")
    chosen: dict[str, list[tuple[str, Item]]] = {}
    for split, items in known.items():
        bare = [item.name for item in items if item.mask is None]
        if bare:
            notes.append(f"split {split!r}: {len(bare)} images without a mask were left out: {listed(bare)}")
        named = [(file_name(item.name), item) for item in items if item.mask is not None]
        if len({name.lower() for name, _ in named}) < len(named):
            raise DataError(f"{source.root}: names of images differ only in / or in upper and lower case; rename them")
        if named:
            chosen[split] = named
    if not chosen:
        raise DataError(
            f"{source.root}: no split with masks among {listed(sorted(source.splits))} is one of train, val, test; "
            "nothing was converted"
        )
    return chosen, tuple(notes)


def convert_items(
    splits: Mapping[str, Sequence[tuple[str, Item]]],
    labels: LabelSpace,
    write: Callable[[str, Item, str, NDArray[np.uint8], ImageHead], T],
    collect: Callable[[str, T], None] | None = None,
    *,
    colors: bool = False,
    placement: Placement = "copy",
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Counted]:
    """Reads every mask as train ids, has it written, and counts; on all cores, in the order of the items.

    Args:
        splits: Names and items, each with a mask.
        labels: The classes.
        write: Called in some thread with split, item, name, train ids (H, W) of the upright image, and its header.
        collect: Called with split and what ``write`` returned, in the order of the items.
        colors: The masks' colours are the labels.
        placement: Checked alone: pictures inside other files cannot be left where they are.
        on_progress: Called with the number done and the number of all.

    Raises:
        DataError: something cannot be read, or a mask does not fit its image.
        InvalidValue: ``placement`` is unknown.
    """
    if placement not in get_args(Placement):
        raise InvalidValue(f"images are placed by one of {', '.join(get_args(Placement))}, got {placement!r}")
    jobs = [(split, name, item) for split, items in splits.items() for name, item in items]
    inside = [str(item.image) for _, _, item in jobs if not isinstance(item.image, Path)]
    if inside and placement == "list":
        raise DataError(
            f"{len(inside)} images lie inside other files, which no list can name: {listed(inside)}; copy them"
        )

    def run(job: tuple[str, str, Item]) -> tuple[Counted, T]:
        split, name, item = job
        head = image_head(item.image)
        train, overlapped, vanished = _train_ids(item, head, labels, colors=colors)
        written = write(split, item, name, train, head)
        counts = np.bincount(train.reshape(-1), minlength=256)
        pixels = np.append(counts[: labels.num_classes], counts[LabelSpace.ignore_index])
        return Counted(split=split, name=name, pixels=pixels, overlapped=overlapped, vanished=vanished), written

    counted: list[Counted] = []
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for (split, _, _), (count, written) in zip(jobs, pool.map(run, jobs), strict=True):
            counted.append(count)
            if collect is not None:
                collect(split, written)
            if on_progress is not None:
                on_progress(len(counted), len(jobs))
    finally:
        pool.shutdown(cancel_futures=True)
    return counted


def summed(out: Path, labels: LabelSpace, counted: Sequence[Counted], notes: Sequence[str]) -> Conversion:
    """Adds up what was counted on each image."""
    images: dict[str, int] = {}
    for one in counted:
        images[one.split] = images.get(one.split, 0) + 1
    pixels = np.stack([one.pixels for one in counted])
    vanished = [f"{place} ({one.name})" for one in counted for place in one.vanished]
    notes = list(notes)
    if vanished:
        notes.append(f"{len(vanished)} shapes cover no pixel's centre, so no mask shows them: {listed(vanished)}")
    overlapped = [one for one in counted if one.overlapped]
    if overlapped:
        total = sum(one.overlapped for one in overlapped)
        notes.append(
            f"shapes of different classes overlap on {total} pixels of {len(overlapped)} images, where the order "
            f"decides (--order): {listed([one.name for one in overlapped])}"
        )
    return Conversion(
        out=out,
        labels=labels,
        images=images,
        pixels=tuple(pixels.sum(axis=0).tolist()),
        images_with=tuple((pixels > 0).sum(axis=0).tolist()),
        overlapped=sum(one.overlapped for one in counted),
        notes=tuple(notes),
    )


def _write_lists(folder: Path, splits: Mapping[str, Sequence[tuple[str, Item]]]) -> None:
    for split, items in splits.items():
        lines = []
        for name, item in items:
            image = str(Path(str(item.image)).resolve())
            if any(sign in image + name for sign in "\t\n\r"):
                raise DataError(
                    f"{image!r}: names with tabs or line ends cannot stand in a list; copy or link the images"
                )
            lines.append(f"{image}\tmasks/{split}/{name}.png\n")
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")


def _train_ids(
    item: Item, head: ImageHead, labels: LabelSpace, *, colors: bool
) -> tuple[NDArray[np.uint8], int, tuple[str, ...]]:
    """Returns the train ids (H, W) of the upright image, and of a drawn mask overlapped pixels and lost shapes."""
    assert item.mask is not None
    source, overlapped, vanished = str(item.mask), 0, tuple[str, ...]()
    if isinstance(item.mask, DrawnMask):
        _check_size(item, image_head(item.mask), head)
        painted = item.mask.paint()
        stored, overlapped, vanished = painted.ids, painted.overlapped, painted.vanished
        if item.mask.drawing.orientation == 1 and mask_is_turned(image_head(item.mask), head):
            stored = turn_upright(stored, head.orientation)
    elif colors:
        train = labels.encode_colors(read_color_mask(item.mask, like=head), source=source)
        _check_shape(item, train, head)
        return train, 0, ()
    else:
        stored = read_mask(item.mask, like=head)
    _check_shape(item, stored, head)
    return labels.encode(stored, source=source), overlapped, vanished


def _check_size(item: Item, mask: ImageHead, head: ImageHead) -> None:
    """Refuses a drawing of another size before it is painted."""
    if mask.size not in (head.size, head.stored_size):
        _refuse_size(item, mask.size, head)


def _check_shape(item: Item, mask: NDArray[Any], head: ImageHead) -> None:
    if mask.shape[:2] != head.size:
        _refuse_size(item, (mask.shape[0], mask.shape[1]), head)


def _refuse_size(item: Item, size: tuple[int, int], head: ImageHead) -> None:
    raise DataError(
        f"{item.mask}: is for an image of {size[0]} x {size[1]} (height x width), and {item.image} has "
        f"{head.size[0]} x {head.size[1]}; both must have one size"
    )
