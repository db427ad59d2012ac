"""Which run a command line asks for: a recipe, a file or the user's own folders, with overrides on top."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from perpixel.config import Check, RunConfig, apply_overrides, load_config
from perpixel.errors import ConfigError
from perpixel.recipes import get_recipe

__all__ = ["CONFIG_SUFFIXES", "FORMS", "Resolved", "RunRequest", "resolve", "sort_tokens"]

_OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")
CONFIG_SUFFIXES = (".yaml", ".yml")

FORMS = """\
a run is asked for in one of three forms:
  perpixel train --recipe NAME [--data DATA]      a recipe; `perpixel recipes` lists them
  perpixel train CONFIG.yaml                      a configuration, such as config.yaml of a run folder
  perpixel train IMAGES MASKS                     your folders (or --data DATA, one folder with images/ and masks/)
each with overrides such as optimizer.lr=0.01"""


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The parts of a command line that decide the configuration."""

    recipe: str | None = None
    config: Path | None = None
    folders: tuple[Path, Path] | None = None
    """Images and masks."""
    data: str | None = None
    labels: str | None = None
    source: Path | None = None
    """The model to fine-tune from."""
    overrides: tuple[str, ...] = ()
    check: bool = True
    """Whether own data is checked file by file before a plan is made."""


def sort_tokens(
    tokens: Sequence[str],
    *,
    recipe: str | None = None,
    data: str | None = None,
    labels: str | None = None,
    source: Path | None = None,
) -> RunRequest:
    """Tells overrides, a configuration file and folders apart.

    Raises:
        ConfigError: the tokens and options are not exactly one of the three forms.
    """
    overrides = tuple(token for token in tokens if _OVERRIDE.match(token))
    others = [token for token in tokens if not _OVERRIDE.match(token)]
    config = Path(others[0]) if len(others) == 1 and others[0].lower().endswith(CONFIG_SUFFIXES) else None
    folders = None
    if len(others) == 2 and not any(token.lower().endswith(CONFIG_SUFFIXES) for token in others):
        folders = (Path(others[0]), Path(others[1]))
    _refuse_mixtures(others, config=config, folders=folders, recipe=recipe, data=data)
    return RunRequest(
        recipe=recipe, config=config, folders=folders, data=data, labels=labels, source=source, overrides=overrides
    )


class Resolved(NamedTuple):
    """What a request means."""

    config: RunConfig
    decisions: tuple[tuple[str, str, str], ...] = ()
    """(what, choice, reason) of what was decided for the user's own data."""


def resolve(
    request: RunRequest, *, checks: Sequence[Check] = (), on_progress: Callable[[Any], None] | None = None
) -> Resolved:
    """Returns the configuration that a request means, checked as a whole; own data is looked at first.

    Raises:
        ConfigError: the recipe or file is unknown, or a value does not fit; all mistakes named.
    """
    if request.recipe is not None:
        return Resolved(apply_overrides(get_recipe(request.recipe), _tokens(request), checks=checks))
    if request.config is not None:
        return Resolved(load_config(request.config, _tokens(request), checks=checks))
    from perpixel.build import plan_for_data

    images, masks = request.folders or (None, None)
    # The file of a published checkpoint says nothing of its network; an artifact does.
    artifact = request.source if request.source is not None and request.source.is_dir() else None
    plan = plan_for_data(
        images=images,
        masks=masks,
        data=request.data,
        labels=request.labels,
        source=artifact,
        overrides=request.overrides,
        check=request.check,
        on_progress=on_progress,
    )
    config = apply_overrides(plan.config, request.overrides, checks=checks)
    return Resolved(config, plan.kept(config))


def _refuse_mixtures(
    others: list[str], *, config: Path | None, folders: tuple[Path, Path] | None, recipe: str | None, data: str | None
) -> None:
    given = ([f"--recipe {recipe}"] if recipe is not None else []) + ([" ".join(others)] if others else [])
    if others and config is None and folders is None:
        hint = ""
        if len(others) == 1 and Path(others[0]).is_dir():
            hint = f"; for a folder with images/ and masks/ inside write --data {others[0]}"
        elif any("=" in token for token in others):
            hint = "; an override is section.key=value, without spaces"
        raise ConfigError(f"cannot tell what to run from {' '.join(others)!r}{hint}.\n{FORMS}")
    if len(given) > 1:
        raise ConfigError(f"both {given[0]} and {given[1]} say what to run; give one.\n{FORMS}")
    if folders is not None and data is not None:
        raise ConfigError(f"both the folders {given[0]} and --data {data} are given; give one.\n{FORMS}")
    if not given and data is None:
        raise ConfigError(f"nothing says what to run: {FORMS}")


def _tokens(request: RunRequest) -> tuple[str, ...]:
    """``--data`` and ``--labels`` as overrides; the user's own come last and win."""
    tokens: list[str] = []
    if request.data is not None:
        tokens += ["data.images=null", "data.masks=null", "data.scenes=null", f"data.source={_quoted(request.data)}"]
    if request.labels is not None:
        tokens.append(f"labels={request.labels if request.labels.isdigit() else _quoted(request.labels)}")
    return (*tokens, *request.overrides)


def _quoted(text: str) -> str:
    """Writes text so that YAML reads the same text."""
    return json.dumps(text, ensure_ascii=False)
