"""preflight(): a minute on the user's own data and configuration that finds what would fail in the real run."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from perpixel.build.checks import check_names
from perpixel.build.datasets import RunData, check_stage_data, prepare_data
from perpixel.build.memory_estimate import MemoryEstimate, StepProbe, estimate_training_memory
from perpixel.build.memory_plan import plan_memory
from perpixel.build.networks import build_network, check_batch_norm, choose_device, in_channels
from perpixel.build.preflight_outcome import Outcome, check_disk, check_evaluation, check_tiles
from perpixel.build.preflight_report import CheckResult, PreflightReport, Status
from perpixel.build.preflight_trial import (
    choose_size,
    resume_trial,
    run_trial,
    step_seconds,
    trial_config,
    without_weights,
)
from perpixel.build.progress import Progress, ProgressCallback
from perpixel.build.published_weights import published_weights
from perpixel.build.sources import generate_scenes, open_source
from perpixel.config import RunConfig, apply_overrides
from perpixel.engine import RunFolder, choose_precision
from perpixel.engine.randomness import kept_random_state
from perpixel.errors import InvalidValue, PerpixelError
from perpixel.inference.memory import bytes_text, free_memory

__all__ = ["CheckResult", "PreflightReport", "preflight"]

_ROOM = 0.9
"""Share of the free memory that a run may be planned to take: heaps fragment."""
_TRAINING_SHARE = 0.4
"""Of the seconds, for the steps of the trial."""
_LEAST_SHARE = 0.2
"""Of the seconds, what training may count on however long the checks before it took."""
_LEFT_OUT_LATE = ("resume", "evaluation", "tiled prediction")
_WAYS_OUT = {
    "configuration": "`perpixel config show` prints what the run would use",
    "data": "`perpixel data check` lists every fault of the data; `perpixel data stats` what it holds",
    "network": "`perpixel models NAME` lists a network's options; model.backbone.weights=none starts at random",
    "memory": "smaller data.batch_size or data.crop_size; stages.0.accumulate keeps the batch that an update sees",
    "training": "lower optimizer.lr, set clip_norm, or use precision=fp32 where numbers are not finite",
    "resume": "please report it: a resumed run must equal an uninterrupted one on the CPU",
    "evaluation": "look at the validation images and masks that the message names",
    "tiled prediction": "predict whole images, or give a larger --memory",
    "disk": "another --out, smaller keep_checkpoints, or evaluation.save_predictions=false",
    "time": "fewer steps, smaller crops or batches, or a GPU",
}
"""The order of the checks, and what to do where one fails without saying more."""


_PLACES = {
    "to fetch": "would be downloaded when the run begins",
    "unreachable": "are not on this machine, and huggingface.co cannot be reached, so the run would end there (fetch "
    "the file elsewhere and give model.backbone.weights=FILE)",
    "unknown": "cannot be looked up by this name; the run fetches them when it begins, if they are not here",
}


def preflight(
    config: RunConfig,
    *,
    source: str | Path | None = None,
    out: str | Path | None = None,
    seconds: float = 60,
    memory: int | None = None,
    on_check: Callable[[CheckResult], None] | None = None,
    on_progress: ProgressCallback | None = None,
) -> PreflightReport:
    """Tries everything that a run does, briefly, on the CPU, and reports what would fail; nothing is left behind.

    The whole data is read, every stage is trained for two steps, saved and resumed, scored and used for prediction;
    the memory of the real run is counted. What needs a check that failed is reported as not run.

    Args:
        config: The run.
        source: An artifact to fine-tune from, as in `train`.
        out: The run folder that is planned; ``runs`` when not given.
        seconds: What the check may take beside reading the data, about; batch and crop of the two steps follow it, and
            what it has no time for any more is reported as left out.
        memory: Bytes that training may take, on this machine or another; what is free here when not given.
        on_check: Receives every result as it is there.
        on_progress: Receives `Progress` while something long is going on.

    Raises:
        InvalidValue: ``seconds`` is not positive.
    """
    if not seconds > 0:
        raise InvalidValue(f"seconds must be positive, got {seconds}")
    started = time.perf_counter()
    with kept_random_state(), tempfile.TemporaryDirectory(prefix="perpixel-check-") as folder:
        work = _Preflight(config, source, Path(out or "runs"), Path(folder), seconds, memory, on_progress)
        checks: list[CheckResult] = []
        for name in _WAYS_OUT:
            if on_progress is not None:
                on_progress(Progress(phase=name, done=len(checks), total=len(_WAYS_OUT)))
            checks.append(work.check(name))
            if on_check is not None:
                on_check(checks[-1])
    return PreflightReport(checks=tuple(checks), seconds=round(time.perf_counter() - started, 3))


class _Late(Exception):
    """The seconds that were given are used up."""


class _Lacking(Exception):
    """Something that an earlier check should have left is not there."""


class _Preflight:
    """The checks, and what they leave for each other."""

    def __init__(
        self,
        config: RunConfig,
        source: str | Path | None,
        out: Path,
        folder: Path,
        seconds: float,
        memory: int | None,
        on_progress: ProgressCallback | None,
    ) -> None:
        if source is not None:
            first = config.stages[0].model_copy(update={"start": str(source)})
            config = config.model_copy(update={"stages": (first, *config.stages[1:])})
        self.config, self.out, self.folder, self.seconds = config, out, folder, seconds
        self.memory, self.on_progress = memory, on_progress
        self.device, self.precision = torch.device("cpu"), "fp32"
        self.named = self.random_backbones = False
        self.data: RunData | None = None
        self.estimates: dict[int, MemoryEstimate] = {}
        self.batch_seconds: dict[int, float] = {}
        self.trial: RunConfig | None = None
        self.shares: list[float] = []
        self.spent = 0.0
        """Seconds of the checks so far but for reading the data."""

    def check(self, name: str) -> CheckResult:
        """Runs one check; whatever ends it becomes its result."""
        method: Callable[[], Outcome] = getattr(self, f"_{name.replace(' ', '_')}")
        started = time.perf_counter()
        status: Status = "failed"
        values: dict[str, Any] = {}
        try:
            if name in _LEFT_OUT_LATE and self.spent >= self.seconds:
                raise _Late
            found = method()
            status = "failed" if not found.fits else "warning" if found.warnings else "ok"
            text, values = "\n".join([found.text, *found.warnings]), dict(found.values)
        except _Lacking as error:
            status, text = "not run", f"needs {error}"
        except _Late:
            more = f"--seconds {2 * self.seconds:g} may reach it"
            status, text = "not run", f"left out: the {self.seconds:g} seconds are used up; {more}"
        except (PerpixelError, OSError, MemoryError) as error:
            text = str(error) or type(error).__name__
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
            text = f"unexpected {type(error).__name__}: {error}"  # the real run would end here too
        way_out = _WAYS_OUT[name] if status in ("failed", "warning") else ""
        took = round(time.perf_counter() - started, 3)
        self.spent += 0 if name == "data" else took
        return CheckResult(name=name, status=status, found=text, way_out=way_out, seconds=took, values=values)

    def _configuration(self) -> Outcome:
        apply_overrides(self.config, (), checks=[check_names])
        check_stage_data(self.config)
        self.named = True
        self.device, reason = choose_device(self.config.device)
        chosen = choose_precision(self.config.precision, self.device)
        self.precision = chosen.name
        stages = self.config.stages
        shown = ", ".join(
            f"{stage.name} ({self.config.model_of(i).name}, {stage.steps} steps)" for i, stage in enumerate(stages)
        )
        text = f"{len(stages)} stage{'s' * (len(stages) > 1)}: {shown}; on {self.device} ({reason}), {chosen.name}"
        return Outcome(text, values={"device": str(self.device), "precision": chosen.name})

    def _data(self) -> Outcome:
        self._need_names()
        opened = open_source(self.config.data) or generate_scenes(
            self.config.data, RunFolder(self.folder / "generated", on_event=None)
        )
        self.data = prepare_data(self.config, opened, in_channels=in_channels(self.config.model_of(0)))
        counts = {name: summary.images for name, summary in self.data.summaries.items()}
        for dataset in (self.data.train, self.data.val):  # masks are read; one image of each split must be, too
            _ = dataset[0]
        images = ", ".join(f"{count} {name}" for name, count in counts.items())
        text = f"{images} images, {self.data.labels.num_classes} classes; every mask was read"
        decided = [f"{what}: {choice} ({reason})" for what, choice, reason in self.data.notes.decisions]
        values = {"images": counts, "classes": list(self.data.labels.names), "decisions": decided}
        return Outcome(text, tuple(self.data.notes.warnings), values)

    def _network(self) -> Outcome:
        self._need_names()
        classes = self._need_data().labels.num_classes
        lines, published = [], []
        for index, stage in enumerate(self.config.stages):
            model, choice = self.config.model_of(index), self.config.data_of(index)
            network = build_network(without_weights(model), classes)
            check_batch_norm(network, choice.crop_size, choice.batch_size, frozen=stage.freeze_batch_norm)
            parameters = sum(parameter.numel() for parameter in network.parameters())
            lines.append(f"{stage.name}: {model.name}, {parameters / 1e6:.1f} million parameters")
            if stage.model is not None and model.backbone is not None and model.backbone.weights == "timm":
                published.append(model.backbone.name)
        places = {name: published_weights(name) for name in dict.fromkeys(published)}
        absent = {name: where for name, where in places.items() if where != "here"}
        self.random_backbones = bool(absent)
        warnings = tuple(
            f"the published weights of {name} {_PLACES[where]}; this check goes on with random ones"
            for name, where in absent.items()
        )
        return Outcome("; ".join(lines), warnings, fits="unreachable" not in absent.values())

    def _memory(self) -> Outcome:
        self._need_names()
        data = self._need_data()
        on_cpu = self.device.type == "cpu"
        free = free_memory(self.device) if self.memory is None else self.memory
        cache = _cached_bytes(self.config, data) if on_cpu else 0
        room = max(1, int(_ROOM * (free - cache)))
        lines, warnings, values = [], [], []
        for index, stage in enumerate(self.config.stages):
            classes = data.labels.num_classes
            probe = StepProbe(self.config, classes, index, self.precision)
            found = estimate_training_memory(self.config, classes, stage=index, precision=self.precision, probe=probe)
            plan = plan_memory(self.config, classes, memory=room, device=self.device, stage=index, probe=probe)
            self.estimates[index] = found
            lines.append(f"{stage.name}: {found.text()}; {plan.text()}")
            if not plan.fits:
                largest = plan.largest_batch
                way = f"data.batch_size={largest} would do" if largest else "not even one image of this crop would fit"
                warnings.append(f"{stage.name}: {bytes_text(room)} can be counted on; {way}")
            shown = {"stage": stage.name, "bytes": found.total, "batch_size": found.batch_size}
            shown |= {"crop_size": list(found.crop_size), "largest_batch": plan.largest_batch}
            values.append({**shown, "plan": plan.to_dict()})
        held = f"; decoded images will take {bytes_text(cache)} of them" if cache else ""
        note = "" if on_cpu else "; counted, not measured on this GPU, whose workspaces come on top"
        said = f"{bytes_text(free)} of {self.device} are free" if self.memory is None else f"{bytes_text(free)} given"
        lines.append(f"{said}{held}{note}")
        fits = all(found.total <= free - cache for found in self.estimates.values())
        return Outcome("; ".join(lines), tuple(warnings), {"free_bytes": free, "stages": values}, fits)

    def _training(self) -> Outcome:
        self._need_names()
        data = self._need_data()
        sizes = {index: self._trial_size(index) for index in range(len(self.config.stages))}
        wanted = choose_precision("fp32" if self.precision == "fp16" else self.precision, "cpu").name
        precision = wanted if self.device.type == "cpu" else choose_precision("auto", "cpu").name
        trial = trial_config(self.config, sizes, precision=precision, random_backbones=self.random_backbones)
        data = replace(data, val=_first(data, 3))
        events = run_trial(trial, data, self.folder / "run", self.on_progress)
        self.trial, self.data, self.shares = trial, data, [size.share for size in sizes.values()]
        losses = {event["stage"]: event["values"] for event in events}
        lines = [f"{stage}: 2 steps, loss {values['total']:.4g}" for stage, values in losses.items()]
        for index, size in sizes.items():
            if size.share < 1:
                asked = self.config.data_of(index)
                lines.append(
                    f"{self.config.stages[index].name}: batch {size.batch_size} instead of {asked.batch_size} and crop "
                    f"{size.crop_size[0]} x {size.crop_size[1]} instead of {asked.crop_size[0]} x {asked.crop_size[1]},"
                    " because the time or memory would not suffice for the real ones"
                )
        return Outcome("; ".join(lines), values={"losses": losses, "shares": self.shares, "precision": precision})

    def _trial_size(self, index: int) -> Any:
        """Returns what of a stage's batch can be trained on here in time."""
        classes = self._need_data().labels.num_classes
        stages, accumulated = len(self.config.stages), min(self.config.stages[index].accumulate, 2)
        self.batch_seconds[index] = step_seconds(self.config, classes, index)
        left = max(self.seconds - self.spent, _LEAST_SHARE * self.seconds)
        allowed = _TRAINING_SHARE * left / (3 * stages * accumulated)  # two steps, and one again
        share = allowed / self.batch_seconds[index]
        estimate = self.estimates.get(index)
        if estimate is not None and estimate.activations > 0:
            room = _ROOM * free_memory("cpu") - (estimate.total - estimate.activations)
            share = min(share, max(room, 0) / estimate.activations)
        return choose_size(self.config, classes, index, share)

    def _resume(self) -> Outcome:
        trial = self._need_trial()
        run, resumed = self.folder / "run", self.folder / "resumed"
        different, events = resume_trial(trial, self._need_data(), run, resumed, self.on_progress)
        if different:
            shown = ", ".join(different[:5])
            return Outcome(f"the resumed run's weights differ: {shown} ({len(different)} in all)", fits=False)
        for index, event in enumerate(events[: len(self.shares)]):
            taken = event["seconds"]["step"] + event["seconds"]["data"]
            accumulated = self.config.stages[index].accumulate / trial.stages[index].accumulate
            self.batch_seconds[index] = taken * accumulated / self.shares[index]
        shutil.rmtree(resumed)
        return Outcome("saved after step 1, resumed, and equal to the uninterrupted run bit for bit")

    def _evaluation(self) -> Outcome:
        self._need_trial()
        return check_evaluation(self.folder / "run" / "best", self._need_data())

    def _tiled_prediction(self) -> Outcome:
        self._need_trial()
        return check_tiles(self.folder / "run" / "best", self._need_data())

    def _disk(self) -> Outcome:
        self._need_trial()
        return check_disk(self.config, self._need_data(), self.folder / "run", self.out)

    def _time(self) -> Outcome:
        self._need_trial()
        steps = [stage.steps for stage in self.config.stages]
        total = sum(count * self.batch_seconds[index] for index, count in enumerate(steps))
        shown = ", ".join(f"{count} steps of {self.batch_seconds[i]:.2g} s" for i, count in enumerate(steps))
        scaled = "" if min(self.shares) == 1 else ", extended from smaller batches"
        text = f"about {_duration(total)} of training on this CPU: {shown}{scaled}; evaluations come on top"
        if self.device.type != "cpu":
            text += f". The run would use {self.device}, where it was not measured"
        return Outcome(text, values={"seconds": total, "step_seconds": list(self.batch_seconds.values())})

    def _need_names(self) -> None:
        if not self.named:
            raise _Lacking("a configuration whose names are known")

    def _need_data(self) -> RunData:
        if self.data is None:
            raise _Lacking("data that can be used")
        return self.data

    def _need_trial(self) -> RunConfig:
        if self.trial is None:
            raise _Lacking("two steps of training")
        return self.trial


def _first(data: RunData, count: int) -> Any:
    """Returns the first validation images as a data set."""
    val = data.val
    return type(val)(
        val.items[:count],
        val.labels,
        in_channels=val.in_channels,
        mask_encoding=val.mask_encoding,
        max_pixels=val.max_pixels,
    )


def _cached_bytes(config: RunConfig, data: RunData) -> int:
    """Returns what the decoded training images and masks take in memory, as far as they are kept."""
    summary = data.summaries[config.data.train_split]
    pixels = sum(height * width * count for (height, width), count in summary.sizes.items())
    return min(config.data.cache_mb << 20, pixels * (data.train.in_channels + 1))


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
