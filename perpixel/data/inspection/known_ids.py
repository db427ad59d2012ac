"""Which ids the masks of a data set may hold: as a label space says, or as the masks themselves suggest.

In contrast to `perpixel.data.infer_labels`, an id that one mask alone holds, far above the others, is no class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from perpixel.data.formats.item import listed
from perpixel.data.infer_labels import binary_labels
from perpixel.data.inspection.case import Case
from perpixel.labels import LabelSpace

__all__ = ["INSTANCE_DIVISORS", "Known", "known_ids"]

_IGNORED = 255
_BINARY = frozenset({0, _IGNORED})
_FEW_OTHERS = 0.2
"""Share of masks that may hold other ids than 0 and 255 where all others hold these two."""
_MOST_CLASSES = 64
_FEW_MASKS = 20
_SUPPORT = 0.005
_GAP = 3
INSTANCE_DIVISORS = (1000, 256)
"""Cityscapes numbers instances as class * 1000 + n, Mapillary as class * 256 + n."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """The ids that masks may hold."""

    labels: LabelSpace | None
    """None where the masks do not say what is a class."""
    inferred: bool
    evidence: str
    """How it came about, in a sentence."""
    from_one: bool = False
    """Whether ids begin with 1, so that a label file should say so."""
    too_many: bool = False

    @property
    def stored(self) -> frozenset[int]:
        """Every id that may occur; empty without a label space."""
        return frozenset() if self.labels is None else frozenset(self.labels.stored_to_train)

    @property
    def ignored(self) -> frozenset[int]:
        """Ids that are left out of learning and scoring."""
        return frozenset() if self.labels is None else frozenset(self.labels.ignored_ids)

    @property
    def classes(self) -> frozenset[int]:
        """Ids of classes."""
        return self.stored - self.ignored

    @property
    def num_classes(self) -> int:
        """K; 0 without a label space."""
        return 0 if self.labels is None else self.labels.num_classes


def known_ids(cases: Sequence[Case], given: LabelSpace | None) -> Known:
    """Returns the ids of a label space, or those that the masks without another fault support.

    Args:
        cases: All pairs.
        given: The label space that the user or the data set states.
    """
    if given is not None:
        return Known(labels=given, inferred=False, evidence=f"label space {given.name!r}: {given.num_classes} classes")
    files: Counter[int] = Counter()
    masks = others = 0
    for case in cases:
        ids = case.ids if case.fault is None else {}
        files.update(ids.keys())
        masks += bool(ids)
        others += not ids.keys() <= _BINARY
    if not files:
        return Known(labels=None, inferred=True, evidence="there is no mask of ids to read the classes from")
    if set(files) == _BINARY:
        return Known(labels=binary_labels(), inferred=True, evidence="masks hold only 0 and 255: two classes")
    if files.keys() >= _BINARY and others <= _FEW_OTHERS * masks:
        evidence = f"{masks - others} of {masks} masks hold only 0 and 255: two classes"
        return Known(labels=binary_labels(), inferred=True, evidence=evidence)
    classes = _supported({i: n for i, n in files.items() if i != _IGNORED}, masks)
    if not classes or len(classes) > _MOST_CLASSES or classes[-1] >= _MOST_CLASSES:
        return _scattered(classes, sorted(files))
    first, last = classes[0], classes[-1]
    if first == 1 and len(classes) > 1:
        evidence = f"masks hold ids 1 to {last} and never 0"
        return Known(labels=_from_one(last), inferred=True, evidence=evidence, from_one=True)
    also = " and 255, taken as ignored" if _IGNORED in files else ""
    evidence = f"masks hold ids 0 to {last}{also}: {last + 1} classes"
    return Known(labels=LabelSpace.numbered(last + 1), inferred=True, evidence=evidence)


def _scattered(classes: list[int], ids: list[int]) -> Known:
    """Makes what can be made of ids that are no small consecutive numbers: instance numbers, or classes with gaps."""
    evidence = f"masks hold {len(ids)} different ids ({listed(ids, 8)}), no consecutive classes 0, 1, 2…"
    for divisor in INSTANCE_DIVISORS:
        quotients = {i // divisor if i >= divisor else i for i in ids if i != _IGNORED}
        if ids[-1] >= divisor and max(quotients) < _MOST_CLASSES and len(quotients) < len(ids):
            said = f"masks hold numbers up to {ids[-1]}; divided by {divisor} they are ids 0 to {max(quotients)}"
            return Known(labels=LabelSpace.numbered(max(quotients) + 1), inferred=True, evidence=said)
    if not 1 < len(classes) <= _MOST_CLASSES:
        return Known(labels=None, inferred=True, evidence=evidence, too_many=len(classes) > 1)
    ignored = {_IGNORED: _IGNORED} if _IGNORED not in classes else {}
    labels = LabelSpace(
        name="ids of the masks",
        names=tuple(f"id {i}" for i in classes),
        colors=LabelSpace.numbered(len(classes)).colors,
        stored_to_train={**{i: k for k, i in enumerate(classes)}, **ignored},
        train_to_stored=tuple(classes),
    )
    return Known(labels=labels, inferred=True, evidence=evidence, too_many=True)


def _supported(files: dict[int, int], masks: int) -> list[int]:
    """Returns the ids up to the highest that several masks hold, and none that one mask holds alone, far above."""
    need = 1 if masks < _FEW_MASKS else max(2, round(_SUPPORT * masks))
    ids = sorted(files)
    while len(ids) > 1:
        lonely = files[ids[-1]] == 1 and masks >= 4 and ids[-1] - ids[-2] >= _GAP
        if files[ids[-1]] >= need and not lonely:
            break
        ids.pop()
    return ids


def _from_one(last: int) -> LabelSpace:
    numbered = LabelSpace.numbered(last)
    return LabelSpace(
        name=f"{last} classes from 1",
        names=tuple(f"class {i}" for i in range(1, last + 1)),
        colors=numbered.colors,
        stored_to_train={**{i + 1: i for i in range(last)}, _IGNORED: _IGNORED},
        train_to_stored=tuple(range(1, last + 1)),
    )
