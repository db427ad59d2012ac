"""What each of two processes does; imported by them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from perpixel.build import RunResult, run_job, train
from perpixel.config import RunConfig, load_config
from perpixel.engine.distributed import World


def trains(
    world: World, config: RunConfig, out: Path, stop_at: int | None = None, resume: bool = False
) -> dict[str, Any]:
    """Trains as torchrun's processes do, without the report, and returns what this process saw."""
    run_job.write_report = lambda folder: folder  # type: ignore[assignment]
    seen: list[str] = []

    def stop(progress: Any) -> None:
        if stop_at is not None and progress.phase == "train" and progress.done == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    if resume:
        config = load_config(out / "config.yaml")
    result = train(
        config,
        out=None if resume else out,
        resume=out if resume else None,
        on_event=lambda event: seen.append(event["event"]),
        on_progress=stop,
        world=world,
    )
    return {"seen": seen, **_plain(result)}


def _plain(result: RunResult) -> dict[str, Any]:
    return {
        "folder": result.folder,
        "interrupted": result.interrupted,
        "signal": result.signal,
        "steps": result.steps,
        "confusion": result.scores.get("confusion"),
    }
