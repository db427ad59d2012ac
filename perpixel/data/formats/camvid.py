"""CamVid: SegNet's eleven classes as ids, and the original release of 32 classes as colours."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from perpixel.data.formats.color_masks import ColorIds, color_table
from perpixel.data.formats.folders import match_folders
from perpixel.data.formats.item import DataSource, Item, count_note, listed, read_lines, require_files
from perpixel.data.formats.list_file import split_line
from perpixel.data.formats.named_pairs import PairRule, pair_named
from perpixel.data.picture import Picture
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = ["is_camvid", "read_camvid", "read_camvid32"]

_SPLITS = ("train", "val", "test")
_COUNTS = {"train": 367, "val": 101, "test": 233}
_IMAGES, _COLORS, _COLOR_LIST = "701_StillsRaw_full", "LabeledApproved_full", "label_colors.txt"
_OFF_PALETTE = "Seq05VD_f02610_L.png"
"""The one published mask with colours of no class (README of the data set's 32 -> 11 grouping); they become void."""
_LAYOUT = (
    "SegNet's CamVid (in the SegNet tutorial) has the folders train/, trainannot/, val/, valannot/, test/, testannot/ "
    "with 8-bit PNG masks, and the lists train.txt, val.txt, test.txt. The original CamVid (University of Cambridge) "
    f"has {_IMAGES}/x.png, {_COLORS}/x_L.png and {_COLOR_LIST}."
)


def is_camvid(root: Path) -> bool:
    """Tells whether a folder has a split with its ``annot`` folder, or the folders of the original release."""
    return _is_segnet(root) or _is_original(root)


def read_camvid(root: Path) -> DataSource:
    """Reads SegNet's splits, or the original release with its 32 classes grouped to SegNet's eleven.

    SegNet's splits come in the order of their lists, or by file names where there is no list. The lists of the SegNet
    tutorial carry the prefix ``/SegNet/CamVid/``: only folder and file name are used.

    Raises:
        DataError: neither layout is here, an image has no mask, or a list names files that are not there.
    """
    if _is_segnet(root) or not _is_original(root):
        return _read_segnet(root)
    source = _read_original(root, format_name="camvid", labels=LabelSpace.load("camvid11_of_32"))
    note = f"the 32 classes of the original CamVid are grouped to SegNet's 11; camvid32:{root} keeps all 32"
    return DataSource(
        format=source.format, root=root, splits=source.splits, labels=source.labels, notes=(note, *source.notes)
    )


def read_camvid32(root: Path) -> DataSource:
    """Reads the original release with its 31 classes and void.

    Raises:
        DataError: the layout is another, an image has no mask, or a list names images that are not there.
    """
    if not _is_original(root):
        hint = f" camvid:{root} reads the 11 classes that are here." if _is_segnet(root) else ""
        raise DataError(f"{root}: no {_IMAGES}/ and {_COLORS}/ here.{hint} {_LAYOUT}")
    return _read_original(root, format_name="camvid32", labels=LabelSpace.load("camvid32"))


def _is_segnet(root: Path) -> bool:
    return any((root / split).is_dir() and (root / f"{split}annot").is_dir() for split in _SPLITS)


def _is_original(root: Path) -> bool:
    return (root / _IMAGES).is_dir() and (root / _COLORS).is_dir()


def _read_segnet(root: Path) -> DataSource:
    splits: dict[str, tuple[Item, ...]] = {}
    notes: list[str] = []
    for split in _SPLITS:
        images, masks, file = root / split, root / f"{split}annot", root / f"{split}.txt"
        if not (images.is_dir() and masks.is_dir()):
            continue
        if file.is_file():
            splits[split] = _items(root, file)
            require_files(splits[split], split=split, way_out=f"Correct {file} or add the files. {_LAYOUT}")
        else:
            splits[split], said = match_folders(images, masks)
            notes += [*said, f"{file.name} is missing, so split {split!r} is the whole folder: {len(splits[split])}"]
    if not splits:
        raise DataError(f"{root}: no split of CamVid here. {_LAYOUT}")
    notes += count_note(splits, _COUNTS)
    return DataSource(format="camvid", root=root, splits=splits, labels=LabelSpace.load("camvid11"), notes=tuple(notes))


def _items(root: Path, file: Path) -> tuple[Item, ...]:
    items = []
    for number, line in read_lines(file):
        fields = split_line(line)
        inside = [Path(field).parts[-2:] for field in fields]
        if len(fields) != 2 or any(len(parts) != 2 or not {"..", "/"}.isdisjoint(parts) for parts in inside):
            raise DataError(f"{file}, line {number}: expected an image and its mask, got {line!r:.200}. {_LAYOUT}")
        image, mask = (root.joinpath(*parts) for parts in inside)
        if image.stem != mask.stem:
            raise DataError(
                f"{file}, line {number}: the image {image.name} stands beside the mask of another, {mask.name}; in "
                f"CamVid both have one name. {_LAYOUT}"
            )
        items.append(Item(name=image.stem, image=image, mask=mask))
    if not items:
        raise DataError(f"{file}: the list is empty. {_LAYOUT}")
    repeated = sorted(name for name, count in Counter(item.name for item in items).items() if count > 1)
    if repeated:
        raise DataError(f"{file}: {len(repeated)} images are listed more than once: {listed(repeated)}. {_LAYOUT}")
    return tuple(items)


def _read_original(root: Path, *, format_name: str, labels: LabelSpace) -> DataSource:
    """Reads the colours as the ids of ``camvid32``, which both label spaces are stored with."""
    colors = LabelSpace.load("camvid32")
    _check_colors(root / _COLOR_LIST, colors)
    table, void = color_table(colors), colors.ignored_ids[0]

    def read(file: Path) -> Picture:
        return ColorIds(file, table, unknown=void if file.name == _OFF_PALETTE else None)

    rule = PairRule(image_endings=(".png",), mask_ending="_L.png", way_out=_LAYOUT)
    items, notes = pair_named(root / _IMAGES, root / _COLORS, rule, split="all", read=read)
    if any(item.name == _OFF_PALETTE.removesuffix("_L.png") for item in items):
        notes += (f"{_OFF_PALETTE} holds colours of no class in the published release; they are read as void",)
    splits, said = _listed_splits(root, items)
    return DataSource(
        format=format_name,
        root=root,
        splits=splits,
        labels=labels,
        notes=(*notes, *said, *count_note(splits, _COUNTS | {"all": 701})),
    )


def _listed_splits(root: Path, items: tuple[Item, ...]) -> tuple[dict[str, tuple[Item, ...]], tuple[str, ...]]:
    """Divides the images by SegNet's lists where they lie beside, by file name alone."""
    by_name = {item.name: item for item in items}
    splits: dict[str, tuple[Item, ...]] = {}
    for split in _SPLITS:
        file = root / f"{split}.txt"
        if not file.is_file():
            continue
        names = [Path(split_line(line)[0]).stem for _, line in read_lines(file)]
        gone = [name for name in names if name not in by_name]
        taken = {item.name for other in splits.values() for item in other}
        again = sorted(name for name, count in Counter(names).items() if count > 1 or name in taken)
        if gone or again or not names:
            raise DataError(
                f"{file}: of {len(names)} names {len(gone)} are not in {_IMAGES}/ ({listed(gone)}) and {len(again)} "
                f"are given before ({listed(again)}); each line names one image once. {_LAYOUT}"
            )
        splits[split] = tuple(by_name[name] for name in names)
    if not splits:
        return {"all": items}, (
            f"the original CamVid has no division: its {len(items)} images are one split; put SegNet's train.txt, "
            "val.txt and test.txt into the folder to divide as published",
        )
    spare = len(items) - len({item.name for split in splits.values() for item in split})
    return splits, (f"{spare} images are in no list and were left out",) if spare else ()


def _check_colors(file: Path, labels: LabelSpace) -> None:
    """Makes sure that the release's own list of colours, where it is there, means the same classes."""
    if not file.is_file():
        return
    known = dict(zip(labels.names, labels.colors, strict=True))
    for number, line in read_lines(file):
        fields = line.split()
        color = tuple(int(field) for field in fields[:3] if field.isdecimal())
        name = fields[-1]
        if name in known and len(color) == 3 and color != known[name]:
            raise DataError(
                f"{file}, line {number}: {name} has the colour {color}, in CamVid it is {known[name]}; masks with "
                "other colours are read with data.mask_encoding=colors and a label file of their own (--labels)"
            )
