"""Shards: tar files in the WebDataset layout, where files of one key (``1.jpg``, ``1.seg.png``) are a sample.

The archives are listed once, when the data is opened; after that every image and mask is opened at its place, in any
order, by any process. So shards are a data set like any other: batches depend on (seed, epoch, index) alone, and a run
that goes on after a restart, or with another number of workers, sees what it would have seen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain, product
from pathlib import Path, PurePosixPath

from perpixel.data.decoding import IMAGE_SUFFIXES
from perpixel.data.formats.folders import SPLIT_FOLDERS
from perpixel.data.formats.item import DataSource, Item, listed, own_labels
from perpixel.data.formats.tar_members import TarMember, list_members
from perpixel.errors import DataError

__all__ = ["braces", "is_shards", "read_shards"]

MASK_WORDS = ("mask", "seg", "label", "labels", "segmentation", "annotation", "target", "gt", "msk")
IMAGE_WORDS = ("", "image", "img", "rgb", "input")
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_MOST_FILES = 100_000
_LAYOUT = (
    "Shards are .tar files (not compressed) with an image and a mask of one key side by side: 0001.jpg and "
    "0001.mask.png (or .seg.png, .label.png); the key ends at the first dot. Shards of a split are named after it "
    "(train-000000.tar, val-000000.tar) or lie in a folder of its name; a labels.yaml beside them names the classes."
)


def is_shards(root: Path) -> bool:
    """Tells whether a path is a .tar file, or a folder that holds some and no images of its own."""
    return root.suffix.lower() == ".tar" if root.is_file() else bool(_in_folder(root))


def read_shards(root: Path) -> DataSource:
    """Reads a .tar file, a folder of them, or a pattern with braces such as ``d/train-{000..003}.tar``.

    Args:
        root: File, folder or pattern; ``{a,b}`` lists and ``{08..11}`` counts, keeping leading zeros.

    Raises:
        DataError: there are no shards, one is damaged or holds what is refused, or a key has no image, no mask, or two.
    """
    files, folder = _shard_files(root)
    labels, notes = own_labels(folder)
    packed = [path.name for path in _in_folder(root, _PACKED)] if root.is_dir() else []
    if packed:
        notes += (f"{len(packed)} compressed archives were left out, unpack them to .tar: {listed(packed)}",)
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(_split_of(file, folder), []).append(file)
    if "all" in groups and len(groups) > 1:
        raise DataError(
            f"{folder}: {listed([file.name for file in groups['all']], 3)} are named after no split and others are. "
            f"{_LAYOUT}"
        )
    splits: dict[str, tuple[Item, ...]] = {}
    for split in sorted(groups, key=["train", "val", "test", "all"].index):
        splits[split], said = _items(groups[split], split)
        notes += said
    notes += _gaps(files)
    count = sum(map(len, splits.values()))
    notes += (f"{count} images lie in {len(files)} shards, which were listed once and are read in any order",)
    return DataSource(format="shards", root=folder, splits=splits, labels=labels, notes=notes)


def braces(pattern: str) -> list[str]:
    """Writes out ``{a,b}`` and ``{008..011}``, one after the other; a text without braces is itself.

    Raises:
        DataError: a brace is not closed, a range runs backwards, or more than 100,000 names come out.
    """
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    if any("{" in piece or "}" in piece for piece in pieces):
        raise DataError(f"{pattern}: the braces do not match; write {{000..009}} or {{a,b}}, not one inside another")
    choices = [[piece] if place % 2 == 0 else _choices(piece, pattern) for place, piece in enumerate(pieces)]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total > _MOST_FILES:
        raise DataError(f"{pattern}: the braces stand for {total} names, more than {_MOST_FILES}")
    return ["".join(parts) for parts in product(*choices)]


def _choices(text: str, pattern: str) -> list[str]:
    counted = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", text)
    if counted is None:
        if ".." in text:
            raise DataError(f"{pattern}: {{{text}}} is no range; write {{000..009}}")
        return text.split(",")
    first, last = int(counted[1]), int(counted[2])
    if last < first or last - first >= _MOST_FILES:
        raise DataError(f"{pattern}: {{{text}}} must run upwards over at most {_MOST_FILES} numbers")
    width = len(counted[1]) if counted[1].startswith("0") or len(counted[1]) == len(counted[2]) else 0
    return [f"{number:0{width}d}" for number in range(first, last + 1)]


def _shard_files(root: Path) -> tuple[list[Path], Path]:
    """Returns the shards in order, and the folder they belong to."""
    if root.is_file():
        return [root], root.parent
    if root.is_dir():
        files = _in_folder(root)
        if not files:
            raise DataError(f"{root}: no .tar files here or in train/, val/, test/. {_LAYOUT}")
        return files, root
    files = [Path(name) for name in braces(str(root))]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise DataError(f"{root}: {len(missing)} of {len(files)} shards are not there: {listed(missing)}")
    repeated = [file for file, times in Counter(files).items() if times > 1]
    if repeated:
        raise DataError(f"{root}: the pattern names shards twice: {listed(repeated)}")
    parents = {file.parent for file in files}
    return files, files[0].parent if len(parents) == 1 else files[0].parent.parent


def _gaps(files: Sequence[Path]) -> tuple[str, ...]:
    """Notes numbers that are missing between shards, or that ``-of-N`` in their names promises."""
    numbers: dict[tuple[Path, str, str], set[int]] = {}
    for file in files:
        counted = re.fullmatch(r"(.*?)(\d{1,18})(-of-\d{1,18})?\.tar", file.name, re.IGNORECASE)
        if counted:
            numbers.setdefault((file.parent, counted[1], counted[3] or ""), set()).add(int(counted[2]))
    notes = []
    for (folder, start, of), found in numbers.items():
        promised = int(of.removeprefix("-of-")) if of else 0
        missing = max(promised, max(found) - min(found) + 1) - len(found)
        if missing > 0:
            notes.append(f"{missing} shards seem to be missing from {folder / start}*{of}.tar, by their numbers")
    return tuple(notes)


def _in_folder(root: Path, endings: tuple[str, ...] = (".tar",)) -> list[Path]:
    names = set(chain.from_iterable(SPLIT_FOLDERS.values()))
    folders = [root, *sorted(path for path in root.iterdir() if path.name.lower() in names and path.is_dir())]
    return [file for folder in folders for file in sorted(folder.iterdir()) if file.name.lower().endswith(endings)]


def _split_of(file: Path, folder: Path) -> str:
    """Names the split by the shard's folder, else by the word that its name begins with."""
    word = re.match(r"[a-z]*", file.name.lower())
    inner = file.parent.name.lower() if file.parent != folder else ""
    for candidate in (inner, word[0] if word else ""):
        for split, names in SPLIT_FOLDERS.items():
            if candidate in names:
                return split
    return "all"


def _items(files: Sequence[Path], split: str) -> tuple[tuple[Item, ...], tuple[str, ...]]:
    """Lists the samples of a split; names are their keys, with the shard's name before them where keys repeat."""
    samples: list[tuple[Path, str, TarMember, TarMember | None]] = []
    notes: tuple[str, ...] = ()
    other: Counter[str] = Counter()
    for file in files:
        samples += _samples(file, other)
    bare = [f"{file.name}: {key}" for file, key, _, mask in samples if mask is None]
    if bare and (split != "test" or len(bare) < len(samples)):
        raise DataError(
            f"split {split!r}: {len(bare)} of {len(samples)} images have no mask of their key: {listed(bare)}. "
            f"{_LAYOUT}"
        )
    if bare:
        notes += (f"the {len(bare)} images of split {split!r} have no masks: they can be predicted, not scored",)
    if other:
        kinds = listed([f"{count} .{kind}" for kind, count in sorted(other.items())])
        notes += (f"split {split!r}: members that are neither image nor mask were left out: {kinds}",)
    names = [key.replace("/", "__") for _, key, _, _ in samples]
    if len(set(names)) < len(names):
        names = [f"{file.stem}__{name}" for (file, _, _, _), name in zip(samples, names, strict=True)]
        notes += (f"split {split!r}: keys repeat, so images are named after their shard too",)
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise DataError(f"split {split!r}: {len(repeated)} images have one name: {listed(repeated)}; rename the keys")
    return tuple(Item(name=n, image=s[2], mask=s[3]) for n, s in zip(names, samples, strict=True)), notes


def _samples(file: Path, other: Counter[str]) -> list[tuple[Path, str, TarMember, TarMember | None]]:
    """Groups the members of one shard by key; counts those of other kinds."""
    images: dict[str, TarMember] = {}
    masks: dict[str, TarMember] = {}
    for member in list_members(file):
        key, kind = _key(member.name)
        role = _role(kind)
        if role is None:
            other[kind] += 1
            continue
        found = images if role == "image" else masks
        if key in found:
            raise DataError(f"{file}: {found[key].name!r} and {member.name!r} are two {role}s of the key {key!r}")
        found[key] = member
    if not images:
        raise DataError(f"{file}: there is no image in this shard. {_LAYOUT}")
    lost = [member.name for key, member in masks.items() if key not in images]
    if lost:
        raise DataError(f"{file}: {len(lost)} masks have no image of their key: {listed(lost)}. {_LAYOUT}")
    return [(file, key, image, masks.get(key)) for key, image in images.items()]


def _key(name: str) -> tuple[str, str]:
    """Cuts a name at the first dot of its last part, as WebDataset does: ``a/1.seg.png`` -> ``a/1``, ``seg.png``."""
    path = PurePosixPath(name)
    stem, _, kind = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, kind.lower()


def _role(kind: str) -> str | None:
    """Tells what a kind of member such as ``seg.png`` is: an image, a mask, or neither."""
    word, _, suffix = kind.rpartition(".")
    if f".{suffix}" not in IMAGE_SUFFIXES:
        return None
    if word in MASK_WORDS:
        return "mask"
    return "image" if word in IMAGE_WORDS else None
