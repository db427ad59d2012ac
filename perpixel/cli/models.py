"""``perpixel models``."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

from rich.table import Table

from perpixel.cli.output import JsonFile, check_json_file, console_for, say, write_json

__all__ = ["models"]

_COUNTED_CLASSES = 21


def models(name: str | None = None, /, *, json: JsonFile = None) -> None:
    """Lists the networks, or one network's options with their defaults.

    Args:
        name: A network.
    """
    check_json_file(json)
    from perpixel.errors import InvalidValue, nearest
    from perpixel.models import MODELS, list_models

    if name is not None and name not in MODELS:
        raise InvalidValue(f"unknown model {name!r}{nearest(name, MODELS, end='.')} Known: {', '.join(list_models())}")
    console = console_for(json)
    found = [_description(known) for known in ([name] if name is not None else MODELS)]
    if name is None:
        table = Table("name", "paper", "backbone", box=None, pad_edge=False, header_style="bold")
        table.add_column(f"parameters ({_COUNTED_CLASSES} classes)", justify="right")
        for model in found:
            trunk = model["backbone"]["name"] if model["backbone"] else "its own"
            table.add_row(model["name"], model["paper"], trunk, f"{model['parameters']:,}")
        console.print(table)
        write_json(json, found)
        return
    model = found[0]
    say(console, f"{model['name']}: {model['paper']}", style="bold")
    say(console, f"{model['description']}\n")
    say(console, f"{model['parameters']:,} parameters with its defaults and {_COUNTED_CLASSES} classes")
    for section in ("options", "backbone"):
        say(console, f"\nmodel.{section}", style="bold")
        for key, value in (model[section] or {"name": "its own"}).items():
            say(console, f"  {key} = {value}")
    write_json(json, model)


def _description(name: str) -> dict[str, Any]:
    """Plain values; the layers are counted on the meta device, so that none is filled."""
    import torch

    from perpixel.metrics import to_json
    from perpixel.models import MODELS, create_model

    entry = MODELS[name]
    with torch.device("meta"):
        network = create_model(name, num_classes=_COUNTED_CLASSES)
    defaults = entry.config()
    plain: dict[str, Any] = to_json(
        {
            "name": name,
            "paper": entry.paper,
            "description": inspect.getdoc(entry.network) or "",
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "options": {field.name: getattr(defaults, field.name) for field in fields(entry.config)},
            "backbone": None if entry.backbone is None else entry.backbone.to_dict(),
        }
    )
    return plain
