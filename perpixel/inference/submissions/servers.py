"""What each test server takes: archive, names, ids, sizes and counts, as data; and which models fit it.

Sources: PASCAL VOC's development kit, cityscapesScripts, the SceneParse150 benchmark and BDD100K's documentation; a
count that the provider does not state in its code is marked in docs/submissions.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import DataError, InvalidValue, nearest
from perpixel.labels import LabelSpace

__all__ = ["MEMBRANE_SPACE", "MEMBRANE_STACK", "SUBMISSIONS", "MaskServer", "MembraneStack", "find_server", "id_table"]

ArchiveKind = Literal["tar.gz", "zip"]

_UNSET = -1
_PUNCTUATION = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class MaskServer:
    """A server that takes an archive with one PNG mask per test image."""

    name: str
    title: str
    space: str
    """Known label space whose classes it scores and whose stored ids it takes."""
    archive: ArchiveKind
    folder: str
    """Folder of the masks inside the archive; empty for the top."""
    any_depth: bool = False
    """Masks may lie in any folder."""
    pattern: str
    """What the stem of an image's name holds; its first group is the image's key."""
    example: str
    file_name: str
    """Name of a mask, from the key."""
    counts: tuple[int, ...]
    """Numbers of test images, by release."""
    size: tuple[int, int] | None = None
    """Height and width of every image, where they are all one size."""
    palette: bool = False
    """Masks carry the label space's palette."""
    unlabelled: int | None = None
    """Id that stands for no class, where the server has one; it never counts as right."""

    @cached_property
    def labels(self) -> LabelSpace:
        """The label space whose stored ids the server takes."""
        return LabelSpace.load(self.space)

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """The ids that a mask may hold."""
        known = [int(i) for i in self.labels.decode(np.arange(self.labels.num_classes, dtype=np.uint8))]
        return tuple(sorted({*known, *([] if self.unlabelled is None else [self.unlabelled])}))

    def key(self, stem: str) -> str | None:
        """Returns what identifies an image, from the stem of its file's or its mask's name."""
        match = re.fullmatch(self.pattern, stem)
        return None if match is None else match.group(1)

    def member(self, key: str) -> str:
        """Returns the name of an image's mask inside the archive."""
        return f"{self.folder}/{self.file_name.format(key=key)}" if self.folder else self.file_name.format(key=key)


@dataclass(frozen=True, kw_only=True)
class MembraneStack:
    """A server that takes one TIFF of fractions: how probable it is that a pixel lies inside a cell."""

    name: str
    title: str
    counts: tuple[int, ...]
    size: tuple[int, int]


MEMBRANE_SPACE = "isbi2012"
MEMBRANE_STACK = MembraneStack(name="isbi", title="the ISBI 2012 challenge", counts=(30,), size=(512, 512))

SUBMISSIONS: dict[str, MaskServer | MembraneStack] = {
    "voc": MaskServer(
        name="voc",
        title="PASCAL VOC 2012, comp6 (any training data)",
        space="voc",
        archive="tar.gz",
        folder="results/VOC2012/Segmentation/comp6_test_cls",
        pattern=r"(\d{4}_\d{6})",
        example="2008_000006",
        file_name="{key}.png",
        counts=(1456,),
        palette=True,
    ),
    "voc-comp5": MaskServer(
        name="voc-comp5",
        title="PASCAL VOC 2012, comp5 (trained on VOC alone)",
        space="voc",
        archive="tar.gz",
        folder="results/VOC2012/Segmentation/comp5_test_cls",
        pattern=r"(\d{4}_\d{6})",
        example="2008_000006",
        file_name="{key}.png",
        counts=(1456,),
        palette=True,
    ),
    "cityscapes": MaskServer(
        name="cityscapes",
        title="Cityscapes pixel-level semantic labelling",
        space="cityscapes",
        archive="zip",
        folder="",
        any_depth=True,
        pattern=r"([^_]+_\d{6}_\d{6}).*",
        example="berlin_000000_000019_leftImg8bit",
        file_name="{key}_labelIds.png",
        counts=(1525,),
        size=(1024, 2048),
        unlabelled=0,
    ),
    "ade20k": MaskServer(
        name="ade20k",
        title="ADE20K scene parsing (SceneParse150)",
        space="ade20k150",
        archive="zip",
        folder="",
        pattern=r"(ADE_test_\d{8})",
        example="ADE_test_00000001",
        file_name="{key}.png",
        counts=(2000, 3352),
        unlabelled=0,
    ),
    "bdd100k": MaskServer(
        name="bdd100k",
        title="BDD100K semantic segmentation",
        space="cityscapes_train_ids",
        archive="zip",
        folder="",
        pattern=r"([0-9a-f]{8}-[0-9a-f]{8})",
        example="cabc30fc-e7726578",
        file_name="{key}.png",
        counts=(2000,),
        size=(720, 1280),
        unlabelled=255,
    ),
    "isbi": MEMBRANE_STACK,
}
"""The servers by the name that ``--submit`` takes."""


def find_server(name: str) -> MaskServer | MembraneStack:
    """Returns the server of a name.

    Raises:
        InvalidValue: there is no such server.
    """
    if name not in SUBMISSIONS:
        raise InvalidValue(
            f"no submission format {name!r}{nearest(name, SUBMISSIONS, end='.')} Known: {', '.join(SUBMISSIONS)}"
        )
    return SUBMISSIONS[name]


def id_table(labels: LabelSpace, server: MaskServer) -> tuple[NDArray[np.int16], tuple[str, ...]]:
    """Returns the server's id of each train id, (256,) int16 with -1 where it has none, and what was decided.

    Classes are matched by name, without regard to case, blanks and punctuation, so their order does not matter.
    Unnamed classes of the right number are taken in the server's order.

    Raises:
        DataError: the model's classes are not the server's.
    """
    wanted = server.labels
    theirs = {_plain(name): index for index, name in enumerate(wanted.names)}
    ours = [_plain(name) for name in labels.names]
    notes: tuple[str, ...] = ()
    if labels.num_classes == wanted.num_classes and labels.names == LabelSpace.numbered(labels.num_classes).names:
        order = list(range(labels.num_classes))
        notes = (f"the model's classes have no names and are taken in the order of label space {wanted.name!r}",)
    elif sorted(ours) == sorted(theirs):
        order = [theirs[name] for name in ours]
    else:
        raise DataError(_misfit_message(labels, server, set(ours), set(theirs)))
    table = np.full(256, _UNSET, dtype=np.int16)
    stored = wanted.decode(np.arange(wanted.num_classes, dtype=np.uint8))
    table[: labels.num_classes] = stored[order]
    if server.unlabelled is not None:
        table[LabelSpace.ignore_index] = server.unlabelled
    return table, notes


def _plain(name: str) -> str:
    return _PUNCTUATION.sub("", name.casefold())


def _misfit_message(labels: LabelSpace, server: MaskServer, ours: set[str], theirs: set[str]) -> str:
    def listed(space: LabelSpace, chosen: set[str]) -> str:
        names = [name for name in space.names if _plain(name) in chosen]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return ", ".join(names[:8]) + more

    lacking, strange = listed(server.labels, theirs - ours), listed(labels, ours - theirs)
    details = [f"lacks {lacking}"] if lacking else []
    details += [f"has {strange}, which the server does not know"] if strange else []
    return (
        f"{server.title} takes the {server.labels.num_classes} classes of label space {server.space!r}; the model's "
        f"label space {labels.name!r} of {labels.num_classes} classes {' and '.join(details) or 'repeats some'}. "
        f"Submit a model that was trained (or imported) with --labels {server.space}."
    )


def keys_of(names: Iterable[str], server: MaskServer) -> dict[str, str]:
    """Returns name by key for images or ids, given as names or paths, with suffix or without.

    Raises:
        DataError: a name is not one of the server's images, or two stand for one image.
    """
    found: dict[str, str] = {}
    for name in names:
        base = name.replace("\\", "/").rpartition("/")[2]
        stem = base.rpartition(".")[0] or base
        key = server.key(base) or server.key(stem)
        if key is None:
            raise DataError(
                f"{name}: not the name of a test image of {server.title}, which are named like {server.example}; "
                "give the images under their original names"
            )
        if key in found:
            raise DataError(f"{found[key]} and {name} are both image {key}; give each test image once")
        found[key] = name
    return found
