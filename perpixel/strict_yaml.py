"""YAML from strangers: plain values only, no aliases, no key twice, not too deep.

An alias lets a few lines stand for more entries than memory holds; of a key that stands twice YAML keeps the last.
"""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["NoAliases", "load_strict_yaml"]


class NoAliases(yaml.SafeLoader):
    """`yaml.SafeLoader` that refuses aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"the alias *{event.anchor} is not read here; write its value out", event.start_mark
            )
        return super().compose_node(parent, index)


class _Strict(NoAliases):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if (known := (key.tag, str(key.value))) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(known)
        return super().construct_mapping(node, deep)


def load_strict_yaml(text: str) -> Any:
    """Returns the value of one YAML document.

    Raises:
        yaml.YAMLError: the text is not YAML, holds an alias, a key twice or another type than plain values, is nested
            too deeply, or a number or date is out of range.
    """
    try:
        return yaml.load(text, _Strict)
    except (RecursionError, ValueError) as error:
        raise yaml.YAMLError(f"cannot be read: {error}") from error
