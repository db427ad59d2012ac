"""``perpixel recipes``."""

from __future__ import annotations

import sys

from rich.table import Table

from perpixel.cli.output import JsonFile, check_json_file, console_for, say, write_json

__all__ = ["recipes"]


def recipes(name: str | None = None, /, *, json: JsonFile = None) -> None:
    """Lists the recipes, or one recipe's description and resolved configuration.

    Args:
        name: A recipe.
    """
    check_json_file(json)
    from perpixel.config import dump_config
    from perpixel.recipes import RECIPES, get_recipe, recipe_details, recipe_summary

    console = console_for(json)
    if name is None:
        table = Table("name", "trains", box=None, pad_edge=False, header_style="bold")
        for known in RECIPES:
            table.add_row(known, recipe_summary(known))
        console.print(table)
        write_json(json, [{"name": known, "summary": recipe_summary(known)} for known in RECIPES])
        return
    config = get_recipe(name)
    details = recipe_details(name)
    if json != "-":
        say(console, "\n".join(f"# {line}".rstrip() for line in details.splitlines()))
        sys.stdout.write(dump_config(config))
    write_json(json, {"name": name, "description": details, "config": config.model_dump(mode="json")})
