"""Recipes: functions that return the whole configuration of a published or measured training. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc

from perpixel.config import RunConfig
from perpixel.errors import ConfigError, nearest
from perpixel.recipes.dfn import (
    dfn_camvid,
    dfn_camvid_small,
    dfn_cityscapes,
    dfn_demo,
    dfn_voc,
    dfn_voc_paper,
)

__all__ = ["RECIPES", "get_recipe", "recipe_details", "recipe_summary"]

RECIPES: dict[str, Callable[[], RunConfig]] = {
    "dfn_demo": dfn_demo,
    "dfn_camvid_small": dfn_camvid_small,
    "dfn_camvid": dfn_camvid,
    "dfn_voc": dfn_voc,
    "dfn_voc_paper": dfn_voc_paper,
    "dfn_cityscapes": dfn_cityscapes,
}
"""Every recipe by name; a configuration made by one bears its name in ``recipe``."""


def get_recipe(name: str) -> RunConfig:
    """Returns the configuration that recipe ``name`` stands for.

    Raises:
        ConfigError: there is no such recipe.
    """
    return _entry(name)()


def recipe_summary(name: str) -> str:
    """Returns what recipe ``name`` trains, in one line.

    Raises:
        ConfigError: there is no such recipe.
    """
    return recipe_details(name).partition("\n")[0]


def recipe_details(name: str) -> str:
    """Returns the whole description of recipe ``name``: command, hardware, time and score.

    Raises:
        ConfigError: there is no such recipe.
    """
    return cleandoc(_entry(name).__doc__ or "")


def _entry(name: str) -> Callable[[], RunConfig]:
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r}{nearest(name, RECIPES, end='.')} Known: {', '.join(RECIPES)}.")
    return RECIPES[name]
