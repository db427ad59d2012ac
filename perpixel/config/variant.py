"""Variants: a configuration with some values changed, checked again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from perpixel.config.load import config_from_dict
from perpixel.config.overrides import stage_path
from perpixel.config.schema import RunConfig, merged
from perpixel.errors import ConfigError

__all__ = ["variant"]


def variant(base: RunConfig, **changes: Any) -> RunConfig:
    """Returns ``base`` with ``changes`` on top.

    A keyword is a field of RunConfig or, where there is one stage, a field of Stage; ``name`` and ``data`` are the
    run's. Mappings merge key by key; models, lists and plain values replace what was there.

    Args:
        base: Left as it is.
        changes: For example ``steps=100, optimizer={"lr": 0.01}, data={"crop_size": (256, 256)}``.

    Raises:
        ConfigError: a keyword or key is unknown, or a value does not fit; all of them named.

    Example:
        >>> from perpixel.config import ModelChoice, Stage
        >>> base = RunConfig(stages=(Stage(model=ModelChoice(name="dfn"), steps=10),))
        >>> variant(base, steps=20, model={"options": {"width": 64}}).stages[0].model.options
        {'width': 64}
    """
    source = f"variant of {base.name!r}"
    content = base.model_dump(mode="json")
    mistakes = []
    for key, value in changes.items():
        where = stage_path(key, content)
        if isinstance(where, str):
            mistakes.append(f"{source}: key {key!r}: {where}")
            continue
        plain = _plain(value)
        replaced = isinstance(value, BaseModel)
        holder = content if len(where) == 1 else content["stages"][0]
        holder[key] = plain if replaced else merged({key: holder[key]}, {key: plain})[key]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return config_from_dict(content, source=source)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
