"""LabelSpace: the one truth about classes, colours, ids and what is ignored.

Loader, loss, metrics, writers and artifacts all take this object; nothing else knows a palette or an offset.
Stored ids are what a mask file holds; train ids are 0..K-1, and 255 always means "ignore".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import yaml
from numpy.typing import NDArray

from perpixel.errors import ConfigError, DataError, InvalidValue, nearest
from perpixel.strict_yaml import load_strict_yaml

__all__ = ["LabelSpace", "Rgb", "known_label_spaces"]

Rgb: TypeAlias = tuple[int, int, int]

_KNOWN_FILE = Path(__file__).with_name("label_spaces.json")
_LOOKUP_SIZE = 1 << 16
_UNKNOWN = -1


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """Classes with their names, display colours and the ids under which files store them.

    Raises:
        InvalidValue: no class or more than 255, names repeat, a colour or an id is out of range, or a stored id
            leads to a class that does not exist.
    """

    names: tuple[str, ...]
    colors: tuple[Rgb, ...]
    stored_to_train: Mapping[int, int]
    """Stored id -> train id in [0, K) or 255 (ignored). An id that is not here is an error in a mask."""
    train_to_stored: tuple[int, ...] | None = None
    """The id that predictions are written with, per class; None writes train ids."""
    name: str = "custom"
    ignore_color: Rgb = (0, 0, 0)
    ignore_index: ClassVar[int] = 255
    _lookup: NDArray[np.int16] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        count = len(self.names)
        if not 1 <= count <= self.ignore_index:
            raise InvalidValue(f"a label space holds 1 to {self.ignore_index} classes, got {count}")
        repeated = sorted({n for n in self.names if self.names.count(n) > 1})
        if repeated:
            raise InvalidValue(f"class names must differ, repeated: {', '.join(repeated)}")
        if len(self.colors) != count:
            raise InvalidValue(f"{count} class names but {len(self.colors)} colours; give one colour per class")
        for color in (*self.colors, self.ignore_color):
            if len(color) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in color):
                raise InvalidValue(f"a colour is three whole numbers in [0, 255], got {color}")
        lookup = np.full(_LOOKUP_SIZE, _UNKNOWN, dtype=np.int16)
        for stored, train in self.stored_to_train.items():
            if not 0 <= stored < _LOOKUP_SIZE:
                raise InvalidValue(f"stored id {stored} is outside [0, {_LOOKUP_SIZE - 1}]")
            if not (0 <= train < count or train == self.ignore_index):
                raise InvalidValue(f"stored id {stored} leads to class {train}; there are {count} classes, 255 ignores")
            lookup[stored] = train
        if self.train_to_stored is not None and len(self.train_to_stored) != count:
            raise InvalidValue(f"train_to_stored has {len(self.train_to_stored)} ids for {count} classes")
        lookup.flags.writeable = False
        object.__setattr__(self, "_lookup", lookup)

    @property
    def num_classes(self) -> int:
        """K: the classes that are scored, without the ignored ones."""
        return len(self.names)

    @property
    def ignored_ids(self) -> tuple[int, ...]:
        """Stored ids that are ignored."""
        return tuple(sorted(s for s, t in self.stored_to_train.items() if t == self.ignore_index))

    def encode(self, stored: NDArray[Any], *, source: str = "mask") -> NDArray[np.uint8]:
        """Maps stored ids (H, W) to train ids (H, W) uint8.

        Args:
            stored: Ids as the file holds them, unsigned integers below 65536.
            source: Named in the error: the file that the ids come from.

        Raises:
            DataError: an id is not in the label space; names the file, the ids, a pixel of each and its count.
        """
        train: NDArray[np.int16] = self._lookup[stored]
        if train.min(initial=0) == _UNKNOWN:
            raise DataError(self._unknown_ids_message(stored, train == _UNKNOWN, source))
        return train.astype(np.uint8)

    def decode(self, train: NDArray[Any]) -> NDArray[Any]:
        """Maps train ids (H, W) back to the ids that files store: uint8, or uint16 when an id is over 255.

        Ignored pixels become the first ignored stored id, or 255 where there is none.
        """
        ids = range(self.num_classes) if self.train_to_stored is None else self.train_to_stored
        ignored = self.ignored_ids[0] if self.train_to_stored is not None and self.ignored_ids else self.ignore_index
        dtype = np.uint8 if max(*ids, ignored) <= 255 else np.uint16
        table = np.full(256, ignored, dtype=dtype)
        table[: self.num_classes] = list(ids)
        stored: NDArray[Any] = table[train]
        return stored

    def encode_colors(self, rgb: NDArray[np.uint8], *, source: str = "mask") -> NDArray[np.uint8]:
        """Maps an RGB mask (H, W, 3) whose colours *are* the labels to train ids (H, W).

        Raises:
            DataError: a colour belongs to no class or to several; names the file, the colours and their counts.
        """
        packed = (rgb[..., 0].astype(np.uint32) << 16) | (rgb[..., 1].astype(np.uint32) << 8) | rgb[..., 2]
        table: dict[int, int] = {_pack(self.ignore_color): self.ignore_index}
        table.update({_pack(color): index for index, color in enumerate(self.colors)})
        if len(set(self.colors)) < self.num_classes:
            raise DataError(f"{source}: label space {self.name!r} repeats colours, so colours cannot be read as labels")
        values, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
        unknown = [(int(v), int(c)) for v, c in zip(values, counts, strict=True) if int(v) not in table]
        if unknown:
            listed = ", ".join(f"({v >> 16}, {v >> 8 & 255}, {v & 255}) on {c} pixels" for v, c in unknown[:8])
            raise DataError(
                f"{source}: {len(unknown)} colours belong to no class of label space {self.name!r}: {listed}. "
                "Add them to the label file as classes, or give their colour as ignore_color."
            )
        train: NDArray[np.uint8] = np.array([table[int(v)] for v in values], dtype=np.uint8)[inverse]
        return train.reshape(packed.shape)

    def palette(self) -> list[int]:
        """Returns the 768 values of a PNG palette, indexed by the ids that `decode` writes (ids over 255 left out)."""
        colors = np.zeros((256, 3), dtype=np.uint8)
        colors[self.ignore_index] = self.ignore_color
        train = np.arange(self.num_classes + 1, dtype=np.uint8)
        train[-1] = self.ignore_index
        for stored, color in zip(self.decode(train), (*self.colors, self.ignore_color), strict=True):
            if stored <= 255:
                colors[stored] = color
        return [int(value) for value in colors.reshape(-1)]

    def colorize(self, train: NDArray[Any]) -> NDArray[np.uint8]:
        """Paints train ids (H, W) as an RGB picture (H, W, 3)."""
        table = np.full((256, 3), self.ignore_color, dtype=np.uint8)
        table[: self.num_classes] = self.colors
        painted: NDArray[np.uint8] = table[train]
        return painted

    def to_dict(self) -> dict[str, Any]:
        """Returns plain Python values that `from_dict` reads back, as artifacts store them."""
        return {
            "name": self.name,
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "stored_to_train": {int(s): int(t) for s, t in self.stored_to_train.items()},
            "train_to_stored": None if self.train_to_stored is None else list(self.train_to_stored),
            "ignore_color": list(self.ignore_color),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelSpace:
        """Rebuilds what `to_dict` wrote."""
        stored = values["train_to_stored"]
        return cls(
            name=values["name"],
            names=tuple(values["names"]),
            colors=tuple(_rgb(color) for color in values["colors"]),
            stored_to_train={int(s): int(t) for s, t in values["stored_to_train"].items()},
            train_to_stored=None if stored is None else tuple(stored),
            ignore_color=_rgb(values["ignore_color"]),
        )

    @classmethod
    def numbered(cls, num_classes: int) -> LabelSpace:
        """Returns ``num_classes`` unnamed classes stored as 0..K-1, with 255 ignored."""
        return cls(
            name=f"{num_classes} classes",
            names=tuple(f"class {i}" for i in range(num_classes)),
            colors=_distinct_colors(num_classes),
            stored_to_train={**{i: i for i in range(num_classes)}, 255: 255},
        )

    @classmethod
    def load(cls, spec: str | int) -> LabelSpace:
        """Returns the label space that ``spec`` names: a known space, a YAML file, or a number of unnamed classes.

        A file holds ``names`` and, when wanted, ``colors``, ``stored`` (one id per class, or a mapping from stored id
        to class name), ``ignore`` (stored ids), ``ignore_color`` and ``name``.

        Raises:
            ConfigError: there is no such space or file, or the file does not describe one.
        """
        text = str(spec)
        if text.isdigit():
            return cls.numbered(int(text))
        known = known_label_spaces()
        if text in known:
            return _from_description(known[text], name=text, source=text)
        path = Path(text)
        if not path.is_file():
            meant_as_file = path.suffix or path.parent != Path()
            what = "is a folder" if path.is_dir() else "there is no such file" if meant_as_file else ""
            raise ConfigError(
                f"no label space {text!r}{what and f' ({what})'}{nearest(text, known, end='.')} Known: "
                f"{', '.join(sorted(known))}; "
                "or give a YAML file with names, colors, ignore and stored ids, or a number of classes."
            )
        try:
            content = load_strict_yaml(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not a YAML file: {error}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: a label file is a mapping with the key 'names', got {type(content).__name__}")
        return _from_description(content, name=str(content.get("name", path.stem)), source=str(path))

    @classmethod
    def described(cls, content: Mapping[str, Any], *, source: str) -> LabelSpace:
        """Returns the label space that the keys of a label file describe, wherever they stand.

        Args:
            content: As `load` reads it from a file.
            source: Named in errors.

        Raises:
            ConfigError: they do not describe one.
        """
        return _from_description(content, name=str(content.get("name", "custom")), source=source)

    def _unknown_ids_message(self, stored: NDArray[Any], unknown: NDArray[np.bool_], source: str) -> str:
        values, counts = np.unique(stored[unknown], return_counts=True)
        parts = []
        for value, count in list(zip(values, counts, strict=True))[:8]:
            row, column = (int(i) for i in np.argwhere(stored == value)[0])
            parts.append(f"{int(value)} on {int(count)} pixels (first at row {row}, column {column})")
        more = f" and {len(values) - 8} more" if len(values) > 8 else ""
        known = sorted(self.stored_to_train)
        span = f"{known[0]}..{known[-1]}" if known == list(range(known[0], known[-1] + 1)) else str(known[:24])
        hint = ""
        if set(np.unique(stored).tolist()) <= {0, 255} and self.num_classes <= 2:
            hint = " The mask holds only 0 and 255: leave --labels away and 255 becomes class 1."
        return (
            f"{source}: ids outside label space {self.name!r} ({self.num_classes} classes, stored ids {span}): "
            f"{', '.join(parts)}{more}. Correct the mask, or give a label file that maps these ids or ignores them."
            f"{hint}"
        )


def known_label_spaces() -> dict[str, dict[str, Any]]:
    """Returns the descriptions of the label spaces that `LabelSpace.load` knows by name."""
    spaces: dict[str, dict[str, Any]] = json.loads(_KNOWN_FILE.read_text(encoding="utf-8"))
    return spaces


def _from_description(content: Mapping[str, Any], *, name: str, source: str) -> LabelSpace:
    allowed = {"name", "names", "colors", "stored", "ignore", "ignore_color"}
    for key in content:
        if key not in allowed:
            raise ConfigError(
                f"{source}: unknown key {key!r}{nearest(str(key), allowed, end='.')} Known: {', '.join(allowed)}."
            )
    names = content.get("names")
    if not isinstance(names, list) or not names:
        raise ConfigError(f"{source}: 'names' must list at least one class name, got {names!r}")
    unnamed = [n for n in names if isinstance(n, bool) or not isinstance(n, str | int | float) or not str(n).strip()]
    if unnamed:
        raise ConfigError(
            f"{source}: 'names' holds {unnamed[0]!r}, which is no name; put quotes around words that YAML takes for "
            "something else, such as 'no', 'on' or 'null'"
        )
    names = [str(n) for n in names]
    stored = content.get("stored", list(range(len(names))))
    try:
        mapping, written = _stored_ids(stored, names)
        mapping.update(_ignored_ids(content.get("ignore"), mapping))
        colors = content.get("colors")
        if colors is not None and not isinstance(colors, list):
            raise InvalidValue(f"'colors' lists one colour per class, got {colors!r}")
        return LabelSpace(
            name=name,
            names=tuple(names),
            colors=_distinct_colors(len(names)) if colors is None else tuple(_rgb(c) for c in colors),
            stored_to_train=mapping,
            train_to_stored=written,
            ignore_color=_rgb(content.get("ignore_color", (0, 0, 0))),
        )
    except (InvalidValue, TypeError, ValueError) as error:
        raise ConfigError(f"{source}: {error}") from error


def _ignored_ids(ignore: Any, mapping: Mapping[int, int]) -> dict[int, int]:
    """Reads ``ignore``; when the file states none, 255 is ignored unless a class is stored as it."""
    if ignore is None:
        return {} if 255 in mapping else {255: LabelSpace.ignore_index}
    if not isinstance(ignore, list):
        raise InvalidValue(f"'ignore' lists stored ids, such as [255], got {ignore!r}")
    ids = [_whole(i, "ignore") for i in ignore]
    both = [i for i in ids if i in mapping]
    if both:
        raise InvalidValue(f"stored ids {both} are ignored and belong to a class too; say one or the other")
    return dict.fromkeys(ids, LabelSpace.ignore_index)


def _stored_ids(stored: Any, names: list[str]) -> tuple[dict[int, int], tuple[int, ...] | None]:
    """Reads ``stored`` in either form; ids are written back only when every class has exactly one."""
    if isinstance(stored, dict):
        unknown = [n for n in stored.values() if str(n) not in names]
        if unknown:
            raise InvalidValue(f"'stored' leads to class {unknown[0]!r}, which 'names' does not list")
        mapping = {_whole(i, "stored"): names.index(str(n)) for i, n in stored.items()}
        ids_of = [[i for i, t in mapping.items() if t == k] for k in range(len(names))]
        single = all(len(ids) == 1 for ids in ids_of)
        return mapping, tuple(ids[0] for ids in ids_of) if single else None
    ids = tuple(_whole(i, "stored") for i in stored) if isinstance(stored, list) else ()
    if len(ids) != len(names) or len(set(ids)) != len(ids):
        raise InvalidValue(f"'stored' needs one different id for each of the {len(names)} names, got {stored!r}")
    return {i: k for k, i in enumerate(ids)}, None if ids == tuple(range(len(ids))) else ids


def _distinct_colors(count: int) -> tuple[Rgb, ...]:
    """PASCAL VOC's palette rule (bits of the index spread over the channels): distinct for 256 classes."""

    def color(index: int) -> Rgb:
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        return channels[0], channels[1], channels[2]

    return tuple(color(i) for i in range(1, count + 1)) if count < 255 else tuple(color(i) for i in range(count))


def _rgb(values: Any) -> Rgb:
    if not isinstance(values, list | tuple) or len(values) != 3:
        raise InvalidValue(f"a colour is three whole numbers in [0, 255], got {values!r}")
    red, green, blue = (_whole(value, "a colour") for value in values)
    return red, green, blue


def _whole(value: Any, what: str) -> int:
    """Reads an id or a colour's part; JSON writes the keys of a mapping as text."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidValue(f"{what!r} takes whole numbers, got {value!r}")
    return value


def _pack(color: Rgb) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]
