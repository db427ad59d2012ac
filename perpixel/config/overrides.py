"""Overrides from the command line: ``section.key=value``, checked and put into the plain values of a configuration.

A first key that belongs to a stage (``optimizer.lr``, ``steps``, ``model.backbone.name``) means the only stage.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import yaml

from perpixel.config.fields import KeyPath
from perpixel.config.problems import ABSENT, Problem, dotted, value_at
from perpixel.config.schema import RunConfig, Stage
from perpixel.config.yaml_text import parse_value
from perpixel.errors import ConfigError, nearest

__all__ = ["Override", "parse_overrides", "put", "stage_path"]


@dataclass(frozen=True, kw_only=True)
class Override:
    """One ``section.key=value``."""

    keys: tuple[str, ...]
    value: Any
    token: str


def parse_overrides(tokens: Iterable[str]) -> tuple[Override, ...]:
    """Splits tokens into keys and values; values are read as YAML, so ``[256, 320]``, ``true`` and ``null`` work.

    Raises:
        ConfigError: tokens are not of the form ``section.key=value``, all of them named.
    """
    overrides, mistakes = [], []
    for token in tokens:
        left, equals, right = token.partition("=")
        keys = tuple(part.strip() for part in left.split("."))
        if not equals or not all(keys):
            mistakes.append(f"override {token!r}: write section.key=value, such as optimizer.lr=0.01")
            continue
        try:
            overrides.append(Override(keys=keys, value=parse_value(right), token=token))
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            mistakes.append(f"override {token!r}: {right!r} is not a YAML value: {' '.join(str(error).split())}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return tuple(overrides)


def stage_path(key: str, content: Any) -> KeyPath | str:
    """Returns where the first key of an override or change leads, or what is wrong with it."""
    if key in RunConfig.model_fields:
        return (key,)
    if key not in Stage.model_fields:
        known = (*RunConfig.model_fields, *Stage.model_fields)
        return f"unknown key{nearest(key, known) or '; `perpixel config schema` lists the keys of a run and a stage'}"
    stages = value_at(content, ("stages",))
    if not isinstance(stages, list | tuple) or len(stages) == 0:
        return "belongs to a stage, and the configuration has none"
    if len(stages) > 1:
        named = ((i, value_at(stages, (i, "name"))) for i in range(len(stages)))
        names = ", ".join(str(i) if name is ABSENT else f"{i} {name!r}" for i, name in named)
        return f"belongs to a stage, and there are {len(stages)} ({names}): write stages.N.{key}"
    return ("stages", 0, key)


def put(content: dict[str, Any], override: Override) -> tuple[dict[str, Any], KeyPath | Problem]:
    """Returns ``content`` with the override in it and the full path, or unchanged with the problem."""
    start = stage_path(override.keys[0], content)
    if isinstance(start, str):
        return content, Problem(path=override.keys, message=start, value=override.value)
    changed = deepcopy(content)
    path: list[str | int] = []
    here: Any = changed
    parts: list[str | int] = [*start, *override.keys[1:]]
    for position, part in enumerate(parts):
        key = _key(here, part)
        if isinstance(key, Problem):
            place = dotted(tuple(path))
            return content, Problem(path=tuple(parts), message=f"'{place}' {key.message}", value=override.value)
        path.append(key)
        if position == len(parts) - 1:
            here[key] = override.value
        else:
            if isinstance(here, dict) and here.get(str(key)) is None:
                here[key] = {}
            here = here[key]
    return changed, tuple(path)


def _key(container: Any, part: str | int) -> str | int | Problem:
    """Returns the key or index by which ``container`` is entered."""
    if isinstance(container, dict):
        return part
    if not isinstance(container, list):
        return Problem(path=(), message=f"holds {container!r}, which has no keys")
    if str(part).isdigit() and int(part) < len(container):
        return int(part)
    entries = f"a list with {len(container)} entries: give an index in [0, {len(container) - 1}]"
    return Problem(path=(), message=f"is {entries if container else 'an empty list: set it as a whole'}")
