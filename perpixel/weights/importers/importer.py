"""What an importer of published checkpoints is, and how one loads: every key accounted for, or an error.

A *family* is one published layout of names, ``codebase/network``. Its importer recognises the layout, reads sizes and
depths off shapes and keys, builds our network and says which of their names is which of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor

from perpixel.errors import CheckpointError, InvalidValue, nearest
from perpixel.models import Network

__all__ = [
    "Importer",
    "LoadReport",
    "Option",
    "Plan",
    "StateDict",
    "convolution_weight",
    "floating_dtype",
    "has_prefix",
    "listed",
    "load_planned",
    "renamed",
    "resolve_options",
]

StateDict: TypeAlias = Mapping[str, Tensor]
_COUNTERS_REASON = "batch counters are not stored by PyTorch before 0.4.1; they start at 0"


@dataclass(frozen=True, kw_only=True)
class Option:
    """A fact that weights alone cannot tell, with what is taken when nothing is said."""

    default: Any
    allowed: tuple[Any, ...] = ()
    help: str
    read: Callable[[Any], Any] | None = None
    """In place of ``allowed`` where values cannot be listed: takes what is given and returns the value, or raises
    ValueError with what the option is."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A built network, and what becomes of each key of the checkpoint."""

    network: Network
    rename: Callable[[str], str]
    """Their name -> our name."""
    unused: Mapping[str, str] = field(default_factory=dict)
    """Their prefix -> why such keys may be there, and be left out."""
    constants: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    """Ending of our keys that their layout does without -> the value that stands for its lack, and why."""
    notes: tuple[str, ...] = ()
    """What was assumed because weights cannot tell, and how to choose otherwise: lines for the load report."""


@dataclass(frozen=True, kw_only=True)
class Importer:
    """One family of published checkpoints."""

    family: str
    title: str
    options: Mapping[str, Option]
    recognise: Callable[[StateDict], bool]
    plan: Callable[[StateDict, Mapping[str, Any]], Plan]
    """Raises CheckpointError where the checkpoint is not what the family's code makes."""


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of every key: theirs on the left, ours on the right."""

    family: str
    matched: tuple[str, ...]
    """Our keys that were filled."""
    renamed: tuple[tuple[str, str], ...]
    """(their key, our key) where the two differ."""
    left_over: tuple[str, ...]
    """Their keys that have no place in our network; empty in an import that succeeded."""
    missing: tuple[str, ...]
    """Our keys that the checkpoint lacks; empty in an import that succeeded."""
    ignored: tuple[tuple[str, str], ...]
    """(key, reason) for what is known to be unused or absent."""
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Returns a few lines of text: what was recognised, how much was matched, and what was not and why."""
        given = ", ".join(f"{name}={value}" for name, value in self.options.items())
        lines = [
            f"{self.family}" + (f" ({given})" if given else ""),
            f"{len(self.matched)} tensors matched, {len(self.renamed)} of them renamed; "
            f"{len(self.left_over)} left over, {len(self.missing)} missing",
        ]
        reasons = dict.fromkeys(reason for _, reason in self.ignored)
        for reason in reasons:
            keys = [key for key, why in self.ignored if why == reason]
            lines.append(f"{len(keys)} ignored: {reason} ({listed(keys, 2)})")
        return "\n".join([*lines, *self.notes])


def resolve_options(importer: Importer, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the family's options with the given ones put in.

    Raises:
        InvalidValue: the family has no such option, or the option does not take the value.
    """
    values = {name: option.default for name, option in importer.options.items()}
    for name, value in given.items():
        if name not in importer.options:
            known = ", ".join(importer.options) or "none: all is read off the checkpoint"
            near = nearest(name, importer.options)
            raise InvalidValue(f"{importer.family} has no option {name!r}{near} Its options: {known}.")
        option = importer.options[name]
        if option.read is not None:
            values[name] = _read(importer.family, name, option.read, value)
            continue
        allowed = option.allowed
        if not any(value == a and isinstance(value, bool) == isinstance(a, bool) for a in allowed):
            near = nearest(str(value), [str(a) for a in allowed])
            choices = ", ".join(repr(a) for a in allowed)
            raise InvalidValue(f"{importer.family}: {name} is one of {choices}, got {value!r}{near}")
        values[name] = value
    return values


def _read(family: str, name: str, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise InvalidValue(f"{family}: {name} is {error}, got {value!r}") from error


def load_planned(family: str, tensors: StateDict, plan: Plan, options: Mapping[str, Any]) -> LoadReport:
    """Fills the planned network, which takes the checkpoint's floating type, and reports on every key.

    Raises:
        CheckpointError: a key is left over or missing and not known to be so, or shapes differ.
    """
    ignored = [(key, why) for key in tensors for prefix, why in plan.unused.items() if key.startswith(prefix)]
    unused = {key for key, _ in ignored}
    names = {key: plan.rename(key) for key in tensors if key not in unused}
    ours = plan.network.state_dict()
    left_over = [key for key, name in names.items() if name not in ours]
    filled = {name: tensors[key] for key, name in names.items() if name in ours}
    absent = [name for name in ours if name not in filled]
    counters = [name for name in absent if name.endswith("num_batches_tracked")]
    constants = {name: told for name in absent for end, told in plan.constants.items() if name.endswith(end)}
    missing = [name for name in absent if name not in counters and name not in constants]
    wrong = [
        f"{key} {tuple(tensors[key].shape)}, ours {tuple(ours[name].shape)}"
        for key, name in names.items()
        if name in ours and tensors[key].shape != ours[name].shape
    ]
    _refuse_gaps(family, left_over, missing, wrong)
    plan.network.to(floating_dtype(tensors.values()))
    filled.update({name: torch.zeros_like(ours[name]) for name in counters})
    filled.update({n: torch.full(ours[n].shape, v, dtype=torch.float64) for n, (v, _) in constants.items()})
    plan.network.load_state_dict(filled, strict=True)
    return LoadReport(
        family=family,
        matched=tuple(names.values()),
        renamed=tuple((key, name) for key, name in names.items() if key != name),
        left_over=(),
        missing=(),
        ignored=(
            *ignored,
            *((name, _COUNTERS_REASON) for name in counters),
            *((name, why) for name, (_, why) in constants.items()),
        ),
        options=dict(options),
        notes=plan.notes,
    )


def floating_dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    """Returns the widest floating type among the tensors; float32 where none floats."""
    types = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return reduce(torch.promote_types, sorted(types, key=str)) if types else torch.float32


def convolution_weight(tensors: StateDict, layer: str) -> Tensor:
    """Returns the kernel (C', C, kh, kw) of a layer, which sizes are read from.

    Raises:
        CheckpointError: it is missing, or no convolution's.
    """
    key = f"{layer}.weight"
    if key not in tensors:
        raise CheckpointError(f"the checkpoint lacks {key!r}, which its sizes are read from")
    if tensors[key].ndim != 4:
        raise CheckpointError(f"{key!r} has shape {tuple(tensors[key].shape)}, 4 dimensions expected")
    return tensors[key]


def has_prefix(tensors: StateDict, prefix: str) -> bool:
    """Whether a key begins so."""
    return any(key.startswith(prefix) for key in tensors)


def renamed(key: str, rules: Iterable[tuple[str, str]]) -> str:
    """Applies (pattern, replacement) rules to a key, one after the other."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def listed(names: Iterable[str], most: int = 10) -> str:
    """Joins the first names, and says how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _refuse_gaps(family: str, left_over: list[str], missing: list[str], wrong: list[str]) -> None:
    parts = [
        f"{len(names)} {what}: {listed(names)}"
        for what, names in (
            ("left over (theirs, no place in our network)", left_over),
            ("missing (ours, not in the checkpoint)", missing),
            ("of another shape", wrong),
        )
        if names
    ]
    if parts:
        raise CheckpointError(
            f"the checkpoint is not a whole {family}: {'; '.join(parts)}. Check the family and its options, or import "
            "the file that the training code itself saved."
        )
