"""Masks that are one file per class: ``masks/<class>/<name>.png`` or ``masks/<name>/<class>.png``, in splits or not.

Stored ids: 0 where no file marks the pixel, 1 to K for the classes in their order. Where a data set has a class named
background, that class takes its place in the order like any other and pixels that no file marks are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml
from numpy.typing import NDArray

from perpixel.data.decoding import IMAGE_SUFFIXES, image_size, read_mask
from perpixel.data.formats.folders import IMAGE_FOLDERS, MASK_FOLDERS, SPLIT_FOLDERS
from perpixel.data.formats.item import DataSource, Item, listed, own_labels
from perpixel.data.formats.list_file import file_fault
from perpixel.data.picture import Picture
from perpixel.errors import DataError, nearest
from perpixel.labels import LabelSpace
from perpixel.strict_yaml import load_strict_yaml

__all__ = ["ClassFiles", "Overlap", "is_class_folders", "read_class_folders"]

Overlap = Literal["last", "first", "ignore", "refuse"]
IGNORED = 255
RULES_FILE = "class_folders.yaml"
_BACKGROUND = ("background", "bg", "_background_")
_LOOKED_AT = 32  # masks whose overlaps are counted on opening
_LAYOUT = (
    "A data set with a mask per class holds images/ with a.jpg, and masks/road/a.png or masks/a/road.png for each "
    "class that image a shows: 0 outside, one other value inside."
)


@dataclass(frozen=True)
class ClassFiles(Picture):
    """The binary masks of one image, painted onto one map in the order of ``files``."""

    files: tuple[tuple[Path, int], ...]
    """Each file with the id that its marked pixels get, in [0, 65535]."""
    image: Path
    """Gives the size where no class has a file."""
    unmarked: int = 0
    """The id of pixels that no file marks."""
    overlap: Overlap = "last"
    """What a pixel gets that several files mark: the last file's id, the first one's, 255, or an error."""

    @property
    def path(self) -> Path:
        return self.files[0][0] if self.files else self.image

    def size(self) -> tuple[int, int]:
        return image_size(self.path)

    def read(self) -> NDArray[Any]:
        ids, marks = self._painted()
        if self.overlap == "refuse" and (marks > 1).any():
            row, column = (int(i) for i in np.argwhere(marks > 1)[0])
            raise DataError(
                f"{self}: {int((marks > 1).sum())} pixels belong to several classes, the first at row {row}, column "
                f"{column}. Correct the files, or say in {RULES_FILE} which class wins (overlap: last, first, ignore)."
            )
        return ids

    def overlapping_pixels(self) -> int:
        """Returns how many pixels more than one file marks.

        Raises:
            DataError: as `read`.
        """
        return int((self._painted()[1] > 1).sum())

    def __str__(self) -> str:
        names = listed([path.name for path, _ in self.files], 3) or "no class files"
        return f"{self.path.parent}: {names} for image {self.image.name}"

    def _painted(self) -> tuple[NDArray[Any], NDArray[np.uint16]]:
        """Returns the ids, and by how many files each pixel is marked."""
        size = self.size()
        top = max([self.unmarked, *(number for _, number in self.files), IGNORED])
        ids = np.full(size, self.unmarked, dtype=np.uint8 if top <= 255 else np.uint16)
        marks = np.zeros(size, dtype=np.uint16)
        for path, number in self.files:
            marked = _marked(path)
            if marked.shape != size:
                raise DataError(
                    f"{path}: the mask is {marked.shape[0]} x {marked.shape[1]} and {self.path} is {size[0]} x "
                    f"{size[1]}; the files of one image must have one size"
                )
            ids[marked & (marks == 0) if self.overlap == "first" else marked] = number
            marks += marked
        if self.overlap == "ignore":
            ids[marks > 1] = IGNORED
        return ids, marks


def is_class_folders(root: Path) -> bool:
    """Tells whether a folder holds ``images/`` and a ``masks/`` of folders only, or splits of these."""
    for images, masks in _pairs(root).values():
        inside = [path for path in masks.iterdir() if not path.name.startswith(".")]
        if inside and all(path.is_dir() for path in inside) and any(_pictures(images)):
            return True
    return False


def read_class_folders(root: Path, *, overlap: Overlap | None = None, order: Sequence[str] | None = None) -> DataSource:
    """Reads a data set with a mask per class, with or without splits; images without any class file are all unmarked.

    Classes come from ``labels.yaml`` where it is there, else from the names of folders (or files), sorted.

    Args:
        root: Folder with images and masks, or with train/, val/ and test/ that hold them.
        overlap: Rule for pixels of several classes; None takes ``class_folders.yaml`` or else ``"last"``.
        order: Classes from the bottom up; None takes ``class_folders.yaml`` or else the order of the classes.

    Raises:
        DataError: another layout, a class that is not listed, a file without image, or an unknown rule.
    """
    pairs = _pairs(root)
    if not pairs:
        raise DataError(f"{root}: no images/ and masks/ in this folder. {_LAYOUT}")
    left_out = _split_folders_left_out(root, pairs)
    pictures: dict[str, dict[str, Path]] = {}
    found: dict[str, dict[str, dict[str, Path]]] = {}
    for split, (images, masks) in pairs.items():
        pictures[split] = _by_stem(images)
        found[split] = _class_files(masks, pictures[split])
    seen = {name for by_stem in found.values() for files in by_stem.values() for name in files}
    names, labels, notes = _classes(root, sorted(seen))
    rule, layers = _rules(root, names, overlap, order)
    number = {name: place for place, name in enumerate(names, start=1)}
    unmarked = IGNORED if labels.stored_to_train.get(0) is None else 0

    def mask(path: Path, files: Mapping[str, Path]) -> ClassFiles:
        painted = tuple((files[name], number[name]) for name in layers if name in files)
        return ClassFiles(files=painted, image=path, unmarked=unmarked, overlap=rule)

    splits = {
        split: tuple(
            Item(name=stem, image=path, mask=mask(path, found[split].get(stem, {})))
            for stem, path in sorted(pictures[split].items())
        )
        for split in pairs
    }
    notes += left_out
    notes += _said([item for items in splits.values() for item in items], rule, layers, unmarked)
    bare = [stem for split in pairs for stem in sorted(pictures[split]) if stem not in found[split]]
    if bare:
        notes += (f"{len(bare)} images have no class file, so all their pixels are unmarked: {listed(bare)}",)
    return DataSource(format="class_folders", root=root, splits=splits, labels=labels, notes=notes)


def _pairs(root: Path) -> dict[str, tuple[Path, Path]]:
    """Returns the folders of images and of masks per split; undivided data is the split ``all``."""
    folders = {"all": root}
    for split, names in SPLIT_FOLDERS.items():
        if there := _there(root, names):
            folders[split] = there[0]
    pairs = {
        split: (_folder(folder, IMAGE_FOLDERS), _folder(folder, MASK_FOLDERS)) for split, folder in folders.items()
    }
    whole = {split: (images, masks) for split, (images, masks) in pairs.items() if images and masks}
    return {"all": whole["all"]} if "all" in whole else whole


def _split_folders_left_out(root: Path, pairs: Mapping[str, object]) -> tuple[str, ...]:
    """Notes splits without masks, which are not read; two folders for one split are refused."""
    notes = []
    for split, names in SPLIT_FOLDERS.items():
        there = [] if "all" in pairs else _there(root, names)
        if len(there) > 1:
            raise DataError(f"{root}: {listed([path.name for path in there])} are both split {split!r}; join or rename")
        if there and split not in pairs:
            notes.append(f"{there[0]} has no images/ and masks/, so there is no split {split!r}")
    return tuple(notes)


def _by_stem(images: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _pictures(images):
        if path.stem in found:
            raise DataError(f"{images}: {found[path.stem].name} and {path.name} share a name; rename or remove one")
        found[path.stem] = path
    if not found:
        raise DataError(f"{images}: no image files here. {_LAYOUT}")
    return found


def _marked(path: Path) -> NDArray[np.bool_]:
    stored = read_mask(path)
    values = np.unique(stored)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        raise DataError(
            f"{path}: a mask of one class holds 0 outside and one other value inside, this one holds "
            f"{listed(values.tolist(), 8)}. If its edge was smoothed, export it again without smoothing; if it holds "
            "several classes, it is no mask of one class."
        )
    return stored > 0


def _class_files(masks: Path, pictures: Mapping[str, Path]) -> dict[str, dict[str, Path]]:
    """Returns per image the file of each class; folders are named after classes, or after images."""
    folders = sorted(path for path in masks.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DataError(f"{masks}: there are no folders in it. {_LAYOUT}")
    files = [(folder.name, path) for folder in folders for path in _pictures(folder)]
    if not files:
        raise DataError(f"{masks}: its folders hold no mask files. {_LAYOUT}")
    by_class = not any(folder.name in pictures for folder in folders)
    if not by_class and any(path.stem in pictures for _, path in files):
        raise DataError(
            f"{masks}: some of its folders and some of the files in them are named after images, so it is open "
            f"whether folders are classes or images. {_LAYOUT}"
        )
    found: dict[str, dict[str, Path]] = {}
    lost = []
    for folder, path in files:
        stem, name = (path.stem, folder) if by_class else (folder, path.stem)
        if stem not in pictures:
            lost.append(path.relative_to(masks))
        elif name in found.setdefault(stem, {}):
            raise DataError(f"{found[stem][name]} and {path.name} are two masks of class {name!r} for image {stem!r}")
        else:
            found[stem][name] = path
    if lost:
        raise DataError(f"{masks}: {len(lost)} masks belong to no image: {listed(lost)}. {_LAYOUT}")
    return found


def _classes(root: Path, seen: list[str]) -> tuple[list[str], LabelSpace, tuple[str, ...]]:
    """Returns the classes that have files, in the order of their ids 1…K, and what ids mean."""
    if len(seen) >= IGNORED:
        raise DataError(f"{root}: {len(seen)} classes have masks; at most {IGNORED - 1} can be told apart")
    given, notes = own_labels(root)
    filled = [name for name in seen if name.lower() in _BACKGROUND]
    if given is None:
        names = seen
        whole = names if filled else ["background", *names]
        base = LabelSpace.numbered(len(whole))
        colors = base.colors if filled else ((0, 0, 0), *base.colors[: len(names)])
        notes += (f"classes by the names of folders or files in masks/: {listed(names)}",)
    else:
        whole = list(given.names)
        names = [name for name in whole if name in seen or name.lower() not in _BACKGROUND]
        unknown = [name for name in seen if name not in whole]
        if unknown:
            near = nearest(unknown[0], whole)
            raise DataError(f"{root}: masks of class {listed(unknown)} are not in labels.yaml{near}")
        colors = given.colors
    behind = [name for name in whole if name not in names]
    ids = {place: whole.index(name) for place, name in enumerate(names, start=1)}
    ids |= {0: whole.index(behind[0])} if behind else {}
    space = LabelSpace(
        name="class_folders" if given is None else given.name,
        names=tuple(whole),
        colors=tuple(colors),
        stored_to_train=ids | {IGNORED: LabelSpace.ignore_index},
    )
    return names, space, notes


def _rules(
    root: Path, names: Sequence[str], overlap: Overlap | None, order: Sequence[str] | None
) -> tuple[Overlap, list[str]]:
    """Returns the rule for overlaps, and the classes from the bottom up."""
    file = root / RULES_FILE
    content: Any = {}
    if file.is_file():
        try:
            content = load_strict_yaml(file.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise DataError(f"{file}: cannot be read as YAML: {error}") from error
        if not isinstance(content, dict) or not set(content) <= {"overlap", "order"}:
            raise DataError(f"{file}: holds 'overlap' and 'order' and nothing else, got {content!r}")
    rule = overlap or content.get("overlap", "last")
    if rule not in get_args(Overlap):
        raise DataError(f"{file}: overlap is one of {', '.join(get_args(Overlap))}, got {rule!r}")
    stated: Any = order or content.get("order", names)
    # YAML reads classes that are called 1, 2, … as numbers.
    layers = [str(name) for name in stated] if isinstance(stated, list | tuple) else []
    if sorted(layers) != sorted(names):
        raise DataError(f"{file}: order lists every class once ({listed(names)}), got {stated!r}")
    return rule, layers


def _said(items: Sequence[Item], rule: Overlap, layers: Sequence[str], unmarked: int) -> tuple[str, ...]:
    picks = np.unique(np.linspace(0, len(items) - 1, min(_LOOKED_AT, len(items))).round().astype(int))
    masks = [items[int(i)].mask for i in picks]
    pixels = sum(mask.overlapping_pixels() for mask in masks if isinstance(mask, ClassFiles))
    what = {
        "last": f"the later class wins: {' < '.join(layers)}",
        "first": f"the earlier class wins: {' > '.join(layers)}",
        "ignore": "such pixels are ignored",
        "refuse": "such a mask is an error",
    }[rule]
    rest = "ignored" if unmarked == IGNORED else "background"
    return (
        f"where files of several classes mark a pixel, {what} (choose in {RULES_FILE}: overlap, order); {pixels} such "
        f"pixels in {len(picks)} of {len(items)} masks; pixels that no file marks are {rest}",
    )


def _there(root: Path, names: Sequence[str]) -> list[Path]:
    return [root / name for name in names if (root / name).is_dir()]


def _folder(root: Path, names: Sequence[str]) -> Path | None:
    return next(iter(_there(root, names)), None)


def _pictures(folder: Path) -> list[Path]:
    """Returns the picture files of a folder, sorted; folders are passed over.

    Raises:
        DataError: a link leads nowhere or to itself, or a name is a device or pipe.
    """
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        fault = file_fault(path)
        if fault is None:
            found.append(path)
        elif not path.is_dir():
            raise DataError(f"{path} {fault}; restore or remove it")
    return found
