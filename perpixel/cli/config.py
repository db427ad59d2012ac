"""``perpixel config show`` and ``perpixel config schema``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Annotated

from cyclopts import App, Parameter

from perpixel.cli.run_request import resolve, sort_tokens

__all__ = ["config", "schema", "show"]

_WHAT = "(--recipe NAME | CONFIG.yaml | IMAGES MASKS | --data DATA)"

config = App(name="config", help="Shows what a run would use, and what a configuration may hold.", help_epilogue="")


@config.command(
    usage="Usage: perpixel config show (--recipe NAME | CONFIG.yaml | IMAGES MASKS) [section.key=value ...]"
)
def show(
    *tokens: Annotated[str, Parameter(name="WHAT")],
    recipe: str | None = None,
    data: str | None = None,
    labels: str | None = None,
) -> None:
    """Prints the whole configuration of a run, defaults included, as YAML that `perpixel train` reads.

    Args:
        tokens: CONFIG.yaml, or IMAGES MASKS; and overrides such as optimizer.lr=0.01 steps=500.
        recipe: Name of a recipe; `perpixel recipes` lists them.
        data: The data set, [format:]path.
        labels: The classes: a known label space, a YAML file or a number of classes.
    """
    request = replace(sort_tokens(tokens, recipe=recipe, data=data, labels=labels), check=False)
    from perpixel.build import check_names
    from perpixel.config import dump_config

    sys.stdout.write(dump_config(resolve(request, checks=[check_names]).config))


@config.command
def schema() -> None:
    """Prints the JSON Schema of a configuration, with the meaning of each key; editors complete with it."""
    from perpixel.config import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n")
