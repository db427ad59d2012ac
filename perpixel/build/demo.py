"""The main job without any data: generated street scenes, a small DFN, a plain FCN beside it, and the report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from perpixel.build.checks import check_names
from perpixel.build.progress import ProgressCallback
from perpixel.build.training import RunResult, train
from perpixel.config import ModelChoice, RunConfig, apply_overrides
from perpixel.engine import RunFolder
from perpixel.recipes import get_recipe
from perpixel.report import write_report

__all__ = ["demo"]

BASELINE = "baseline-fcn"


def demo(
    out: str | Path = Path("runs/demo"),
    *,
    overrides: Sequence[str] = (),
    baseline: bool = True,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    on_progress: ProgressCallback | None = None,
) -> RunResult:
    """Generates scenes, trains a DFN and an FCN with the same backbone, steps and data, scores both and reports.

    The run folder is the DFN's; the FCN's lies inside it as ``baseline-fcn/``. An earlier demo there is replaced.

    Raises:
        RunError: the folder holds something else than a run.
    """
    out = Path(out)
    config = apply_overrides(get_recipe("dfn_demo"), overrides, checks=[check_names])
    if (out / BASELINE / "metrics.jsonl").exists():  # an earlier demo's; this one may come without
        shutil.rmtree(out / BASELINE)
    result = train(config, out=out, overwrite=True, on_event=on_event, on_progress=on_progress)
    if not baseline or result.interrupted:
        return result
    reason = f"a plain FCN with the same backbone, steps and data, in {out / BASELINE}, to compare with"
    RunFolder(out, resume=True, on_event=on_event).decision("baseline", "fcn", reason)
    other = train(
        _fcn_of(config, out / "scenes"),
        out=out / BASELINE,
        overwrite=True,
        on_event=on_event,
        on_progress=on_progress,
    )
    if other.interrupted:
        return other
    keys = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "per_class", "error_split")
    run = RunFolder(out, resume=True)
    scores = {**result.scores, "baseline": {"name": "fcn", **{key: other.scores[key] for key in keys}}}
    run.write_json("metrics.json", scores)
    write_report(out, out / BASELINE)
    return RunResult(folder=out, scores=scores, steps=result.steps, seconds=round(result.seconds + other.seconds, 3))


def _fcn_of(config: RunConfig, scenes: Path) -> RunConfig:
    """The same run with FCN-32s on the same backbone and the loss that it was published with."""
    stage = config.stages[0]
    choice = config.model_of(0)
    fcn = ModelChoice(name="fcn", backbone=choice.backbone, options={"width": 128, "auxiliary_width": 64})
    return config.model_copy(
        update={
            "name": f"{config.name}-fcn",
            "data": config.data.model_copy(update={"source": str(scenes), "scenes": None}),
            "stages": (stage.model_copy(update={"model": fcn, "terms": None}),),
        }
    )
