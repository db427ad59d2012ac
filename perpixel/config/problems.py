"""What is wrong with a configuration, in words: the place, the value and the way out, for every mistake at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from perpixel.config.fields import ChangesTo, KeyPath
from perpixel.config.schema import RunConfig
from perpixel.errors import nearest

__all__ = ["ABSENT", "Origin", "Problem", "dotted", "known_keys", "problems_of", "value_at"]

ABSENT = object()
"""Value of a problem about something that is not there."""

_LONGEST_VALUE = 80
_WORDS = {
    "tuple_type": "must be a list",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text; put it in quotes",
    "invalid_key": "a key must be text; put it in quotes",
}
_QUOTED = re.compile(r"'([^']*)'")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One mistake: where it is, what stands there and what to do."""

    path: KeyPath
    message: str
    value: Any = ABSENT
    kind: str = "check"
    """pydantic's type of the error, ``conflict`` for keys that contradict each other, or ``check``."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the values of a configuration were written."""

    source: str
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    overrides: tuple[tuple[KeyPath, str], ...] = ()

    def describe(self, problem: Problem) -> str:
        """Returns one line: the place, the key with its value, and the message."""
        place = self._place(problem.path)
        if not problem.path:
            return f"{place}: {problem.message}"
        value = "" if problem.value is ABSENT else f" = {_short(problem.value)}"
        return f"{place}: key '{dotted(problem.path)}'{value}: {problem.message}"

    def _place(self, path: KeyPath) -> str:
        for target, token in reversed(self.overrides):
            if path[: len(target)] == target or (path == target[: len(path)] and path not in self.lines):
                return f"override {token!r}"
        line = self.line_of(path)
        return f"{self.source}:{line}" if line else self.source

    def line_of(self, path: KeyPath) -> int:
        """Returns the line of ``path`` or of the nearest key around it; 0 where there is none."""
        for length in range(len(path), 0, -1):
            for key in (path[:length], (*path[: length - 1], str(path[length - 1]))):
                if key in self.lines:
                    return self.lines[key]
        return 0


def dotted(path: KeyPath) -> str:
    """Writes a path as overrides write it: ``stages.0.optimizer.lr``."""
    return ".".join(str(part) for part in path)


def value_at(content: Any, path: KeyPath) -> Any:
    """Returns the value at ``path``, or `ABSENT`."""
    for part in path:
        if not _holds(content, part):
            return ABSENT
        content = content[part]
    return content


def known_keys(path: KeyPath) -> tuple[str, ...]:
    """Returns the keys that the schema has at ``path``; empty where it has none, or where any are allowed."""
    node: Any = RunConfig
    for part in path:
        node = _child(node, part)
    model = _model_of(node)
    return () if model is None else tuple(model.model_fields)


def problems_of(error: ValidationError, content: Any) -> list[Problem]:
    """Turns pydantic's findings about ``content`` into problems, one per path."""
    found: dict[KeyPath, list[Any]] = {}
    for details in error.errors(include_url=False):
        path = _real_path(details["loc"], content, missing=details["type"] in ("missing", "conflict"))
        found.setdefault(path, []).append(details)
    deepest = {path for path in found if not any(_alternative(path, other, found) for other in found)}
    return [_problem(path, found[path], content) for path in found if path in deepest]


def _alternative(path: KeyPath, other: KeyPath, found: Mapping[KeyPath, list[Any]]) -> bool:
    """True where ``other`` is inside ``path`` and says more: a list that may be a word, or that lost its entries."""
    inside = len(other) > len(path) and other[: len(path)] == path
    return inside and all(len(details["loc"]) > len(path) or details["type"] == "too_short" for details in found[path])


def _problem(path: KeyPath, group: list[Any], content: Any) -> Problem:
    first = group[0]
    messages = dict.fromkeys(_message(details, path) for details in group)
    value = ABSENT if first["type"] == "missing" else value_at(content, path)
    hint = "".join(_hint(details) for details in group)
    return Problem(path=path, message=", or ".join(messages) + hint, value=value, kind=first["type"])


def _message(details: Any, path: KeyPath) -> str:
    kind, text = details["type"], str(details["msg"])
    if kind == "extra_forbidden":
        known = known_keys(path[:-1])
        near = nearest(str(path[-1]), known)
        return f"unknown key{near or '; known here: ' + ', '.join(known)}"
    if kind == "missing":
        return "an entry is missing" if isinstance(path[-1], int) else "the key is required and missing"
    if kind in ("model_type", "dict_type"):
        keys = known_keys(path)
        return f"must be a mapping{' with keys among ' + ', '.join(keys) if keys else ''}"
    return _WORDS.get(kind) or text.removeprefix("Value error, ").replace("Input should", "must", 1)


def _hint(details: Any) -> str:
    if details["type"] != "literal_error":
        return ""
    return nearest(str(details["input"]), _QUOTED.findall(str(details["ctx"]["expected"])))


def _real_path(location: Iterable[str | int], content: Any, *, missing: bool) -> KeyPath:
    """Leaves out what pydantic adds to a location: the names of a union's alternatives."""
    path: list[str | int] = []
    parts = list(location)
    for position, part in enumerate(parts):
        here = value_at(content, tuple(path))
        last = position == len(parts) - 1
        if _holds(here, part) or (missing and (last or part in known_keys(tuple(path)))):
            path.append(part)
    return tuple(path)


def _holds(container: Any, part: str | int) -> bool:
    if isinstance(container, Mapping):
        return part in container
    return isinstance(container, list | tuple) and isinstance(part, int) and 0 <= part < len(container)


def _child(node: Any, part: str | int) -> Any:
    if isinstance(part, int):
        elements = [alternative for alternative in _alternatives(node) if get_origin(alternative) is tuple]
        return get_args(elements[0])[0] if elements else None
    model = _model_of(node)
    info = None if model is None else model.model_fields.get(part)
    if info is None:
        return None
    changes = [mark.model for mark in info.metadata if isinstance(mark, ChangesTo)]
    return changes[0] if changes else info.annotation


def _alternatives(node: Any) -> tuple[Any, ...]:
    if get_origin(node) is Annotated:
        return _alternatives(get_args(node)[0])
    return get_args(node) if get_origin(node) in (Union, UnionType) else (node,)


def _model_of(node: Any) -> type[BaseModel] | None:
    models = [item for item in _alternatives(node) if isinstance(item, type) and issubclass(item, BaseModel)]
    return models[0] if models else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
