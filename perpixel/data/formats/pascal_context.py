"""PASCAL-Context, 59 or 60 classes: the published .mat maps of 459 ids, or the PNG masks that converters write."""

from __future__ import annotations

from pathlib import Path

from perpixel.data.formats.id_lists import read_ids
from perpixel.data.formats.item import DataSource, Item, listed, read_lines, require_files
from perpixel.data.formats.matrix_files import MatField
from perpixel.errors import DataError, nearest
from perpixel.labels import LabelSpace

__all__ = ["is_pascal_context", "read_pascal_context", "read_pascal_context60"]

_SPLITS = ("train", "val")
_INSIDE = ("", "VOC2010", "VOCdevkit/VOC2010")
_PNG = "SegmentationClassContext"
_DETAILED = 459
_LAYOUT = (
    "PASCAL-Context has JPEGImages/<id>.jpg of VOC 2010 (usually in VOCdevkit/VOC2010) and either the folder trainval/ "
    "with <id>.mat (trainval.tar.gz of PASCAL-Context's page; splits of ImageSets/Main), or the converted masks "
    "SegmentationClassContext/<id>.png with ImageSets/SegmentationContext/{train,val}.txt. The file "
    "trainval_merged.json alone holds no masks that are read here: convert it with the detail-api first."
)
# Ids of the 59 classes among the 459, in alphabetical order of the names; by the alphabetical list of the 459.
_IDS = (
    *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159),
    *(162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368),
    *(397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
)
_OTHER_SPELLING = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}


def is_pascal_context(root: Path) -> bool:
    """Tells whether a folder holds VOC 2010 with PASCAL-Context's masks in either form."""
    base = _base(root)
    return base is not None and ((base / _PNG).is_dir() or _mat_folder(root, base) is not None)


def read_pascal_context(root: Path) -> DataSource:
    """Reads train and val with 59 classes; all else is ignored.

    Raises:
        DataError: the layout is another, a list names files that are not there, or a name file is not understood.
    """
    return _read(root, 59)


def read_pascal_context60(root: Path) -> DataSource:
    """Reads train and val with 60 classes: background is the first class and is scored.

    Raises:
        DataError: as `read_pascal_context`.
    """
    return _read(root, 60)


def _read(root: Path, count: int) -> DataSource:
    base = _base(root)
    folder = None if base is None else _mat_folder(root, base)
    if base is None or (folder is None and not (base / _PNG).is_dir()):
        raise DataError(f"{root}: no PASCAL-Context here. {_LAYOUT}")
    if folder is not None:
        labels, notes = _labels_of_459(folder, count)
        lists = [base / "ImageSets" / "SegmentationContext", base / "ImageSets" / "Main"]
    else:
        labels, notes = _labels_of_png(base / _PNG, count)
        lists = [base / "ImageSets" / "SegmentationContext"]
    splits: dict[str, tuple[Item, ...]] = {}
    for split in _SPLITS:
        file = next((place / f"{split}.txt" for place in lists if (place / f"{split}.txt").is_file()), None)
        if file is None:
            continue
        splits[split] = tuple(
            Item(
                name=name,
                image=base / "JPEGImages" / f"{name}.jpg",
                mask=base / _PNG / f"{name}.png" if folder is None else MatField(folder / f"{name}.mat", ("LabelMap",)),
            )
            for name in read_ids(file, way_out=_LAYOUT)
        )
        require_files(splits[split], split=split, way_out=f"Complete the data set. {_LAYOUT}")
    if not splits:
        raise DataError(f"{lists[0]}: no train.txt or val.txt here. {_LAYOUT}")
    name = "pascal_context" if count == 59 else "pascal_context60"
    return DataSource(format=name, root=base, splits=splits, labels=labels, notes=notes)


def _base(root: Path) -> Path | None:
    return next((root / inside for inside in _INSIDE if (root / inside / "JPEGImages").is_dir()), None)


def _mat_folder(root: Path, base: Path) -> Path | None:
    """Returns the folder of .mat maps beside or inside VOC 2010."""
    for folder in dict.fromkeys((root / "trainval", base / "trainval", base.parent / "trainval")):
        if folder.is_dir() and next(folder.glob("*.mat"), None) is not None:
            return folder
    return None


def _labels_of_png(folder: Path, count: int) -> tuple[LabelSpace, tuple[str, ...]]:
    name = f"pascal_context{count}"
    note = (
        f"the order of classes in {folder.name} is taken to be alphabetical (1 aeroplane, 2 bag … 55 tvmonitor, 59 "
        "wood), as the detail-api, mmseg and HRNet write these masks, although mmseg prints the names of the official "
        f"order for them; masks in the order of 59_labels.txt need --labels {name}_official. Look at one overlay: mean "
        "IoU is the same in both, names are not"
    )
    return LabelSpace.load(name), (note,)


def _labels_of_459(folder: Path, count: int) -> tuple[LabelSpace, tuple[str, ...]]:
    """Maps the 459 ids to the 59 classes in their official order; the rest is ignored, or background (60)."""
    official = LabelSpace.load("pascal_context59_official")
    builtin = dict(zip(LabelSpace.load("pascal_context59").names, _IDS, strict=True))
    names, ids = list(official.names), dict(builtin)
    notes: tuple[str, ...] = ()
    full, short = _name_file(folder, "labels.txt"), _name_file(folder, "59_labels.txt")
    if full is not None:
        by_name = {name: number for number, name in _numbered(full, _DETAILED).items()}
        ids = {name: by_name[_found(full, name, by_name)] for name in names}
        changed = [name for name in names if ids[name] != builtin[name]]
        notes += (f"ids of the 59 classes come from {full}",)
        if changed:
            notes += (f"{full} has other ids than expected for {listed(changed)}; the file's are used",)
    else:
        notes += (
            f"labels.txt is not beside {folder}, so the ids of the 59 classes among the 459 are those of the "
            "alphabetical list of names; add labels.txt of PASCAL-Context's page to have them read from there",
        )
    if short is not None:
        numbered = _numbered(short, 59)
        names = [_found(short, numbered[number], official.names) for number in sorted(numbered)]
        notes += (f"the order of the 59 classes comes from {short}",)
    colors = dict(zip(official.names, official.colors, strict=True))
    first = count - 59
    stored = dict.fromkeys(range(_DETAILED + 1), 0 if first else LabelSpace.ignore_index)
    stored |= {ids[name]: train for train, name in enumerate(names, start=first)}
    written = tuple(ids[name] for name in names)
    labels = LabelSpace(
        name=f"pascal_context{count}_of_459",
        names=(*(["background"] if first else []), *names),
        colors=(*([(0, 0, 0)] if first else []), *(colors[name] for name in names)),
        stored_to_train=stored,
        train_to_stored=(0, *written) if first else written,
    )
    what = "are background" if first else "are ignored"
    return labels, (*notes, f"the masks hold {_DETAILED} ids, of which {_DETAILED - 59} and 0 {what}")


def _name_file(folder: Path, name: str) -> Path | None:
    return next((place / name for place in (folder.parent, folder) if (place / name).is_file()), None)


def _numbered(file: Path, count: int) -> dict[int, str]:
    """Reads lines such as ``3: air conditioner``; blanks within names are dropped, as in other lists of them."""
    numbered: dict[int, str] = {}
    for place, line in read_lines(file):
        number, colon, name = line.partition(":")
        if not colon or not number.strip().isdigit() or not name.strip() or int(number) in numbered:
            raise DataError(f"{file}, line {place}: expected a number of its own and a name, '3: bag', got {line!r}")
        numbered[int(number)] = "".join(name.split())
    if sorted(numbered) != list(range(1, count + 1)) or len(set(numbered.values())) != count:
        raise DataError(f"{file}: expected the numbers 1 to {count} with a name each, got {len(numbered)} lines")
    return numbered


def _found(file: Path, name: str, known: dict[str, int] | tuple[str, ...]) -> str:
    """Returns the name under which ``known`` has a class; three are spelt in two ways in the published lists."""
    same = [
        name,
        *(b for a, b in _OTHER_SPELLING.items() if a == name),
        *(a for a, b in _OTHER_SPELLING.items() if b == name),
    ]
    found = next((spelling for spelling in same if spelling in known), None)
    if found is None:
        raise DataError(f"{file}: class {name!r} of the 59 is not among its names{nearest(name, known)}")
    return found
