"""train(): a configuration becomes a run folder with trained weights, scores, predictions and a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perpixel.build.checks import check_names
from perpixel.build.datasets import check_stage_data, prepare_data
from perpixel.build.networks import choose_device, in_channels
from perpixel.build.progress import ProgressCallback
from perpixel.build.run_job import RunJob
from perpixel.build.sources import generate_scenes, open_source
from perpixel.config import RunConfig, apply_overrides
from perpixel.engine import RunFolder, choose_precision
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
) -> RunResult:
    """Trains, scores, predicts and reports; everything lands in one run folder.

    Names and data are checked before the folder is touched, so that a mistake costs nothing.

    Args:
        config: What to do.
        out: The run folder; ``runs/<name>-<time>`` when not given. A folder that holds something is refused.
        resume: Goes on with the run in this folder instead.
        overwrite: Lets ``out`` replace an earlier run.
        source: An artifact to fine-tune from: its classes are matched by name, its channels adapted.
        decisions: (what, choice, reason) of what a plan decided, for the run to keep.
        on_event: Receives every event of metrics.jsonl as it is written.
        on_progress: Receives `Progress` while something long is going on.

    Raises:
        PerpixelError: the configuration, the data or the folder cannot be used, or training diverged.
    """
    started = time.perf_counter()
    folder = Path(resume or out or Path("runs") / f"{config.recipe or config.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if source is not None:
        first = config.stages[0].model_copy(update={"start": str(source)})
        config = config.model_copy(update={"stages": (first, *config.stages[1:])})
    config = apply_overrides(config, (), checks=[check_names])
    check_stage_data(config)
    if overwrite:
        _refuse_to_lose_inputs(config, folder)
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device[0])
    channels = in_channels(config.model_of(0))
    opened = open_source(config.data)
    stored_split = None if resume is None else folder / "split.json"
    data = None if opened is None else prepare_data(config, opened, in_channels=channels, stored_split=stored_split)
    run = RunFolder(folder, resume=resume is not None, overwrite=overwrite, on_event=on_event)
    if data is None:
        data = prepare_data(config, generate_scenes(config.data, run), in_channels=channels)
    for decision in decisions:
        run.decision(*decision)
    job = RunJob(
        config, run, data, device=device, precision=precision, resume=resume is not None, on_progress=on_progress
    )
    result = job.train_stages()
    steps = 0 if result is None else result.steps
    if result is not None and result.interrupted is not None:
        return RunResult(folder=folder, interrupted=True, steps=steps, seconds=time.perf_counter() - started)
    scores = job.finish()
    return RunResult(folder=folder, scores=scores, steps=steps, seconds=time.perf_counter() - started)


def _refuse_to_lose_inputs(config: RunConfig, folder: Path) -> None:
    """Raises RunError where overwriting the folder would delete what the run starts from or learns from."""
    places = [config.data.source, config.data.images, config.data.masks, *(stage.start for stage in config.stages)]
    for place in places:
        path = Path((place or "").rpartition(":")[2])
        if place and path.exists() and path.resolve().is_relative_to(folder.resolve()):
            raise RunError(f"{folder} holds {place}, which this run needs; overwriting would delete it: choose another")
