"""train(): a configuration becomes a run folder with trained weights, scores, predictions and a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from perpixel.build.checks import check_names
from perpixel.build.datasets import RunData, check_stage_data, prepare_data
from perpixel.build.networks import choose_device, in_channels
from perpixel.build.progress import ProgressCallback
from perpixel.build.resume_check import check_config, check_data, environment_changes, stored_environment
from perpixel.build.run_files import SPLIT_FILE, with_files_of
from perpixel.build.run_job import RunJob
from perpixel.build.several_processes import begun_before, check_batches
from perpixel.build.sources import generate_scenes, open_source
from perpixel.config import RunConfig, apply_overrides
from perpixel.engine import RunFolder, choose_precision
from perpixel.engine.distributed import World, joined_world
from perpixel.engine.interrupts import signals_raise
from perpixel.engine.run_lock import run_lock
from perpixel.errors import RunError

__all__ = ["RunResult", "train"]

EventCallback = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run left behind."""

    folder: Path
    scores: Mapping[str, Any] = field(default_factory=dict)
    """The content of metrics.json; empty when the run was interrupted."""
    interrupted: bool = False
    signal: str | None = None
    """Name of the signal that interrupted it, such as ``"SIGTERM"``."""
    steps: int = 0
    seconds: float = 0.0


def train(
    config: RunConfig,
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    overwrite: bool = False,
    source: str | Path | None = None,
    decisions: Sequence[tuple[str, str, str]] = (),
    on_event: EventCallback | None = None,
    on_progress: ProgressCallback | None = None,
    world: World | None = None,
) -> RunResult:
    """Trains, scores, predicts and reports; everything lands in one run folder.

    Names and data are checked before the folder is touched, so that a mistake costs nothing. One process at a time
    works in a folder. In the main thread SIGTERM and SIGHUP end the run as Ctrl-C does: while training, with a saved
    state and a result that says so; elsewhere as ``Interrupted``, a KeyboardInterrupt.

    Under torchrun all processes call this alike and return the same result; the first decides, writes and tells. A run
    that torchrun starts again goes on from its newest training state.

    Args:
        config: What to do.
        out: The run folder; ``runs/<name>-<time>`` when not given. A folder that holds something is refused.
        resume: Goes on with the run in this folder instead.
        overwrite: Lets ``out`` replace an earlier run.
        source: An artifact to fine-tune from: its classes are matched by name, its channels adapted.
        decisions: (what, choice, reason) of what a plan decided, for the run to keep.
        on_event: Receives every event of metrics.jsonl as it is written.
        on_progress: Receives `Progress` while something long is going on.
        world: The processes that train together; None joins those of torchrun.

    Raises:
        PerpixelError: the configuration, the data or the folder cannot be used, another process works in it, a resumed
            run's configuration or data is another one, or training diverged.
        KeyboardInterrupt: it was stopped while it did not train.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        world = stack.enter_context(joined_world()) if world is None else world
        plan = world.from_main(lambda: _planned(config, out, resume, overwrite, source, world))
        stack.enter_context(signals_raise())
        told = (on_event, on_progress) if world.is_main else (None, None)
        job = _started_job(plan, decisions, world, told, stack)
        return replace(_trained(job), seconds=time.perf_counter() - started)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What the main process finds out before anything is written."""

    config: RunConfig
    folder: Path
    resumed: bool
    overwrite: bool
    data: RunData | None
    """None where the run makes its scenes itself."""
    changes: tuple[str, ...]
    """What is allowed to differ from the run as it began."""


def _planned(
    config: RunConfig,
    out: str | Path | None,
    resume: str | Path | None,
    overwrite: bool,
    source: str | Path | None,
    world: World,
) -> _Plan:
    """Checks names, configuration and data, and decides on the run folder."""
    folder = Path(resume or out or Path("runs") / f"{config.recipe or config.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if source is not None:
        first = config.stages[0].model_copy(update={"start": str(source)})
        config = config.model_copy(update={"stages": (first, *config.stages[1:])})
    config = apply_overrides(config, (), checks=[check_names])
    check_stage_data(config)
    check_batches(config, world)
    begun = begun_before(folder)
    resumed = resume is not None or (begun and (folder / "config.yaml").exists())
    overwrite = (overwrite or begun) and not resumed
    if overwrite:
        _refuse_to_lose_inputs(config, folder)
    changes = check_config(folder, config) if resumed else ()
    choose_precision(config.precision, choose_device(config.device)[0])
    opened = open_source(config.data)
    stored_split = folder / SPLIT_FILE if resumed else None
    if resumed and opened is not None:
        opened, left_out = with_files_of(folder, opened)
        changes = (*changes, *left_out)
    channels = in_channels(config.model_of(0))
    data = None if opened is None else prepare_data(config, opened, in_channels=channels, stored_split=stored_split)
    if resumed and data is not None:
        changes = (*changes, *check_data(folder, data))
    return _Plan(config=config, folder=folder, resumed=resumed, overwrite=overwrite, data=data, changes=changes)


def _started_job(
    plan: _Plan,
    decisions: Sequence[tuple[str, str, str]],
    world: World,
    told: tuple[EventCallback | None, ProgressCallback | None],
    stack: ExitStack,
) -> RunJob:
    """Takes the run folder, until ``stack`` closes, and writes there what the run begins with."""
    config, folder, resumed = plan.config, plan.folder, plan.resumed

    def opened_folder() -> tuple[RunFolder, str | None]:
        killed = stack.enter_context(run_lock(folder, make=not resumed)) if world.is_main else None
        run = RunFolder(folder, resume=resumed, overwrite=plan.overwrite, on_event=told[0], writes=world.is_main)
        return run, killed

    run, killed = world.main_first(opened_folder)
    data = plan.data
    if data is None:
        channels = in_channels(config.model_of(0))
        data = world.from_main(lambda: prepare_data(config, generate_scenes(config.data, run), in_channels=channels))
    for decision in decisions:
        run.decision(*decision)
    before = stored_environment(folder) if resumed and world.is_main else {}
    device, reason = choose_device(config.device)
    world = world.placed(device)
    precision = choose_precision(config.precision, world.device)
    job = RunJob(
        config,
        run,
        data,
        device=(world.device, reason),
        precision=precision,
        resume=resumed,
        on_progress=told[1],
        world=world,
    )
    lock = () if killed is None else (f"{killed} held this folder and did not end in order; it is taken over",)
    for message in (*lock, *plan.changes, *environment_changes(before, stored_environment(folder))):
        run.event("warning", message=message)
    return job


def _trained(job: RunJob) -> RunResult:
    """Trains the stages and scores the best weights."""
    result, folder = job.train_stages(), job.run.path
    steps = 0 if result is None else result.steps
    if result is not None and result.interrupted is not None:
        return RunResult(folder=folder, interrupted=True, signal=result.interrupted, steps=steps)
    return RunResult(folder=folder, scores=job.finish(), steps=steps)


def _refuse_to_lose_inputs(config: RunConfig, folder: Path) -> None:
    """Raises RunError where overwriting the folder would delete what the run starts from or learns from."""
    places = [config.data.source, config.data.images, config.data.masks, *(stage.start for stage in config.stages)]
    for place in places:
        path = Path((place or "").rpartition(":")[2])
        if place and path.exists() and path.resolve().is_relative_to(folder.resolve()):
            raise RunError(f"{folder} holds {place}, which this run needs; overwriting would delete it: choose another")
