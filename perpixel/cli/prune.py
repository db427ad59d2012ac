"""``perpixel prune``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from perpixel.cli.output import JsonFile, check_json_file, console_for, refuse_existing_model, say, write_json
from perpixel.errors import InvalidValue

__all__ = ["prune"]


def prune(
    model: Path,
    /,
    *,
    keep: float = 0.5,
    out: Path,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    json: JsonFile = None,
) -> None:
    """Makes a narrower model of one: in every layer the kernels with the largest L1 norm stay.

    The result scores worse than what it was made of until it is trained again: give it to train --from, or write a
    recipe whose stage starts from 'pruned'. Networks that can be pruned: icnet, on its own trunk.

    Args:
        model: The model, such as best/ of a run.
        keep: Share of the channels that stays, in (0, 1).
        out: Folder for the narrower model.
        overwrite: Replace another model in that folder.
    """
    check_json_file(json)
    if out.resolve() == model.resolve():
        raise InvalidValue(f"--out {out} is the model itself, which would be lost; choose another folder")
    refuse_existing_model(out, overwrite=overwrite)
    from perpixel.weights import load_artifact, save_artifact
    from perpixel.weights import prune as prune_network

    artifact = load_artifact(model)
    network, report = prune_network(artifact.network, keep)
    provenance = {"pruned_from": str(model), "keep": keep, "criterion": "L1 norm", "source": artifact.provenance}
    save_artifact(out, network, artifact.labels, provenance)
    console = console_for(json)
    say(console, report.summary())
    say(console, f"the model is in {out}; to train it on: perpixel train --data DATA --from {shlex.quote(str(out))}")
    write_json(json, {"model": str(out), "keep": keep, **report.to_dict()})
