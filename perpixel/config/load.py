"""Configurations in and out: YAML files and overrides become a checked RunConfig, or all mistakes at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError

from perpixel.config.fields import CONFLICT, KeyPath
from perpixel.config.overrides import Override, parse_overrides, put
from perpixel.config.problems import Origin, Problem, problems_of, value_at
from perpixel.config.schema import RunConfig
from perpixel.config.yaml_text import YamlText, dump_yaml, read_yaml
from perpixel.errors import ConfigError

__all__ = ["Check", "apply_overrides", "config_from_dict", "dump_config", "json_schema", "load_config"]

Check: TypeAlias = Callable[[RunConfig], Iterable[tuple[str | KeyPath, Any, str]]]
"""Finds what the schema cannot know: yields (key path, value, message) per problem; a path may be dotted text."""

_LARGEST_FILE = 1 << 20
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def load_config(path: str | Path, overrides: Iterable[str] = (), *, checks: Sequence[Check] = ()) -> RunConfig:
    """Reads a YAML file, puts overrides into it and checks the whole.

    Args:
        path: UTF-8 file of at most 1 MiB.
        overrides: ``section.key=value``; the last one wins.
        checks: Further checks whose problems are reported with the others.

    Raises:
        ConfigError: anything is wrong; one line per problem with file, line, key, value and way out.
    """
    parsed = parse_overrides(overrides)
    text = _read(Path(path))
    if not isinstance(text.content, dict):
        raise ConfigError(
            f"{path}: a configuration is a mapping of keys such as 'data' and 'stages', got {text.content!r:.80}"
        )
    repeated = [
        Problem(path=key, message=f"the key stands twice, on lines {first} and {second}; keep one", kind="repeated")
        for key, first, second in text.repeated
    ]
    return _checked(text.content, Origin(source=str(path), lines=text.lines), parsed, checks, repeated)


def apply_overrides(config: RunConfig, overrides: Iterable[str], *, checks: Sequence[Check] = ()) -> RunConfig:
    """Returns ``config`` with overrides put into it, checked again.

    Raises:
        ConfigError: an override is malformed, names an unknown key or sets a value that does not fit.
    """
    origin = Origin(source=f"configuration {config.name!r}")
    return _checked(config.model_dump(mode="json"), origin, parse_overrides(overrides), checks, [])


def config_from_dict(
    values: Mapping[str, Any], *, source: str = "configuration", checks: Sequence[Check] = ()
) -> RunConfig:
    """Checks plain values, as `RunConfig.model_dump` or a parsed file gives them.

    Args:
        values: Keys of RunConfig.
        source: Named in the error.
        checks: Further checks whose problems are reported with the others.

    Raises:
        ConfigError: anything is wrong; one line per problem.
    """
    return _checked(dict(values), Origin(source=source), (), checks, [])


def dump_config(config: RunConfig) -> str:
    """Writes every value, defaults included, as YAML that `load_config` reads back to an equal configuration."""
    return dump_yaml(config.model_dump(mode="json"))


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a configuration file, with the meaning of each key."""
    schema: dict[str, Any] = _with_standard_bounds(RunConfig.model_json_schema())
    return schema


def _with_standard_bounds(node: Any) -> Any:
    """Pydantic writes the bounds of a number that has its own validator under their Python names."""
    if isinstance(node, list):
        return [_with_standard_bounds(item) for item in node]
    if not isinstance(node, dict):
        return node
    numeric = node.get("type") in ("integer", "number")
    return {_BOUNDS.get(key, key) if numeric else key: _with_standard_bounds(value) for key, value in node.items()}


def _read(path: Path) -> YamlText:
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise ConfigError(
                f"{path}: {size} bytes; a configuration has at most {_LARGEST_FILE}. Is it the right file?"
            )
        return read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. Give the path of a YAML file.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}): save the file as UTF-8.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not YAML that can be read: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not YAML that can be read: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply for a configuration") from error


def _checked(
    content: dict[str, Any],
    origin: Origin,
    overrides: Sequence[Override],
    checks: Sequence[Check],
    problems: list[Problem],
) -> RunConfig:
    """Puts overrides in and validates; every problem of file, overrides, schema and checks goes into one error."""
    lost: list[str] = []
    placed: list[tuple[KeyPath, str]] = []
    for override in overrides:
        content, result = put(content, override)
        if isinstance(result, Problem):
            lost.append(Origin(source=f"override {override.token!r}").describe(result))
        else:
            placed.append((result, override.token))
    origin = Origin(source=origin.source, lines=origin.lines, overrides=tuple(placed))
    config, found = _validated(content)
    problems = [*problems, *found]
    rest, before = content, None
    while config is None and rest != before:
        before, rest = rest, _without(rest, found)
        config, found = _validated(rest)
        problems += [problem for problem in found if _is_independent(problem, problems)]
    if config is not None:
        problems += [problem for problem in _run(checks, config) if not _is_known(problem, problems)]
    problems.sort(key=lambda problem: origin.line_of(problem.path))
    if problems or lost or config is None:
        raise ConfigError("\n".join([*(origin.describe(problem) for problem in problems), *lost]))
    return config


def _validated(content: dict[str, Any]) -> tuple[RunConfig | None, list[Problem]]:
    try:
        return RunConfig.model_validate(content), []
    except ValidationError as error:
        return None, problems_of(error, content)


def _without(content: dict[str, Any], problems: Iterable[Problem]) -> dict[str, Any]:
    """Leaves out the keys that are wrong, so that the rest can be checked for what the first look did not reach."""
    rest = deepcopy(content)
    for problem in problems:
        path = problem.path
        while path and not isinstance(value_at(rest, path[:-1]), dict):
            path = path[:-1]
        if path:
            value_at(rest, path[:-1]).pop(path[-1], None)
    return rest


def _is_independent(problem: Problem, earlier: Sequence[Problem]) -> bool:
    """True unless the problem may come from leaving out a wrong key beside it."""
    beside = {known.path[:-1] for known in earlier if known.kind != "extra_forbidden"}
    return problem.kind == CONFLICT and problem.path[:-1] not in beside and not _is_known(problem, earlier)


def _is_known(problem: Problem, earlier: Iterable[Problem]) -> bool:
    return any(problem.path[: len(known.path)] == known.path for known in earlier)


def _run(checks: Sequence[Check], config: RunConfig) -> list[Problem]:
    return [
        Problem(path=_path(path), value=value, message=message)
        for check in checks
        for path, value, message in check(config)
    ]


def _path(path: str | KeyPath) -> KeyPath:
    return tuple(int(part) if part.isdigit() else part for part in path.split(".")) if isinstance(path, str) else path
