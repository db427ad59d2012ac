"""Options of networks that come as plain values, from a file or a command line: are they of the field's kind?

A dataclass takes what it is given. Text where true or false belongs would switch a part on, and half a channel would
fail deep inside a layer, so kinds are compared with the annotations before anything is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["wrong_kinds"]

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "nothing (null)",
}


def wrong_kinds(config: type[Any], options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (option, what it must be) for every option of another kind than the configuration's field.

    Args:
        config: A network's configuration, a dataclass of numbers, text, choices, and tuples of these.
        options: Values by field; lists count as tuples. Ranges, lengths and choices are for the configuration to check.
    """
    kinds = get_type_hints(config)
    for name, value in options.items():
        if name in kinds and not _is_of(kinds[name], value):
            yield name, f"must be {_words(kinds[name])}"


def _is_of(kind: Any, value: Any) -> bool:
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is_of(one, value) for one in inside)
    if origin is Literal:
        return any(_is_of(type(choice), value) for choice in inside)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_is_of(inside[0], item) for item in value)
    if kind in (int, float):
        return not isinstance(value, bool) and isinstance(value, Integral if kind is int else Real)
    return isinstance(value, kind) if isinstance(kind, type) else True


def _words(kind: Any, *, many: bool = False) -> str:
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(_words(one) for one in inside)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, inside))
    if origin is tuple:
        return f"{'lists' if many else 'a list'} of {_words(inside[0], many=True)}"
    word = _WORDS.get(kind, getattr(kind, "__name__", str(kind)))
    return word.removeprefix("a ") + "s" if many and word.endswith("number") else word
