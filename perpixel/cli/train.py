"""``perpixel train``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from perpixel.cli.output import JsonFile, check_json_file, console_for, say, write_json
from perpixel.cli.processes import run_processes, started_at, train_together, under_torchrun
from perpixel.cli.progress import ProgressDisplay
from perpixel.cli.run_events import show_event, unless_unread, watch_run
from perpixel.cli.run_request import CONFIG_SUFFIXES, Resolved, RunRequest, resolve, sort_tokens
from perpixel.config import RunConfig, load_config
from perpixel.errors import ConfigError, RunError

if TYPE_CHECKING:
    from perpixel.engine.distributed import World

__all__ = ["train"]

_DIFFERENT = 1


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
    verify_resume: Annotated[bool, Parameter(negative="")] = False,
    processes: int | None = None,
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
        resume: Run folder to go on with, from its newest training state. CONFIG.yaml and overrides may be given too:
            each difference from the run's own configuration is named, and those that would make it another run refused.
        overwrite: Replace what an earlier run left in the run folder.
        check: Look at every file of your own folders first, as `perpixel data check` does; errors stop the run.
        verify_resume: Do not train; kill and resume a short version of this run in a temporary folder instead, and say
            whether it ends as an unbroken one does, bit for bit. The exit code is 1 when not.
        processes: Processes of this machine that train together, one per GPU, or all on the CPU. One that dies is
            started again with the others, and the run goes on; `torchrun -m perpixel train` spans several machines.
    """
    check_json_file(json)
    if processes is not None and processes != 1 and not under_torchrun():
        if verify_resume:
            raise ConfigError("--verify-resume tries a run in one process; leave --processes away")
        options = {"--recipe": recipe, "--data": data, "--labels": labels, "--from": source, "--out": out}
        options |= {"--resume": resume, "--json": json}
        given = [text for name, value in options.items() if value is not None for text in (name, str(value))]
        flags = ["--overwrite"] * overwrite + ["--no-check"] * (not check)
        return run_processes(["train", *tokens, *given, *flags], processes)

    def asked() -> RunRequest:
        if resume is None:
            return replace(sort_tokens(tokens, recipe=recipe, data=data, labels=labels, source=source), check=check)
        _refuse_with_resume(recipe=recipe, source=source, out=out, overwrite=overwrite)
        return _resumed(tokens, resume, data=data, labels=labels)

    if not under_torchrun():
        resolved = _resolved(asked, json)
        if verify_resume:
            return _verify(resolved.config, source=source, json=json)
        return _run(resolved, out=out, resume=resume, overwrite=overwrite, source=source, json=json)
    if verify_resume:
        raise ConfigError("--verify-resume tries a run in one process; start it without torchrun")
    return train_together(
        lambda world: _run(
            world.from_main(lambda: _resolved(asked, json)),
            out=out,
            resume=resume,
            overwrite=overwrite,
            source=source,
            json=json if world.is_main else None,
            world=world,
        )
    )


def _resolved(asked: Callable[[], RunRequest], json: str | None) -> Resolved:
    from perpixel.build import check_names

    with ProgressDisplay(console_for(json)) as display:
        return resolve(asked(), checks=[check_names], on_progress=display.update)


def _run(
    resolved: Resolved,
    *,
    out: Path | None,
    resume: Path | None,
    overwrite: bool,
    source: Path | None,
    json: str | None,
    world: World | None = None,
) -> int:
    from perpixel.build import train as train_run

    if out is None and resume is None:
        out = Path("runs") / f"{resolved.config.recipe or resolved.config.name}-{started_at()}"

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
            on_event=unless_unread(lambda event: show_event(display, event)),
            on_progress=unless_unread(display.update),
            world=world,
        ),
    )


def _verify(config: RunConfig, *, source: Path | None, json: str | None) -> int:
    from perpixel.build.resume_proof import prove_resume

    console = console_for(json)
    with ProgressDisplay(console) as display:
        proof = prove_resume(config, source=source, on_progress=display.update)
    for note in proof.notes:
        say(console, note)
    say(console, f"killed: {'; '.join(proof.kills)}")
    say(console, f"unbroken: {proof.hashes[0]}\nresumed:  {proof.hashes[1]}")
    say(console, f"next batch: {', '.join(proof.next_batch)}")
    verdict = "equal" if proof.equal else f"different: {proof.different}"
    say(console, verdict, style="bold" if proof.equal else "bold red")
    if proof.condition is not None:
        say(console, f"condition: {proof.condition}", style="yellow")
    write_json(json, proof.to_dict())
    return 0 if proof.equal else _DIFFERENT


def _resumed(tokens: tuple[str, ...], run: Path, *, data: str | None, labels: str | None) -> RunRequest:
    """The run's own configuration, or the one that is given, which the run compares with its own."""
    config = run / "config.yaml"
    if not config.is_file():
        raise RunError(f"--resume {run}: there is no {config}; give the folder of a run that has begun")
    if any(token.lower().endswith(CONFIG_SUFFIXES) for token in tokens if "=" not in token):
        return sort_tokens(tokens, data=data, labels=labels)
    try:
        load_config(config)
    except ConfigError as error:
        raise ConfigError(
            f"{error}\nthe run's own configuration cannot be used; give it: perpixel train CONFIG.yaml --resume {run}"
        ) from error
    return sort_tokens((str(config), *tokens), data=data, labels=labels)


def _refuse_with_resume(*, recipe: str | None, source: Path | None, out: Path | None, overwrite: bool) -> None:
    given = {"--recipe": recipe, "--from": source, "--out": out, "--overwrite": overwrite or None}
    clashing = [name for name, value in given.items() if value is not None]
    if clashing:
        raise RunError(f"--resume goes on with a run as it was begun; leave {', '.join(clashing)} away")
