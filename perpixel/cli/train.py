"""``perpixel train``."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from perpixel.cli.output import JsonFile, check_json_file, console_for, say
from perpixel.cli.progress import ProgressDisplay
from perpixel.cli.run_events import show_event, watch_run
from perpixel.cli.run_request import Resolved, RunRequest, resolve, sort_tokens
from perpixel.config import RunConfig
from perpixel.errors import RunError

__all__ = ["train"]


def train(
    *tokens: Annotated[str, Parameter(name="WHAT")],
    recipe: str | None = None,
    data: str | None = None,
    labels: str | None = None,
    source: Annotated[Path | None, Parameter(name="--from")] = None,
    out: Path | None = None,
    resume: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    check: bool = True,
    json: JsonFile = None,
) -> int:
    """Trains a network and writes a run folder with scores, models, predictions and a report.

    What decides the run is a recipe, a configuration file or your folders of images and masks. Everything that is not
    said is decided for you, printed with its reason and kept in the run's config.yaml.

    Args:
        tokens: CONFIG.yaml, or IMAGES MASKS; and overrides such as optimizer.lr=0.01 steps=500.
        recipe: Name of a recipe; `perpixel recipes` lists them.
        data: The data set, [format:]path: camvid:/d, voc:/d, or a folder with images/ and masks/.
        labels: The classes: a known label space, a YAML file or a number of classes.
        source: Model to start from (fine-tuning); classes and image channels may differ.
        out: Run folder; without it runs/NAME-TIME, named after the recipe or configuration.
        resume: Run folder to go on with, from its newest training state.
        overwrite: Replace what an earlier run left in the run folder.
        check: Look at every file of your own folders first, as `perpixel data check` does; errors stop the run.
    """
    check_json_file(json)
    if resume is None:
        request = replace(sort_tokens(tokens, recipe=recipe, data=data, labels=labels, source=source), check=check)
    else:
        _refuse_with_resume(recipe=recipe, source=source, out=out, overwrite=overwrite)
        request = _resumed(tokens, resume, data=data, labels=labels)
    from perpixel.build import check_names

    with ProgressDisplay(console_for(json)) as display:
        resolved = resolve(request, checks=[check_names], on_progress=display.update)
    if out is None and resume is None:
        out = _default_out(resolved.config)
    return _run(resolved, out=out, resume=resume, overwrite=overwrite, source=source, json=json)


def _run(
    resolved: Resolved,
    *,
    out: Path | None,
    resume: Path | None,
    overwrite: bool,
    source: Path | None,
    json: str | None,
) -> int:
    from perpixel.build import train as train_run

    folder = resume or out
    if folder is not None:
        say(console_for(json), f"run folder: {folder}", style="bold")
    return watch_run(
        json,
        folder,
        lambda display: train_run(
            resolved.config,
            decisions=resolved.decisions,
            out=out,
            resume=resume,
            overwrite=overwrite,
            source=source,
            on_event=lambda event: show_event(display, event),
            on_progress=display.update,
        ),
    )


def _default_out(config: RunConfig) -> Path | None:
    """Returns the usual folder; None leaves it to the run where several processes must agree on one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return None
    return Path("runs") / f"{config.recipe or config.name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _resumed(tokens: tuple[str, ...], run: Path, *, data: str | None, labels: str | None) -> RunRequest:
    config = run / "config.yaml"
    if not config.is_file():
        raise RunError(f"--resume {run}: there is no {config}; give the folder of a run that has begun")
    return sort_tokens((str(config), *tokens), data=data, labels=labels)


def _refuse_with_resume(*, recipe: str | None, source: Path | None, out: Path | None, overwrite: bool) -> None:
    given = {"--recipe": recipe, "--from": source, "--out": out, "--overwrite": overwrite or None}
    clashing = [name for name, value in given.items() if value is not None]
    if clashing:
        raise RunError(f"--resume goes on with a run as it was begun; leave {', '.join(clashing)} away")
