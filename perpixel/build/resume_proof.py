"""prove_resume(): the user's own run, shortened, once unbroken and once killed and resumed; two hashes that agree."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perpixel.build.checks import check_names
from perpixel.build.datasets import RunData, check_stage_data, choose_workers, prepare_data, stage_batches
from perpixel.build.networks import build_network, choose_device, in_channels
from perpixel.build.preflight_trial import (
    TrialSize,
    choose_size,
    same_bits,
    stage_folders,
    step_seconds,
    train_trial,
    trial_config,
    without_weights,
)
from perpixel.build.progress import Progress, ProgressCallback
from perpixel.build.published_weights import published_weights
from perpixel.build.sources import generate_scenes, open_source
from perpixel.config import RunConfig, apply_overrides, dump_config, load_config
from perpixel.engine import RunFolder, choose_precision
from perpixel.engine.checkpoints import load_checkpoint
from perpixel.engine.distributed import World
from perpixel.errors import PerpixelError, RunError

__all__ = ["STEPS", "ResumeProof", "prove_resume"]

STEPS = 6
"""Of each stage: a checkpoint after every second one, a kill in the third and in the writing of the fourth's."""
_EVERY = 2
_TRAINED = 2 * STEPS + 2 * _EVERY  # both runs, and what is repeated
_SECONDS = 60.0
_IMAGES, _SCORED = 64, 3
_LIFE = "import sys; from perpixel.build.resume_proof import live; sys.exit(live(sys.argv[1]))"
_LONGEST_LIFE = 3600


@dataclass(frozen=True, kw_only=True)
class ResumeProof:
    """What the comparison of an unbroken and a killed run found."""

    equal: bool
    hashes: tuple[str, str]
    """SHA-256 over weights, optimiser, averages, schedule, counters, generators and the next batch's names: of the
    unbroken run and the killed one."""
    different: str | None
    """The first thing that differs."""
    steps: int
    """Of each stage."""
    kills: tuple[str, ...]
    notes: tuple[str, ...]
    """What was made smaller than in the real run."""
    condition: str | None
    """Under which a difference means that something was lost; None: always."""
    next_batch: tuple[str, ...]
    """Names of the samples that would have come next."""
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def prove_resume(
    config: RunConfig,
    *,
    source: str | Path | None = None,
    on_progress: ProgressCallback | None = None,
) -> ResumeProof:
    """Trains the run for `STEPS` steps per stage in a temporary folder, unbroken, and again with kills and resumes.

    Each life is a process of its own that SIGKILL ends: in the third step of the first stage, in that of the last one,
    and while the last one's fourth step is written to a checkpoint. Network, loss, optimiser, schedule, averages and
    loading processes are the real run's; so are batch and crop where the steps then take about a minute.

    Args:
        config: The run.
        source: An artifact to fine-tune from, as in `train`.
        on_progress: Receives `Progress`: lives that are over.

    Raises:
        PerpixelError: whatever the real run would raise, or a life ended in another way than it should.
    """
    started = time.perf_counter()
    if source is not None:
        first = config.stages[0].model_copy(update={"start": str(source)})
        config = config.model_copy(update={"stages": (first, *config.stages[1:])})
    config = apply_overrides(config, (), checks=[check_names])
    check_stage_data(config)
    device, _ = choose_device(config.device)
    with tempfile.TemporaryDirectory(prefix="perpixel-resume-") as place:
        trial, notes = _shortened(config, device, Path(place))
        kills = _kills(trial)
        whole, broken = Path(place) / "whole", Path(place) / "broken"
        lives: list[tuple[Path, Mapping[str, Any] | None]] = [(whole, None), *((broken, kill) for kill in kills)]
        lives.append((broken, None))
        for number, (run, kill) in enumerate(lives):
            if on_progress is not None:
                on_progress(Progress(phase="lives", done=number, total=len(lives)))
            _start(Path(place) / "config.yaml", run, kill)
        states = [_states(trial, run) for run in (whole, broken)]
    different = next(_differences(states[0], states[1]), None)
    condition = None
    if device.type != "cpu" and not config.deterministic:
        condition = (
            "deterministic: false; on a GPU sums then have no fixed order, and two runs differ whether one is resumed "
            "or not. Run again with deterministic=true"
        )
    return ResumeProof(
        equal=different is None,
        hashes=(_digest(states[0]), _digest(states[1])),
        different=different,
        steps=STEPS,
        kills=tuple(_in_words(kill) for kill in kills),
        notes=tuple(notes),
        condition=condition,
        next_batch=tuple(states[0]["next batch"]),
        seconds=round(time.perf_counter() - started, 3),
    )


def live(order: str) -> int:
    """One life of the short run, in a process of its own: starts it or goes on with it, to its end or its kill.

    Args:
        order: JSON: ``config`` (file), ``run`` (folder), ``kill`` (where to die; null: nowhere).
    """
    given = json.loads(order)
    run, kill = Path(given["run"]), given["kill"]
    try:
        config = load_config(given["config"])
        resume = (run / "config.yaml").exists()
        folder = RunFolder(run, resume=resume)
        data = _data(config, folder)
        device, _ = choose_device(config.device)
        on_progress = None
        if kill is not None and kill["at"] == "step":
            on_progress = _dying_in_a_step(kill)
        elif kill is not None:
            sys.addaudithook(_dying_in_a_file(kill))
        train_trial(config, data, folder, on_progress, resume=resume, device=device)
    except PerpixelError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _shortened(config: RunConfig, device: torch.device, place: Path) -> tuple[RunConfig, list[str]]:
    """Writes ``config.yaml`` of the short run and returns it, with what was made smaller, in words."""
    limit = min(config.data.limit or _IMAGES, max(_IMAGES, 2 * config.data.batch_size))
    choice = config.data.model_copy(update={"limit": limit, "allow_absent_classes": True})
    config = config.model_copy(update={"data": choice})
    data = _data(config, RunFolder(place / "data"))
    notes = [f"{STEPS} steps per stage, on at most {limit} training and {_SCORED} validation images"]
    sizes = {index: _size(config, data, device, index) for index in range(len(config.stages))}
    for index, size in sizes.items():
        if size.share < 1:
            asked, smaller = config.data_of(index), []
            if size.batch_size != asked.batch_size:
                smaller.append(f"batch {size.batch_size} instead of {asked.batch_size}")
            if size.crop_size != asked.crop_size:
                taken, wanted = (" x ".join(map(str, sides)) for sides in (size.crop_size, asked.crop_size))
                smaller.append(f"crop {taken} instead of {wanted}")
            notes += [f"{config.stages[index].name}: {', '.join(smaller)}"] if smaller else []
    names = [stage.model.backbone.name for stage in config.stages
             if stage.model and stage.model.backbone and stage.model.backbone.weights == "timm"]  # fmt: skip
    absent = any(published_weights(name) != "here" for name in names)
    if absent:
        notes.append("the backbone's published weights are not on this machine: random ones")
    precision = choose_precision(config.precision, device).name
    trial = trial_config(config, sizes, precision=precision, random_backbones=absent, steps=STEPS)
    trial = trial.model_copy(update={"device": device.type, "checkpoint_every": _EVERY})
    (place / "config.yaml").write_text(dump_config(trial), encoding="utf-8")
    return load_config(place / "config.yaml"), notes


def _size(config: RunConfig, data: RunData, device: torch.device, index: int) -> TrialSize:
    """Returns batch and crop of a stage: the real ones on a GPU, on a CPU what the steps have the time for."""
    share = 1.0
    if device.type == "cpu":
        batches = _TRAINED * len(config.stages) * min(config.stages[index].accumulate, 2)
        share = _SECONDS / batches / step_seconds(config, data.labels.num_classes, index)
    return choose_size(config, data.labels.num_classes, index, share)


def _data(config: RunConfig, run: RunFolder) -> RunData:
    opened = open_source(config.data) or generate_scenes(config.data, run)
    channels = in_channels(config.model_of(0))
    data = prepare_data(config, opened, in_channels=channels, stored_split=run.path / "split.json")
    val = data.val
    few = type(val)(
        val.items[:_SCORED],
        val.labels,
        in_channels=val.in_channels,
        mask_encoding=val.mask_encoding,
        max_pixels=val.max_pixels,
    )
    return replace(data, val=few)


def _kills(config: RunConfig) -> list[dict[str, Any]]:
    several, last = len(config.stages) > 1, len(config.stages) - 1
    found = []
    for index in sorted({0, last}):
        name = config.stages[index].name
        phase = f"train {name}" if several else "train"
        found.append({"at": "step", "stage": name, "phase": phase, "step": _EVERY + 1})
    found.append({"at": "checkpoint", "stage": config.stages[last].name, "step": 2 * _EVERY})
    return found


def _in_words(kill: Mapping[str, Any]) -> str:
    where = "after step" if kill["at"] == "step" else "while the checkpoint is written of step"
    return f"{where} {kill['step']} of stage {kill['stage']}"


def _dying_in_a_step(kill: Mapping[str, Any]) -> ProgressCallback:
    def on_progress(progress: Progress) -> None:
        if progress.phase == kill["phase"] and progress.done == kill["step"]:
            os.kill(os.getpid(), signal.SIGKILL)

    return on_progress


def _dying_in_a_file(kill: Mapping[str, Any]) -> Callable[[str, tuple[Any, ...]], None]:
    """The state is written by then and its manifest is not."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(f".partial-step-{kill['step']}/manifest.json"):
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


def _start(config: Path, run: Path, kill: Mapping[str, Any] | None) -> None:
    """Lets one life pass.

    Raises:
        RunError: it did not end as it should.
    """
    order = json.dumps({"config": str(config), "run": str(run), "kill": kill})
    done = subprocess.run(
        [sys.executable, "-c", _LIFE, order], capture_output=True, text=True, timeout=_LONGEST_LIFE, check=False
    )
    if done.returncode == (0 if kill is None else -signal.SIGKILL):
        return
    said = done.stderr.strip().splitlines() or ["it said nothing"]
    where = "to its end" if kill is None else f"up to a kill {_in_words(kill)}"
    raise RunError(
        f"the short run was to go {where}, and ended with code {done.returncode}: {said[-1]}; `perpixel check` with "
        "the same arguments tries each part by itself"
    )


def _states(config: RunConfig, run: Path) -> dict[str, Any]:
    """Returns all that the last checkpoints hold, and the names of the batch that would come next."""
    folder = RunFolder(run, resume=True)
    found: dict[str, Any] = {}
    for stage, path in zip(config.stages, stage_folders(config, run), strict=True):
        state = load_checkpoint(path / "checkpoints" / f"step-{STEPS}")
        found[stage.name] = {"tensors": state["tensors"], **state}  # where they differ, the rest may only follow
    data, index = _data(config, folder), len(config.stages) - 1
    stored = load_config(run / "config.yaml")
    batches = stage_batches(
        stored,
        data,
        index,
        preprocessing=build_network(without_weights(config.model_of(index)), data.labels.num_classes).preprocessing,
        start=found[config.stages[index].name]["step"] * stored.stages[index].accumulate,
        count=1,
        workers=choose_workers(config.data, torch.device("cpu"))[0],
        world=World(),
    )
    found["next batch"] = list(next(iter(batches)).names)
    return found


def _differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Yields what differs between two states, in words, in their order."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if not same_bits(one, other):
            both = one.shape == other.shape and one.numel() > 0
            by = f" by up to {(one.double() - other.double()).abs().max():.3g}" if both else ""
            yield f"{path}{by}"
    elif isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys((*one, *other)):
            yield from _differences(one.get(key), other.get(key), f"{path} {key}".strip())
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from _differences(*pair, f"{path} {index}")
    elif repr(one) != repr(other):
        yield f"{path}: {one!r:.80} and {other!r:.80}"


def _digest(state: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, Mapping):
            for key, item in value.items():
                digest.update(f"{key}:".encode())
                add(item)
        elif isinstance(value, list | tuple):
            digest.update(f"{len(value)} ".encode())
            for item in value:
                add(item)
        else:
            digest.update(f"{value!r} ".encode())

    add(state)
    return digest.hexdigest()
