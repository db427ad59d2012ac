"""``perpixel import``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from perpixel.cli.output import console_for, refuse_existing_model, say
from perpixel.errors import ConfigError

__all__ = ["import_checkpoint"]


def import_checkpoint(
    file: Path,
    /,
    *options: Annotated[str, Parameter(name="OPTION")],
    family: Annotated[str, Parameter(name="--from")] = "auto",
    labels: str | None = None,
    out: Path,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Turns a published checkpoint into a model that evaluate, predict and train --from take.

    Every tensor is accounted for, or nothing is written. Pickled files are read without running code from them.

    Args:
        file: The checkpoint: .pth, .pt, .tar, .safetensors or .caffemodel.
        options: What the weights alone cannot tell, as option=value; an unknown one is answered with the known ones.
        family: Whose checkpoint it is, codebase/network such as torchseg/dfn; auto recognises it by its keys.
        labels: The classes that it was trained with: a known label space, a YAML file or a number of classes.
        out: Folder for the model.
        overwrite: Replace another model in that folder.
    """
    given = _options(options)
    refuse_existing_model(out, overwrite=overwrite)
    from perpixel.weights import import_checkpoint as import_file
    from perpixel.weights import save_artifact

    imported = import_file(file, family, labels=labels, **given)
    provenance = {
        "imported_from": file.name,
        "family": imported.report.family,
        "options": dict(imported.report.options),
        "notes": list(imported.report.notes),
    }
    save_artifact(out, imported.network, imported.labels, provenance)
    console = console_for()
    say(console, imported.report.summary())
    say(console, f"{imported.labels.num_classes} classes: {', '.join(imported.labels.names)}")
    say(console, f"the model is in {out}; to predict: perpixel predict {shlex.quote(str(out))} IMAGE --out predictions")


def _options(tokens: tuple[str, ...]) -> dict[str, Any]:
    from perpixel.config import parse_overrides

    values: dict[str, Any] = {}
    for token in tokens:
        name, equals, _ = token.partition("=")
        if not name or "." in name or not equals:
            raise ConfigError(f"option {token!r}: write option=value, such as align_corners=true")
    for option in parse_overrides(tokens):
        if option.keys[0] in values:
            raise ConfigError(f"option {option.token!r}: {option.keys[0]} is given twice; give it once")
        values[option.keys[0]] = option.value
    return values
