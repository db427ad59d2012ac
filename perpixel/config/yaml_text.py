"""YAML as configurations use it: safe, no aliases, no repeated keys, numbers as people write them, lines remembered.

Differs from YAML 1.1: ``1e-3`` is a number, a date stays text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from perpixel.config.fields import KeyPath
from perpixel.strict_yaml import NoAliases

__all__ = ["YamlText", "dump_yaml", "parse_value", "read_yaml"]

_FLOAT = re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+|[-+]?\.\d[\d_]*[eE][-+]?\d+")

_UNICODE_BREAKS = "\x85\u2028\u2029"  # PyYAML writes them as they are and reads them back as another line break


def _without_dates(resolvers: dict[str, Any]) -> dict[str, Any]:
    return {
        first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
        for first, pairs in resolvers.items()
    }


class _Loader(NoAliases):
    yaml_implicit_resolvers = _without_dates(yaml.SafeLoader.yaml_implicit_resolvers)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that keeps lists of plain values on one line and quotes what `_Loader` takes for a number."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (the name is PyYAML's)
        return True


def _short_lists(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.Node:
    plain = not any(isinstance(value, dict | list) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=plain)


def _escaped_breaks(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = '"' if any(mark in text for mark in _UNICODE_BREAKS) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Dumper.add_representer(list, _short_lists)
_Dumper.add_representer(str, _escaped_breaks)


@dataclass(frozen=True, kw_only=True)
class YamlText:
    """A document with the line of each key."""

    content: Any
    lines: dict[KeyPath, int]
    """Line, from 1, where the key or list entry of each path begins."""
    repeated: tuple[tuple[KeyPath, int, int], ...]
    """Keys that stand twice in one mapping, with the first and the second line."""


def read_yaml(text: str) -> YamlText:
    """Reads one document.

    Raises:
        yaml.YAMLError: the text is not YAML, holds an alias or another type than plain values.
        RecursionError: the text is nested too deeply.
        ValueError: a number or date is out of range.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        content = None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()
    lines: dict[KeyPath, int] = {}
    repeated: list[tuple[KeyPath, int, int]] = []
    if node is not None:
        _collect(node, (), lines, repeated)
    return YamlText(content=content, lines=lines, repeated=tuple(repeated))


def _collect(
    node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], repeated: list[tuple[KeyPath, int, int]]
) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below, line = (*path, str(key.value)), key.start_mark.line + 1
            if below in lines:
                repeated.append((below, lines[below], line))
            lines[below] = line
            _collect(value, below, lines, repeated)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            below = (*path, index)
            lines[below] = value.start_mark.line + 1
            _collect(value, below, lines, repeated)


def parse_value(text: str) -> Any:
    """Returns the value that ``text`` stands for in a configuration.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    return read_yaml(text).content


def dump_yaml(content: Any) -> str:
    """Writes plain values so that `read_yaml` returns them again."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
