"""The one way in which pages are filled: values are escaped, and a name that is not there is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

__all__ = ["page_environment"]


def page_environment(**filters: Callable[..., Any]) -> Environment:
    """Returns Jinja's environment of the templates beside this file, with filters by name."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment
