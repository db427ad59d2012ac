"""Mapping files: how data that is not as it should be can be read all the same, without a change to it.

``perpixel data check DATA --fix`` writes one, people may write one, ``data.fixes=FILE`` applies it. Keys: ``labels``
(those of a label file), ``mask_encoding`` (ids or colors), ``exclude`` (images that are left out, by name or by file
relative to the root of the data) and ``masks`` (mask file -> how it is read: ``ids: {read: meant, …}``,
``divide: n``, or ``as: colors``, ``as: alpha``, ``as: stored``). Shapes: H W mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from perpixel.data.decoding import image_head, read_mask
from perpixel.data.formats.color_masks import ColorIds, ColorTable, color_table
from perpixel.data.formats.item import DataSource, Item, listed
from perpixel.data.inspection.collector import Collector, shown_path
from perpixel.data.inspection.layout import Layout, scan_data, scan_folders
from perpixel.data.inspection.mending import Mending
from perpixel.data.picture import Picture, PixelSource
from perpixel.data.source import open_data, open_folders
from perpixel.errors import ConfigError, DataError, InvalidValue, nearest
from perpixel.labels import LabelSpace

__all__ = [
    "FIXES_FILE",
    "Fixes",
    "MendedMask",
    "apply_fixes",
    "load_fixes",
    "open_with_fixes",
    "write_fixes",
]

FIXES_FILE = "perpixel-fixes.yaml"
"""The name under which ``--fix`` writes, and which is mentioned when it lies beside the data."""
_LARGEST = 64 * 2**20
_KEYS = ("labels", "mask_encoding", "exclude", "masks")
_WAYS = ("ids", "divide", "as")
_MOST_STORED = 65535
Reading: TypeAlias = Literal["alpha", "stored"]


@dataclass(frozen=True)
class MendedMask(Picture):
    """A mask file whose ids are read in a way of its own."""

    file: Path
    ids: tuple[tuple[int, int], ...] = ()
    """Pairs of id in the file and id that is meant; others are refused. Empty: as in the file."""
    divide: int = 1
    """Ids of at least this number are divided by it: instance numbers, whose class is the quotient."""
    reading: Reading | None = None
    """``alpha``: the transparency holds the ids; ``stored``: EXIF orientation is passed over."""

    @property
    def path(self) -> Path:
        return self.file

    def __str__(self) -> str:
        return str(self.file)

    def size(self) -> tuple[int, int]:
        head = image_head(self.file)
        return head.stored_size if self.reading == "stored" else head.size

    def read(self) -> NDArray[Any]:
        stored = read_mask(self.file) if self.reading is None else self._raw()
        if self.divide > 1:
            stored = np.where(stored >= self.divide, stored // self.divide, stored).astype(stored.dtype)
        if not self.ids:
            return stored
        table = np.full(_MOST_STORED + 1, -1, dtype=np.int32)
        for found, meant in self.ids:
            table[found] = meant
        ids: NDArray[Any] = table[stored]
        if ids.min(initial=0) < 0:
            unknown = listed(np.unique(stored[ids < 0]).tolist(), 8)
            raise DataError(f"{self.file}: ids {unknown} are not in the mapping file; check the data again")
        meant_ids: NDArray[Any] = ids.astype(np.uint8 if ids.max(initial=0) <= 255 else np.uint16)
        return meant_ids

    def _raw(self) -> NDArray[Any]:
        """Decodes without regard to EXIF orientation, or the transparency alone."""
        image_head(self.file)  # refuses what must not be decoded
        try:
            with Image.open(self.file) as image:
                values = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{self.file}: cannot be read: {error}") from error
        if self.reading == "alpha" and values.ndim == 3 and values.shape[2] in (2, 4):
            return np.ascontiguousarray(values[..., -1])
        if self.reading == "stored" and values.ndim == 2 and values.dtype in (np.uint8, np.uint16):
            return values
        raise DataError(f"{self.file}: the mapping file says as: {self.reading}, and the file has another form")


@dataclass(frozen=True, kw_only=True)
class Fixes:
    """The content of a mapping file."""

    file: Path
    labels: LabelSpace | None = None
    colors: bool = False
    """Whether all masks hold colours."""
    exclude: frozenset[str] = frozenset()
    masks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def load_fixes(path: str | Path) -> Fixes:
    """Reads a mapping file.

    Raises:
        ConfigError: it cannot be read, is no mapping, or holds an unknown key or a value of the wrong kind.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigError(f"{path}: a mapping file of more than {_LARGEST} bytes is none")
        content = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except OSError as error:
        raise ConfigError(f"{path}: the mapping file cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a mapping file holds the keys {', '.join(_KEYS)}, got {type(content).__name__}")
    for key in content:
        if key not in _KEYS:
            near = nearest(str(key), _KEYS, end=".")
            raise ConfigError(f"{path}: unknown key {key!r}{near} Known: {', '.join(_KEYS)}.")
    labels = content.get("labels")
    if labels is not None and not isinstance(labels, dict):
        raise ConfigError(f"{path}: 'labels' holds the keys of a label file, got {type(labels).__name__}")
    encoding = content.get("mask_encoding", "ids")
    if encoding not in ("ids", "colors"):
        raise ConfigError(f"{path}: mask_encoding is ids or colors, got {encoding!r}")
    if encoding == "colors" and labels is None:
        raise ConfigError(f"{path}: mask_encoding: colors needs 'labels', which say which class a colour is")
    return Fixes(
        file=path,
        labels=None if labels is None else LabelSpace.described(labels, source=str(path)),
        colors=encoding == "colors",
        exclude=frozenset(_names(path, content.get("exclude", []))),
        masks=_ways(path, content.get("masks", {})),
    )


def write_fixes(path: str | Path, mending: Mending, *, root: Path) -> None:
    """Writes a mapping file.

    Args:
        path: The file; it is replaced.
        mending: What it says.
        root: Of the data, named in its first line.

    Raises:
        OSError: it cannot be written.
    """
    head = (
        f"# Written by `perpixel data check --fix` for {str(root)!r}; used with data.fixes=FILE.\n"
        "# exclude: images that are left out. masks: how single masks are read. The data itself is not changed.\n"
    )
    text = yaml.dump(mending.to_dict(), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=120)
    Path(path).write_text(head + text, encoding="utf-8", errors="surrogateescape")


def open_with_fixes(data: str | Path, fixes: Fixes, *, masks: str | Path | None = None) -> DataSource:
    """Opens data that its reader may refuse, as far as the mapping file leaves out what is wrong.

    Args:
        data: ``[format:]path``, or the folder of images together with ``masks``.
        fixes: The mapping file.
        masks: The folder of masks.

    Raises:
        DataError: the data cannot be opened, and the mapping file does not leave out why.
    """
    try:
        return apply_fixes(open_data(data) if masks is None else open_folders(data, masks), fixes)
    except DataError as refusal:
        layout = scan_data(data, Collector()) if masks is None else scan_folders(data, masks, Collector())
        source, gone = _source_of(layout, fixes, refusal)
    return apply_fixes(source, fixes, gone=gone)


def apply_fixes(source: DataSource, fixes: Fixes, *, gone: frozenset[str] = frozenset()) -> DataSource:
    """Leaves out and rereads what the mapping file says; what it did is in the notes.

    Args:
        source: The opened data.
        fixes: The mapping file.
        gone: Images that the file leaves out and that ``source`` lacks already.

    Raises:
        DataError: a way of reading needs a label space with one colour per class, or nothing is left of a split.
    """
    labels = source.labels if fixes.labels is None else fixes.labels
    table = _colors(labels, fixes)
    used: set[str] = set(gone)
    splits: dict[str, tuple[Item, ...]] = {}
    left_out = len(gone)
    for split, items in source.splits.items():
        kept = []
        for item in items:
            file = shown_path(source.root, item.image)
            if file in fixes.exclude or item.name in fixes.exclude:
                used |= {file, item.name}
                left_out += 1
                continue
            kept.append(replace(item, mask=_reread(item.mask, source.root, fixes, table, used)))
        if not kept and items:
            raise DataError(f"{fixes.file} leaves out all {len(items)} images of split {split!r}; repair some of them")
        splits[split] = tuple(kept)
    reread = len(used & set(fixes.masks))
    notes = [f"{fixes.file}: {left_out} images are left out and {reread} masks are read in a way of their own"]
    if fixes.labels is not None:
        notes.append(f"{fixes.file}: classes are {fixes.labels.num_classes} of label space {fixes.labels.name!r}")
    idle = sorted((fixes.exclude | set(fixes.masks)) - used)
    if idle:
        notes.append(f"{fixes.file}: {len(idle)} entries are of no image or mask here: {listed(idle)}")
    return replace(source, splits=splits, labels=labels, notes=(*source.notes, *notes))


def _source_of(layout: Layout, fixes: Fixes, refusal: DataError) -> tuple[DataSource, frozenset[str]]:
    """Makes a source of the pairs that are sound; the others must be among those left out, and are returned."""
    labelled = {pair.split for pair in layout.pairs if pair.mask_file is not None}
    splits: dict[str, list[Item]] = {}
    gone: set[str] = set()
    for pair in layout.pairs:
        if pair.image is not None and (pair.sound or pair.split not in labelled):
            splits.setdefault(pair.split, []).append(Item(name=pair.name, image=pair.image, mask=pair.mask))
        elif {pair.image_file, pair.name} & fixes.exclude:
            gone |= {pair.image_file, pair.name} & fixes.exclude
        else:
            raise refusal
    if not splits:
        raise refusal
    source = DataSource(
        format=layout.format,
        root=layout.root,
        splits={split: tuple(items) for split, items in splits.items()},
        labels=layout.labels,
    )
    return source, frozenset(gone)


def _reread(
    mask: PixelSource | None, root: Path, fixes: Fixes, table: ColorTable | None, used: set[str]
) -> PixelSource | None:
    """Returns the mask as the mapping file wants it read."""
    if not isinstance(mask, Path):
        return mask
    name = shown_path(root, mask)
    way = fixes.masks.get(name)
    if way is None:
        return ColorIds(mask, table) if fixes.colors and table is not None else mask
    used.add(name)
    if way.get("as") == "colors":
        assert table is not None  # as `_colors` made sure
        return ColorIds(mask, table)
    ids = tuple(sorted((int(k), int(v)) for k, v in way.get("ids", {}).items()))
    return MendedMask(mask, ids, int(way.get("divide", 1)), way.get("as"))


def _colors(labels: LabelSpace | None, fixes: Fixes) -> ColorTable | None:
    """Returns the colours of the classes, where they are needed."""
    if not fixes.colors and not any(way.get("as") == "colors" for way in fixes.masks.values()):
        return None
    if labels is None:
        raise DataError(f"{fixes.file}: masks are to be read as colours, and no label space says which class they are")
    try:
        return color_table(labels)
    except InvalidValue as error:
        raise DataError(f"{fixes.file}: label space {labels.name!r} cannot be read from colours: {error}") from error


def _names(path: Path, values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"{path}: 'exclude' lists image files or names (put numbers in quotes), got {values!r:.200}")
    return values


def _ways(path: Path, values: Any) -> dict[str, Mapping[str, Any]]:
    """Checks how single masks are to be read."""
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: 'masks' maps mask files to how they are read, got {type(values).__name__}")
    for name, way in values.items():
        place = f"{path}: masks: {name!r}"
        if not isinstance(name, str) or not isinstance(way, dict) or not way or set(way) - set(_WAYS):
            raise ConfigError(f"{place} needs one of the keys {', '.join(_WAYS)}, got {way!r:.200}")
        ids = way.get("ids", {})
        numbers = [*ids, *ids.values()] if isinstance(ids, dict) else [None]
        if not all(type(number) is int and 0 <= number <= _MOST_STORED for number in numbers):
            raise ConfigError(f"{place}: 'ids' maps whole numbers in [0, {_MOST_STORED}] to such, got {ids!r:.200}")
        divide = way.get("divide", 2)
        if type(divide) is not int or not 2 <= divide <= _MOST_STORED:
            raise ConfigError(f"{place}: 'divide' is a whole number of 2 or more, got {divide!r}")
        if way.get("as", "colors") not in ("colors", "alpha", "stored"):
            raise ConfigError(f"{place}: 'as' is colors, alpha or stored, got {way['as']!r}")
    return values


class _PlainDumper(yaml.SafeDumper):
    """Writes equal values out instead of referring to the first."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


class _PlainLoader(yaml.SafeLoader):
    """Reads YAML without aliases: a few lines of them can stand for more entries than memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"aliases (*{event.anchor}) are not read in mapping files")
        return super().compose_node(parent, index)
